"""Operations on concurrency: reserved, which holds, and provisioned, which is kept and shown.

Environments start as they are needed, so provisioned ones make no difference but to how soon the first answer comes.
Source: recorded: the texts, but those marked chosen.
"""

from __future__ import annotations

from typing import Any, Final

from kflow.aws.calls import Answer, Call
from kflow.lambda_.control import names, shown
from kflow.lambda_.control.facts import LATEST, Provisioned
from kflow.lambda_.control.function import Function
from kflow.lambda_.errors import InvalidParameterValue, ProvisionedConcurrencyNotFound, ResourceConflict
from kflow.limits import CONCURRENT_EXECUTIONS
from kflow.services.lambda_.parts import Base, page

UNRESERVED: Final = 100
"""So many are left for functions that have reserved none. Source: documented: PutFunctionConcurrency."""


class Concurrency(Base):
    """Operations on concurrency."""

    def put_function_concurrency(self, call: Call, given: Any) -> Answer:
        """Holds over all versions from now on; 0 stops the function. Source: documented: PutFunctionConcurrency."""
        function = self.unqualified(call, given.FunctionName)
        wanted = given.ReservedConcurrentExecutions
        others = self.reserved(call) - (function.facts.reserved or 0)
        if CONCURRENT_EXECUTIONS - others - wanted < UNRESERVED:
            raise InvalidParameterValue(
                "Specified ReservedConcurrentExecutions for function decreases account's "
                f"UnreservedConcurrentExecution below its minimum value of [{UNRESERVED}]."
            )
        provisioned = sum(each.count for each in function.facts.provisioned.values())
        if wanted < provisioned:
            raise InvalidParameterValue(
                f" ReservedConcurrentExecutions  {wanted} should not be lower than function's total provisioned "
                f"concurrency [{provisioned}]."
            )
        return self.change(call, function, lambda: {"ReservedConcurrentExecutions": wanted}, reserved=wanted)

    def get_function_concurrency(self, call: Call, given: Any) -> Answer:
        """Empty where none is reserved. Source: documented: GetFunctionConcurrency."""
        return {"ReservedConcurrentExecutions": self.unqualified(call, given.FunctionName).facts.reserved}

    def delete_function_concurrency(self, call: Call, given: Any) -> Answer:
        """Source: documented: DeleteFunctionConcurrency."""
        return self.change(call, self.unqualified(call, given.FunctionName), lambda: None, reserved=None)

    def reserved(self, call: Call) -> int:
        """Of all functions of the caller's account and region."""
        return sum(each.facts.reserved or 0 for each in self.functions.of(call.context.place))

    # ------------------------------------------------------------------ provisioned

    def put_provisioned_concurrency_config(self, call: Call, given: Any) -> Answer:
        """Source: documented: PutProvisionedConcurrencyConfig."""
        function, qualifier = self._provisionable(call, given)
        _check_once(function, qualifier)
        wanted, reserved = given.ProvisionedConcurrentExecutions, function.facts.reserved
        others = sum(each.count for name, each in function.facts.provisioned.items() if name != qualifier)
        if reserved is not None and wanted + others > reserved:
            raise InvalidParameterValue(
                "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for "
                "function"
            )
        if reserved is None and wanted > CONCURRENT_EXECUTIONS - self.reserved(call) - UNRESERVED:
            raise InvalidParameterValue(
                "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency "
                f"[{CONCURRENT_EXECUTIONS - self.reserved(call)}]."
            )
        now_ms = self.host.now_ms()
        made = Provisioned(count=wanted, modified_ms=now_ms, ready_ms=now_ms + round(self.host.transition_s * 1000))
        return self.change(
            call,
            function,
            lambda: _shown(made, now_ms - 1),
            provisioned={**function.facts.provisioned, qualifier: made},
        )

    def get_provisioned_concurrency_config(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetProvisionedConcurrencyConfig."""
        function, qualifier = self._provisionable(call, given)
        found = function.facts.provisioned.get(qualifier)
        if found is None:
            raise ProvisionedConcurrencyNotFound("No Provisioned Concurrency Config found for this function")
        return _shown(found, self.host.now_ms())

    def delete_provisioned_concurrency_config(self, call: Call, given: Any) -> Answer:
        """None that is there is deleted already. Source: documented: DeleteProvisionedConcurrencyConfig."""
        function, qualifier = self._provisionable(call, given)
        left = {name: each for name, each in function.facts.provisioned.items() if name != qualifier}
        return self.change(call, function, lambda: None, provisioned=left)

    def list_provisioned_concurrency_configs(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListProvisionedConcurrencyConfigs."""
        function = self.unqualified(call, given.FunctionName)
        rows = sorted(function.facts.provisioned.items())
        listed, marker = page(rows, lambda row: row[0], given)
        now_ms = self.host.now_ms()
        return {
            "ProvisionedConcurrencyConfigs": [
                {"FunctionArn": function.qualified(name), **_shown(each, now_ms)} for name, each in listed
            ],
            "NextMarker": marker,
        }

    def _provisionable(self, call: Call, given: Any) -> tuple[Function, str]:
        function, named = self.named(call, given.FunctionName, given.Qualifier)
        if named.qualifier in {"", LATEST}:
            raise InvalidParameterValue(
                "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
            )
        function.configuration(named.qualifier)
        return function, named.qualifier


def _check_once(function: Function, qualifier: str) -> None:
    """A version has it by its number or by an alias, not by both."""
    facts = function.facts
    if names.is_number(qualifier):
        pointing = [name for name in facts.provisioned if name in facts.aliases]
        if any(facts.aliases[name].version == qualifier for name in pointing):
            raise ResourceConflict("Version is pointed by a Provisioned Concurrency alias")
    elif facts.aliases[qualifier].version in facts.provisioned:
        raise ResourceConflict(
            "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
        )


def _shown(found: Provisioned, now_ms: int) -> dict[str, Any]:
    is_ready = found.ready_ms <= now_ms
    there = found.count if is_ready else 0
    return {
        "RequestedProvisionedConcurrentExecutions": found.count,
        "AvailableProvisionedConcurrentExecutions": there,
        "AllocatedProvisionedConcurrentExecutions": there,
        "Status": "READY" if is_ready else "IN_PROGRESS",
        "LastModified": shown.time(found.modified_ms),
    }
