"""Operations on resource policies of functions: kept and shown; there is no IAM here, and nothing is denied."""

from __future__ import annotations

from typing import Any

from kflow.aws.calls import Answer, Call
from kflow.lambda_.control import policies
from kflow.lambda_.control.facts import LATEST, Policy
from kflow.lambda_.control.function import Function
from kflow.lambda_.errors import InvalidParameterValue, ResourceNotFound
from kflow.services.lambda_.parts import Base


class Policies(Base):
    """Operations on resource policies."""

    def add_permission(self, call: Call, given: Any) -> Answer:
        """Source: documented: AddPermission."""
        function, qualifier = self._permitted(call, given)
        text = policies.statement(
            given.StatementId,
            given.Action,
            given.Principal,
            function.qualified(qualifier),
            policies.conditions(given),
        )
        before = function.facts.policies.get(qualifier or LATEST)
        after = policies.with_statement(before, given.StatementId, text, given.RevisionId)
        return self._keep_policy(call, function, qualifier, after, {"Statement": text})

    def remove_permission(self, call: Call, given: Any) -> Answer:
        """Source: documented: RemovePermission."""
        function, qualifier = self._permitted(call, given)
        before = function.facts.policies.get(qualifier or LATEST)
        after = policies.without(before, given.StatementId, given.RevisionId)
        return self._keep_policy(call, function, qualifier, after, None)

    def get_policy(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetPolicy."""
        function, named = self.named(call, given.FunctionName, given.Qualifier)
        function.configuration(named.qualifier)
        found = function.facts.policies.get(named.qualifier or LATEST)
        if found is None:
            raise ResourceNotFound("The resource you requested does not exist.")
        return {"Policy": policies.shown(found), "RevisionId": found.revision}

    def _permitted(self, call: Call, given: Any) -> tuple[Function, str]:
        function, named = self.named(call, given.FunctionName, given.Qualifier)
        if named.qualifier == LATEST:
            raise InvalidParameterValue("We currently do not support adding policies for $LATEST.")
        function.configuration(named.qualifier)
        return function, named.qualifier

    def _keep_policy(
        self, call: Call, function: Function, qualifier: str, policy: Policy | None, answer: dict[str, str] | None
    ) -> Answer:
        after = {name: each for name, each in function.facts.policies.items() if name != (qualifier or LATEST)}
        if policy is not None:
            after[qualifier or LATEST] = policy
        return self.change(call, function, lambda: answer, policies=after)
