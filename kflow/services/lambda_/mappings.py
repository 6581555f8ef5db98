"""Event source mappings by the API.

Source: documented: Lambda API reference; recorded: the documents and the texts, but those marked chosen.
"""

from __future__ import annotations

from collections.abc import Mapping as Dict
from typing import Any, Final

from msgspec.structs import replace

from kflow.aws.calls import LATER, Answer, Call, Place
from kflow.declarations import HandlerForm
from kflow.errors import KflowError
from kflow.lambda_.control import mappingchecks as checks
from kflow.lambda_.control import names
from kflow.lambda_.control.function import Target
from kflow.lambda_.control.mappingfacts import Mapping
from kflow.lambda_.control.mappings import Entry
from kflow.lambda_.control.tags import checked as checked_tags
from kflow.lambda_.errors import InvalidParameterValue, ResourceNotFound
from kflow.services.lambda_.parts import Base

PAGE: Final = 100
"""Mappings a page at most (chosen)."""

_ONE_BY_ONE: Final = (HandlerForm.RECORD, HandlerForm.MESSAGE)
_RESULTS: Final = {"": "No records processed", "ok": "OK", "failed": "PROBLEM: Function call failed"}


class Mappings(Base):
    """Operations on event source mappings."""

    def create_event_source_mapping(self, call: Call, given: Any) -> Answer:
        """A stream, a registered consumer or a queue, from now on read by a function."""
        source = checks.source(given)
        target = self._function(call, given.FunctionName)
        place = target.function.place
        made = Mapping(
            uuid="",
            account=place.account,
            region=place.region,
            function=target.function.name,
            qualifier=target.qualifier,
            source=source,
            enabled=given.Enabled is not False,
            key_arn=given.KMSKeyArn or "",
            metrics=checks.metrics(given, None),
            tags=checked_tags({}, given.Tags or {}),
        )
        self._check_form(made, target)

        def told(entry: Entry | KflowError) -> None:
            if isinstance(entry, KflowError):
                call.refuse(entry)
            else:
                self._say(entry.mapping)
                call.answer(_document(entry, ""))

        self.mappings.create(self._optioned(made, given, None), told)
        return LATER

    def get_event_source_mapping(self, call: Call, given: Any) -> Answer:
        """One of them."""
        entry = self._mapping(call, given.UUID)
        self._documents(call, [entry], lambda found: found[0])
        return LATER

    def update_event_source_mapping(self, call: Call, given: Any) -> Answer:
        """Change it; it goes on after the last settled record."""
        entry = self._mapping(call, given.UUID)
        before = entry.mapping
        after = self._optioned(before, given, before)
        if given.FunctionName is not None:
            target = self._function(call, given.FunctionName)
            place = target.function.place
            after = replace(
                after,
                account=place.account,
                region=place.region,
                function=target.function.name,
                qualifier=target.qualifier,
            )
            self._check_form(after, target)
        if given.Enabled is not None:
            after = replace(after, enabled=given.Enabled)
        after = replace(after, metrics=checks.metrics(given, before.metrics))
        if given.KMSKeyArn is not None:
            after = replace(after, key_arn=given.KMSKeyArn)

        def told(failure: KflowError | None) -> None:
            if failure is not None:
                call.refuse(failure)
            else:
                if (before.options, before.queue_options) != (after.options, after.queue_options):
                    self._say(after)
                self._documents(call, [entry], lambda found: found[0], state=state)

        self.mappings.update(entry, after, told)
        state = entry.state
        return LATER

    def delete_event_source_mapping(self, call: Call, given: Any) -> Answer:
        """End it; the answer is what it was."""
        entry = self._mapping(call, given.UUID)

        def told(failure: KflowError | None) -> None:
            if failure is not None:
                call.refuse(failure)
            else:
                self._documents(call, [entry], lambda found: found[0], state="Deleting")

        self.mappings.delete(entry, told)
        return LATER

    def list_event_source_mappings(self, call: Call, given: Any) -> Answer:
        """A hundred a page, in the order they were made; of a source, of a function, or all."""
        found = self.mappings.of(call.context.place)
        if given.EventSourceArn is not None:
            found = [each for each in found if each.mapping.source == given.EventSourceArn]
        if given.FunctionName is not None:
            named = names.parse(given.FunctionName, call.context.place)
            found = [
                each
                for each in found
                if (each.mapping.account, each.mapping.function) == (named.place.account, named.name)
                and _version(each.mapping.qualifier) == _version(named.qualifier)
            ]
        if given.Marker:
            uuids = [each.mapping.uuid for each in found]
            if given.Marker not in uuids:
                raise InvalidParameterValue("Invalid pagination token.")  # chosen
            found = found[uuids.index(given.Marker) :]
        size = min(given.MaxItems or PAGE, PAGE)
        following = found[size].mapping.uuid if len(found) > size else None
        self._documents(call, found[:size], lambda shown: {"EventSourceMappings": list(shown), "NextMarker": following})
        return LATER

    # ------------------------------------------------------------------ inside

    def _mapping(self, call: Call, uuid: str) -> Entry:
        entry = self.mappings.find(uuid)
        place = call.context.place
        if (entry.mapping.account, entry.mapping.region) != (place.account, place.region):
            raise ResourceNotFound("The resource you requested does not exist.")
        return entry

    def _function(self, call: Call, text: str) -> Target:
        try:
            return self.functions.target(call.context.place, text)
        except ResourceNotFound as error:
            raise InvalidParameterValue("Function does not exist") from error

    def _check_form(self, mapping: Mapping, target: Target) -> None:
        """A decorated handler may take what the other kind of source holds (chosen)."""
        declared = target.function.declared
        form = None if declared is None else declared.handler.form
        if form is not None and (form.is_of_streams if mapping.is_queue else form.is_of_queues):
            kind = "streams" if mapping.is_queue else "queues"
            raise InvalidParameterValue(
                f"{mapping.function} is the handler at {target.function.line}, and takes what {kind} hold: "
                f"{mapping.source} is none."
            )

    def _say(self, mapping: Mapping) -> None:
        """Tell people what may be another on AWS, or cost them records."""
        for warning in checks.warnings(mapping):
            self.host.notice("warning", f"mapping of {mapping.function} on {mapping.source}: {warning}")
        function = self.functions.get(Place(mapping.account, mapping.region), mapping.function)
        declared = None if function is None else function.declared
        if declared is not None and declared.handler.form in _ONE_BY_ONE and not checks.reports(mapping):
            self.host.notice(
                "warning",
                f"{mapping.function} takes one record at a time, and reports the one that failed: without "
                f"FunctionResponseTypes=[ReportBatchItemFailures] its mapping on {mapping.source} takes that for a "
                "success, as AWS does",
            )

    def _optioned(self, mapping: Mapping, given: Any, before: Mapping | None) -> Mapping:
        """With the options that are asked for."""
        if mapping.is_queue:
            options = checks.queue_options(given, None if before is None else before.queue_options, mapping.source)
            return replace(mapping, queue_options=options)
        now_ms = self.host.now_ms()
        return replace(
            mapping, options=checks.stream_options(given, None if before is None else before.options, now_ms)
        )

    def _documents(self, call: Call, entries: list[Entry], answer: Any, *, state: str = "") -> None:
        """Answer with documents; what became of the last batches is read by a thread."""
        streams = [entry for entry in entries if not entry.mapping.is_queue]
        if not streams:
            call.answer(answer([_document(entry, "", state) for entry in entries]))
            return

        def told(results: list[str] | KflowError) -> None:
            if isinstance(results, KflowError):
                call.refuse(results)
                return
            last = {entry.mapping.uuid: result for entry, result in zip(streams, results, strict=True)}
            call.answer(answer([_document(entry, last.get(entry.mapping.uuid, ""), state) for entry in entries]))

        self.runner.results([entry.mapping for entry in streams], told)


def _version(qualifier: str) -> str:
    return "" if qualifier == "$LATEST" else qualifier


def _document(entry: Entry, last: str, state: str = "") -> Dict[str, Any]:
    """A mapping as the API shows it. Source: recorded: which members it has, for either kind of source."""
    mapping = entry.mapping
    is_queue = mapping.is_queue
    common = mapping.queue_options if is_queue else mapping.options
    shown: dict[str, Any] = {
        "UUID": mapping.uuid,
        "BatchSize": common.batch_size,
        "MaximumBatchingWindowInSeconds": common.maximum_batching_window_in_seconds,
        "EventSourceArn": mapping.source,
        "FunctionArn": mapping.function_arn,
        "EventSourceMappingArn": mapping.arn,
        "LastModified": mapping.modified_ms,
        "State": state or entry.state,
        "StateTransitionReason": "USER_INITIATED" if is_queue else "User action",
        "FunctionResponseTypes": ["ReportBatchItemFailures"] if common.report_batch_item_failures else [],
    }
    if common.filters:
        shown["FilterCriteria"] = {"Filters": [{"Pattern": each} for each in common.filters]}
    if mapping.key_arn:
        shown["KMSKeyArn"] = mapping.key_arn
    if mapping.metrics is not None:
        shown["MetricsConfig"] = {"Metrics": list(mapping.metrics)}
    if is_queue:
        if mapping.queue_options.maximum_concurrency is not None:
            shown["ScalingConfig"] = {"MaximumConcurrency": mapping.queue_options.maximum_concurrency}
        return shown
    options = mapping.options
    destination = options.on_failure if (options.on_failure or "").startswith("arn:") else None
    shown |= {
        "StartingPosition": options.starting_position.value,
        "ParallelizationFactor": options.parallelization_factor,
        "LastProcessingResult": _RESULTS[last],
        "DestinationConfig": {"OnFailure": {"Destination": destination} if destination else {}},
        "MaximumRecordAgeInSeconds": options.maximum_record_age_in_seconds,
        "BisectBatchOnFunctionError": options.bisect_batch_on_function_error,
        "MaximumRetryAttempts": options.maximum_retry_attempts,
        "TumblingWindowInSeconds": options.tumbling_window_in_seconds,
    }
    if options.starting_position_ms is not None:
        shown["StartingPositionTimestamp"] = options.starting_position_ms
    return shown
