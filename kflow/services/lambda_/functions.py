"""Operations on functions: create, find, list, update and delete them."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from kflow.aws.calls import LATER, Answer, Call
from kflow.broker.objects import Objects
from kflow.errors import KflowError
from kflow.lambda_.control import names, shown, versions
from kflow.lambda_.control import tags as tagging
from kflow.lambda_.control.configuration import changes, check_size, refuse_what_is_not_here
from kflow.lambda_.control.facts import LATEST, Code, Configuration, Facts
from kflow.lambda_.control.function import Function
from kflow.lambda_.control.sources import source
from kflow.lambda_.errors import InvalidParameterValue
from kflow.services.answering import answering
from kflow.services.lambda_.parts import Base, page, read_marker


class Functions(Base):
    """Operations on functions."""

    def create_function(self, call: Call, given: Any) -> Answer:
        """Source: documented: CreateFunction."""
        named = names.parse(given.FunctionName, call.context.place)
        place = call.context.place
        if named.qualifier or named.place != place:
            # chosen
            raise InvalidParameterValue(
                f"{given.FunctionName} is no name for a new function: give the name alone, without a qualifier."
            )
        values = changes(given, self.layers.use, named.arn)
        if given.Runtime is None or given.Handler is None:
            raise InvalidParameterValue(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages."
            )
        tags = tagging.checked({}, given.Tags or {})
        read = source(given.Code, "CreateFunction", self._objects)
        self.functions.reserve(place, named.name)

        def added(code: Code | KflowError) -> None:
            if isinstance(code, KflowError):
                self.functions.give_up(place, named.name)
                call.refuse(code)
                return
            now_ms = self.host.now_ms()
            latest = Configuration(
                version=LATEST,
                revision=versions.revision(),
                modified_ms=now_ms,
                code=code,
                active_ms=now_ms + round(self.host.transition_s * 1000),
                **values,
            )
            try:
                check_size(code.unpacked, latest.layers)
            except KflowError as error:
                self.functions.give_up(place, named.name)
                self.functions.packages.drop([code])
                call.refuse(error)
                return
            facts = Facts(
                name=named.name,
                account=place.account,
                region=place.region,
                latest=latest,
                last_version=self.functions.numbers.last(place, named.name),
                tags=tags,
            )
            made = latest
            if given.Publish:
                facts, made = versions.published(facts, latest, now_ms, self.host.transition_s)
            self.functions.create(facts, partial(created, made))
            self.functions.packages.drop([code])

        def created(made: Configuration, function: Function | KflowError) -> None:
            if isinstance(function, KflowError):
                call.refuse(function)
            else:
                if made.subnets:
                    self._tell_of(function)
                call.answer(shown.as_new(function, made))

        self.functions.packages.add(read, added)
        return LATER

    def get_function(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetFunction."""
        function, qualifier = self.qualified(call, given)
        return self.described(call, lambda: self._whole_function(call, function, qualifier))

    def _whole_function(self, call: Call, function: Function, qualifier: str) -> dict[str, Any]:
        found = function.configuration(qualifier)
        if function.declared is None:
            code = {"RepositoryType": "S3", "Location": self.location(call, found.code.digest)}
        else:
            code = {"RepositoryType": "local"}  # chosen: its code is a file of the project, and no zip
        answer: dict[str, Any] = {
            "Configuration": shown.configuration(function, found, qualifier, self.host.now_ms()),
            "Code": code,
        }
        if function.facts.tags:
            answer["Tags"] = function.facts.tags
        if function.facts.reserved is not None:
            answer["Concurrency"] = {"ReservedConcurrentExecutions": function.facts.reserved}
        return answer

    def get_function_configuration(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetFunctionConfiguration."""
        function, qualifier = self.qualified(call, given)

        def output() -> dict[str, Any]:
            found = function.configuration(qualifier)
            return shown.configuration(function, found, qualifier, self.host.now_ms())

        return self.described(call, output)

    def list_functions(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListFunctions. Lists say nothing of states."""
        if given.MasterRegion is not None and given.FunctionVersion != "ALL":
            # chosen: the text
            raise InvalidParameterValue("FunctionVersion must be set to ALL if MasterRegion is specified.")
        place = call.context.place

        def output() -> dict[str, Any]:
            is_all = given.FunctionVersion == "ALL"
            first = read_marker(given.Marker).partition("\0")[0]
            rows = (
                (each, found)
                for each in self.functions.of(place)
                if each.name >= first
                for found in (each.configurations if is_all else (each.latest,))
            )
            listed, marker = page(rows, lambda row: row_name(*row), given)
            now_ms = self.host.now_ms()
            return {
                "Functions": [
                    shown.configuration(each, found, found.version if is_all else "", now_ms, has_states=False)
                    for each, found in listed
                ],
                "NextMarker": marker,
            }

        return self.described(call, output)

    def update_function_code(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateFunctionCode."""
        function = self.unqualified(call, given.FunctionName)
        function.require_created("its code")
        refuse_what_is_not_here(given)
        versions.check_revision(given.RevisionId, function.latest.revision)
        versions.require_settled(function, self.host.now_ms())
        read = source(given, "UpdateFunctionCode", self._objects)
        function.is_updating = True

        def added(code: Code | KflowError) -> None:
            function.is_updating = False
            if isinstance(code, KflowError):
                call.refuse(code)
                return
            try:
                self._changed_code(call, given, function, code)
            except KflowError as error:
                call.refuse(error)
            finally:
                self.functions.packages.drop([code])

        self.functions.packages.add(read, added)
        return LATER

    def _changed_code(self, call: Call, given: Any, function: Function, code: Code) -> None:
        if function.is_gone:
            raise names.Named(function.place, function.name).not_found()
        check_size(code.unpacked, function.latest.layers)
        now_ms = self.host.now_ms()
        architecture = given.Architectures[0] if given.Architectures else function.latest.architecture
        latest = versions.changed(function.latest, now_ms, self.host.transition_s, code=code, architecture=architecture)
        if given.DryRun:
            call.answer(shown.configuration(function, msgspec.structs.replace(latest, updated_ms=0), "", now_ms))
            return
        facts, answered = msgspec.structs.replace(function.facts, latest=latest), latest
        if given.Publish:
            facts, answered = versions.published(facts, latest, now_ms, self.host.transition_s)
        self.change(
            call,
            function,
            lambda: shown.as_new(function, answered),
            latest=latest,
            versions=facts.versions,
            last_version=facts.last_version,
        )

    def update_function_configuration(self, call: Call, given: Any) -> Answer:
        """Source: documented: UpdateFunctionConfiguration."""
        function = self.unqualified(call, given.FunctionName)
        function.require_created("its configuration")
        versions.check_revision(given.RevisionId, function.latest.revision)
        values = changes(given, self.layers.use, function.arn)
        now_ms = self.host.now_ms()
        versions.require_settled(function, now_ms)
        latest = versions.changed(function.latest, now_ms, self.host.transition_s, **values)
        check_size(latest.code.unpacked, latest.layers)

        if latest.subnets and not function.latest.subnets:
            self._tell_of(function)
        return self.change(call, function, lambda: shown.as_new(function, latest), latest=latest)

    def delete_function(self, call: Call, given: Any) -> Answer:
        """With a qualifier that version alone. Source: documented: DeleteFunction."""
        function, named = self.named(call, given.FunctionName, given.Qualifier)
        function.require_created("what is run, and under which name,")
        if named.qualifier:
            function.configuration(named.qualifier)
            left = versions.without(function.facts, named.qualifier)
            return self.change(call, function, lambda: self._deleted(function), **left)
        self.functions.delete(function, answering(call, lambda _: self._deleted(function)))
        return LATER

    def _deleted(self, function: Function) -> dict[str, int]:
        self.tell_of_orphans(function)
        return {"StatusCode": 204}

    # ------------------------------------------------------------------ inside

    def _objects(self) -> Objects:
        return Objects.of(self.host.folder)

    def _tell_of(self, function: Function) -> None:
        """People are told of what a function asks for and does not get."""
        self.host.notice("warning", f"function {function.name} asks for a VPC: it has this machine's network instead")


def row_name(function: Function, found: Configuration) -> str:
    """What lists of versions are in order by."""
    number = 0 if found.version == LATEST else int(found.version)
    return f"{function.name}\0{number:012d}"
