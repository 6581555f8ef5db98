"""Operations on versions, and what is kept of each: when its runtime would be updated."""

from __future__ import annotations

from typing import Any

from kflow.aws.calls import Answer, Call
from kflow.lambda_.control import shown, versions
from kflow.lambda_.control.facts import LATEST, RuntimeManagement
from kflow.lambda_.errors import InvalidParameterValue
from kflow.services.lambda_.functions import row_name
from kflow.services.lambda_.parts import Base, page


class Versions(Base):
    """Operations on versions."""

    def publish_version(self, call: Call, given: Any) -> Answer:
        """The newest one again where nothing has changed. Source: documented: PublishVersion."""
        function = self.unqualified(call, given.FunctionName)
        function.require_created("its code")
        if given.PublishTo is not None:
            raise InvalidParameterValue(
                "PublishTo is not supported here: kflow has no $LATEST.PUBLISHED; leave it out."  # chosen
            )
        latest = function.latest
        versions.check_revision(given.RevisionId, latest.revision)
        if given.CodeSha256 and given.CodeSha256 != latest.code.sha256:
            raise InvalidParameterValue(
                f"CodeSHA256 ({given.CodeSha256}) is different from current CodeSHA256 in $LATEST "
                f"({latest.code.sha256}). Please try again with the CodeSHA256 in $LATEST."
            )
        now_ms = self.host.now_ms()
        versions.require_settled(function, now_ms)
        after, made = versions.published(function.facts, latest, now_ms, self.host.transition_s, given.Description)
        if after is function.facts:
            return shown.configuration(function, made, made.version, now_ms)
        return self.change(
            call,
            function,
            lambda: shown.as_new(function, made),
            versions=after.versions,
            last_version=after.last_version,
        )

    def list_versions_by_function(self, call: Call, given: Any) -> Answer:
        """`$LATEST` first, then from the oldest. Source: documented: ListVersionsByFunction."""
        function = self.unqualified(call, given.FunctionName)

        def output() -> dict[str, Any]:
            listed, marker = page(function.configurations, lambda each: row_name(function, each), given)
            now_ms = self.host.now_ms()
            rows = [shown.configuration(function, each, each.version, now_ms, has_states=False) for each in listed]
            return {"Versions": rows, "NextMarker": marker}

        return self.described(call, output)

    # ------------------------------------------------------------------ when runtimes are updated

    def put_runtime_management_config(self, call: Call, given: Any) -> Answer:
        """Kept and shown: a runtime here is what is installed.

        Source: documented: PutRuntimeManagementConfig; chosen: the texts.
        """
        function, qualifier = self.qualified(call, given)
        is_manual = given.UpdateRuntimeOn == "Manual"
        if is_manual and not given.RuntimeVersionArn:
            raise InvalidParameterValue(
                "If the UpdateRuntimeOn mode is set to 'Manual', RuntimeVersionArn must be provided"
            )
        if given.RuntimeVersionArn and not is_manual:
            raise InvalidParameterValue(
                "RuntimeVersionArn can only be specified if the UpdateRuntimeOn mode is set to 'Manual'"
            )
        kept = RuntimeManagement(update_on=given.UpdateRuntimeOn, version_arn=given.RuntimeVersionArn or "")
        answer = {"FunctionArn": function.qualified(qualifier), "UpdateRuntimeOn": kept.update_on}
        if kept.version_arn:
            answer["RuntimeVersionArn"] = kept.version_arn
        management = {**function.facts.management, qualifier or LATEST: kept}
        return self.change(call, function, lambda: answer, management=management)

    def get_runtime_management_config(self, call: Call, given: Any) -> Answer:
        """`Auto` where nothing was put. Source: documented: GetRuntimeManagementConfig."""
        function, qualifier = self.qualified(call, given)
        kept = function.facts.management.get(qualifier or LATEST, RuntimeManagement(update_on="Auto"))
        return {
            "FunctionArn": function.qualified(qualifier),
            "UpdateRuntimeOn": kept.update_on,
            "RuntimeVersionArn": kept.version_arn or None,
        }
