"""The environment a handler runs in: Lambda's variables, and nothing that could reach production by accident.

Source: documented: Lambda Developer Guide, defined runtime environment variables; recorded values in the spec's 9.2.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

REMOVED = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_CA_BUNDLE",
)
"""Variables by which an SDK would find real credentials, or ignore the endpoint it was given."""

FAKE_KEY = "AKIAKFLOWLOCALONLY00"
FAKE_SECRET = "kflow-local-only-not-a-secret"  # noqa: S105 - it opens nothing: that is its purpose


class ClosedPort:
    """A loopback port that is bound and never listens: a connection to it is refused at once.

    Until kflow's own endpoint stands, `AWS_ENDPOINT_URL` names it, so that an SDK call in a handler fails on this
    machine. It stays bound as long as this object lives, so that nobody else can begin to listen there.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def safe_environment(inherited: Mapping[str, str], *, data_dir: Path, region: str, endpoint: str) -> dict[str, str]:
    """The variables of every worker: what was inherited, made unable to reach AWS.

    Args:
        inherited: usually `os.environ`.
        data_dir: the data folder; producing in a handler goes there.
        region: what SDKs take as their region.
        endpoint: URL that SDKs are pointed at.

    Returns:
        A complete environment.
    """
    environment = {
        name: value
        for name, value in inherited.items()
        if name not in REMOVED and not name.startswith("AWS_ENDPOINT_URL")
    }
    nothing = empty_file(data_dir)
    environment.update(
        AWS_ENDPOINT_URL=endpoint,
        AWS_REGION=region,
        AWS_DEFAULT_REGION=region,
        AWS_ACCESS_KEY_ID=FAKE_KEY,
        AWS_SECRET_ACCESS_KEY=FAKE_SECRET,
        AWS_CONFIG_FILE=nothing,
        AWS_SHARED_CREDENTIALS_FILE=nothing,
        AWS_EC2_METADATA_DISABLED="true",
        KFLOW_DATA_DIR=str(data_dir),
        KFLOW_TARGET="local",
    )
    return environment


def function_environment(
    *, name: str, memory_mb: int, root: str, entry: str, user: Mapping[str, str]
) -> dict[str, str]:
    """The variables that differ from function to function; the user's own are last."""
    log_stream = f"$LATEST/{os.getpid()}"
    return {
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "LAMBDA_TASK_ROOT": root,
        "_HANDLER": entry,
        "TZ": ":UTC",
        **user,
    }


def empty_file(data_dir: Path) -> str:
    """A file with nothing in it, for SDKs to read their configuration from."""
    path = data_dir / "run" / "empty"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(exist_ok=True)
    return str(path)
