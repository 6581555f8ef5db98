"""Operations on how asynchronous invocations are retried, and who is told of their end.

Source: documented: PutFunctionEventInvokeConfig; recorded: the texts, but those marked chosen.
"""

from __future__ import annotations

from typing import Any, Final

from kflow.aws.calls import Answer, Call
from kflow.lambda_ import destined
from kflow.lambda_.control.facts import LATEST, InvokeConfig
from kflow.lambda_.control.function import Function
from kflow.lambda_.errors import InvalidParameterValue, ResourceNotFound
from kflow.services.lambda_.parts import Base, page

_SUCCESS: Final = ("sqs", "sns", "lambda")
_FAILURE: Final = (*_SUCCESS, "s3")


class Events(Base):
    """Operations on event invoke configs."""

    def put_function_event_invoke_config(self, call: Call, given: Any) -> Answer:
        """Replaces what was there. Source: documented: PutFunctionEventInvokeConfig."""
        function, qualifier = self._event_qualified(call, given)
        if (given.MaximumRetryAttempts, given.MaximumEventAgeInSeconds, given.DestinationConfig) == (None,) * 3:
            raise InvalidParameterValue("You must specify at least one of error handling or destination setting.")
        return self._keep_event_config(call, given, function, qualifier, InvokeConfig(modified_ms=0))

    def update_function_event_invoke_config(self, call: Call, given: Any) -> Answer:
        """What is not given stays. Source: documented: UpdateFunctionEventInvokeConfig."""
        function, qualifier = self._event_qualified(call, given)
        return self._keep_event_config(call, given, function, qualifier, self._event_config(function, qualifier))

    def get_function_event_invoke_config(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetFunctionEventInvokeConfig."""
        function, qualifier = self._event_qualified(call, given)
        return _shown(function, qualifier, self._event_config(function, qualifier))

    def delete_function_event_invoke_config(self, call: Call, given: Any) -> Answer:
        """Source: documented: DeleteFunctionEventInvokeConfig."""
        function, qualifier = self._event_qualified(call, given)
        self._event_config(function, qualifier)
        left = {name: each for name, each in function.facts.invoke_configs.items() if name != qualifier}
        return self.change(call, function, lambda: None, invoke_configs=left)

    def list_function_event_invoke_configs(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListFunctionEventInvokeConfigs."""
        function = self.unqualified(call, given.FunctionName)
        rows = sorted(function.facts.invoke_configs.items())
        listed, marker = page(rows, lambda row: row[0], given)
        return {
            "FunctionEventInvokeConfigs": [_shown(function, name, each) for name, each in listed],
            "NextMarker": marker,
        }

    def _event_qualified(self, call: Call, given: Any) -> tuple[Function, str]:
        function, qualifier = self.qualified(call, given)
        return function, qualifier or LATEST

    def _event_config(self, function: Function, qualifier: str) -> InvokeConfig:
        found = function.facts.invoke_configs.get(qualifier)
        if found is None:
            raise ResourceNotFound(f"The function {function.qualified(qualifier)} doesn't have an EventInvokeConfig")
        return found

    def _keep_event_config(
        self, call: Call, given: Any, function: Function, qualifier: str, before: InvokeConfig
    ) -> Answer:
        success, failure = before.on_success, before.on_failure
        if (wanted := given.DestinationConfig) is not None:
            if wanted.OnSuccess is not None:
                success = _destination(function, wanted.OnSuccess.Destination or "", _SUCCESS, "OnSuccess")
            if wanted.OnFailure is not None:
                failure = _destination(function, wanted.OnFailure.Destination or "", _FAILURE, "OnFailure")
        made = InvokeConfig(
            modified_ms=self.host.now_ms(),
            retries=before.retries if given.MaximumRetryAttempts is None else given.MaximumRetryAttempts,
            age_s=before.age_s if given.MaximumEventAgeInSeconds is None else given.MaximumEventAgeInSeconds,
            on_success=success,
            on_failure=failure,
        )
        after = {**function.facts.invoke_configs, qualifier: made}
        return self.change(call, function, lambda: _shown(function, qualifier, made), invoke_configs=after)


def _destination(function: Function, arn: str, services: tuple[str, ...], name: str) -> str:
    if not arn:
        return ""
    service = (arn.split(":") + [""] * 3)[2]
    if service == "events":
        raise InvalidParameterValue(
            f"The destination ARN {arn} is not supported here: kflow has no event buses; use a queue, a topic, a "
            "function, or for failures a bucket."  # chosen
        )
    if service not in services:
        raise InvalidParameterValue(f"The destination ARN {arn} is invalid.")
    if arn.endswith(".fifo"):
        raise InvalidParameterValue(
            f"The destination ARN {arn} is invalid: FIFO is not supported for {name}."
        )  # chosen
    if arn == function.arn or arn.startswith(f"{function.arn}:"):
        raise InvalidParameterValue("You can't specify the function as a destination for itself.")
    destined.check(arn, on_success=name == "OnSuccess")
    return arn


def _shown(function: Function, qualifier: str, found: InvokeConfig) -> dict[str, Any]:
    return {
        "LastModified": found.modified_ms,
        "FunctionArn": function.qualified(qualifier),
        "MaximumRetryAttempts": found.retries,
        "MaximumEventAgeInSeconds": found.age_s,
        "DestinationConfig": {
            "OnSuccess": {"Destination": found.on_success} if found.on_success else {},
            "OnFailure": {"Destination": found.on_failure} if found.on_failure else {},
        },
    }
