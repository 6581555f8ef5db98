"""The context object of an invocation, as Lambda's Python runtime passes it."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


class CognitoIdentity:
    """Who called through Cognito: for streams nobody."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self) -> None:
        self.cognito_identity_id: str | None = None
        self.cognito_identity_pool_id: str | None = None


class Client:
    """The app that called, as it says itself."""

    __slots__ = ("app_package_name", "app_title", "app_version_code", "app_version_name", "installation_id")

    def __init__(self, said: dict[str, Any]) -> None:
        for name in self.__slots__:
            setattr(self, name, said.get(name))


class ClientContext:
    """What the caller of Invoke gave as ClientContext.

    Attributes:
        custom: what its maker put in.
        env: of the mobile SDKs.
        client: the app; None where it is not said.
    """

    __slots__ = ("client", "custom", "env")

    def __init__(self, text: str) -> None:
        said = json.loads(text)
        said = said if isinstance(said, dict) else {}
        self.custom: Any = said.get("custom")
        self.env: Any = said.get("env")
        client = said.get("client")
        self.client = Client(client) if isinstance(client, dict) else None


class LambdaContext:
    """What a handler is told about its invocation. Libraries may put attributes of their own on it.

    Attributes:
        aws_request_id: UUID of the invocation; another one for each retry.
        function_name: name of the function.
        function_version: `$LATEST`.
        invoked_function_arn: ARN of the function, without a version.
        memory_limit_in_mb: megabytes, as text.
        identity: the Cognito identity; its fields are None.
        client_context: what the caller gave; None for streams.
        tenant_id: None.

    Source: documented: Lambda Developer Guide, python-context; recorded: awslambdaric 4.2.
    """

    def __init__(
        self,
        *,
        aws_request_id: str,
        function_name: str,
        memory_limit_in_mb: str,
        invoked_function_arn: str,
        deadline: float,
        function_version: str = "$LATEST",
        client_context: str = "",
    ) -> None:
        """Build the context of one invocation.

        Args:
            aws_request_id: UUID.
            function_name: name of the function.
            memory_limit_in_mb: megabytes, as text.
            invoked_function_arn: ARN of the function.
            deadline: when the invocation times out, seconds on the monotonic clock: a step of the wall clock must not
                move the time that remains.
            function_version: version of the function.
            client_context: JSON text; empty: none.
        """
        self.aws_request_id = aws_request_id
        self.function_name = function_name
        self.function_version = function_version
        self.invoked_function_arn = invoked_function_arn
        self.memory_limit_in_mb = memory_limit_in_mb
        self.identity = CognitoIdentity()
        self.client_context = ClientContext(client_context) if client_context else None
        self.tenant_id = None
        self._deadline = deadline

    # Read when asked for: one is made for each invocation, and the environment costs as much as all the rest of it.

    @property
    def log_group_name(self) -> str | None:
        """Name of the log group, from the environment as on Lambda."""
        return os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")

    @property
    def log_stream_name(self) -> str | None:
        """Name of the log stream, from the environment as on Lambda."""
        return os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation times out; never below 0."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def log(self, msg: object) -> None:
        """Write to the log, without a newline of its own."""
        sys.stdout.write(str(msg))

    def w3c(self) -> dict[str, str]:
        """The W3C trace context: empty, streams carry none."""
        return {}

    def __repr__(self) -> str:
        return (
            f"LambdaContext([aws_request_id={self.aws_request_id},log_group_name={self.log_group_name},"
            f"log_stream_name={self.log_stream_name},function_name={self.function_name},"
            f"memory_limit_in_mb={self.memory_limit_in_mb},function_version={self.function_version},"
            f"invoked_function_arn={self.invoked_function_arn}])"
        )
