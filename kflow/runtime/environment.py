"""The environment a handler runs in: Lambda's variables, and nothing that could reach production by accident.

Source: documented: Lambda Developer Guide, defined runtime environment variables; recorded values in the spec's 9.2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kflow.broker.functionlogs import stream_name

if TYPE_CHECKING:
    from kflow.settings import Settings

_IGNORE = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"
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
    _IGNORE,
    "AWS_CA_BUNDLE",
)
"""Variables by which an SDK would find real credentials, or ignore the endpoint it was given."""

SPOKEN = ("KINESIS", "SQS", "SNS", "LAMBDA", "CLOUDWATCH", "CLOUDWATCH_LOGS")
"""Services whose state is here, as SDKs name them in variables: handlers find them here even with real credentials.

Not STS: an SDK gets the real credentials of a role from there, and those of kflow's own STS open nothing. chosen.
"""

FAKE_KEY = "AKIAKFLOWLOCALONLY00"
FAKE_SECRET = "kflow-local-only-not-a-secret"  # noqa: S105 - it opens nothing: that is its purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How programs on this machine reach the endpoint.

    Attributes:
        url: of the endpoint.
        access_key: with strict authentication one that it knows, else any.
        secret: of the access key.
        ca_bundle: file with the endpoint's certificate, where that is of our own making and `url` is https.
    """

    url: str
    access_key: str = FAKE_KEY
    secret: str = FAKE_SECRET
    ca_bundle: str = ""


def reach(settings: Settings, url: str) -> Reach:
    """How to reach the endpoint that has these settings, at this URL."""
    bundle = ""
    if url.startswith("https:") and settings.tls_cert is None:
        bundle = str(settings.data_dir / "tls" / "localhost.pem")
    if settings.auth == "strict":
        access_key, secret = next(iter(settings.access_keys.items()))
        return Reach(url=url, access_key=access_key, secret=secret, ca_bundle=bundle)
    return Reach(url=url, ca_bundle=bundle)


def aws_variables(reach: Reach, *, data_dir: Path, region: str) -> dict[str, str]:
    """What an SDK must see to reach the endpoint, and nothing else.

    Args:
        reach: the endpoint.
        data_dir: the data folder; where it is not there yet, it is not made either.
        region: what SDKs take as their region.
    """
    nothing = empty_file(data_dir) if data_dir.is_dir() else os.devnull
    variables = {
        "AWS_ENDPOINT_URL": reach.url,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": reach.access_key,
        "AWS_SECRET_ACCESS_KEY": reach.secret,
        "AWS_CONFIG_FILE": nothing,
        "AWS_SHARED_CREDENTIALS_FILE": nothing,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if reach.ca_bundle:
        variables["AWS_CA_BUNDLE"] = reach.ca_bundle
        variables["NODE_EXTRA_CA_CERTS"] = reach.ca_bundle  # Node.js, and so the SDK for JavaScript, reads no other
    return variables


def past_proxies(inherited: Mapping[str, str], url: str) -> dict[str, str]:
    """What keeps a proxy of this machine out of the way to the endpoint; nothing where there is no proxy."""
    if not any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in inherited):
        return {}
    host = urlsplit(url).hostname or ""
    others = inherited.get("no_proxy") or inherited.get("NO_PROXY") or ""
    text = others if host in others.split(",") else ",".join(filter(None, (others, host)))
    return {"no_proxy": text, "NO_PROXY": text}


def removed(inherited: Iterable[str]) -> list[str]:
    """Which of these variables would lead an SDK past the endpoint, or to real credentials."""
    return [name for name in inherited if name in REMOVED or name.startswith("AWS_ENDPOINT_URL_")]


def worker_environment(
    inherited: Mapping[str, str], *, data_dir: Path, region: str, reach: Reach, credentials: str = "local"
) -> dict[str, str]:
    """The variables of every worker: what was inherited, made unable to reach AWS.

    Args:
        inherited: usually `os.environ`.
        data_dir: the data folder; producing in a handler goes there.
        region: what SDKs take as their region.
        reach: the endpoint that SDKs are pointed at.
        credentials: `local`; or `inherit`: only `SPOKEN` are pointed there, and all else reaches what the shell
            reaches.

    Returns:
        A complete environment.
    """
    if credentials == "inherit":
        # Streams, queues, topics, functions and logs are here all the same, and so is the region that they are in.
        return {
            **{name: value for name, value in inherited.items() if name != _IGNORE},
            **past_proxies(inherited, reach.url),
            **{f"AWS_ENDPOINT_URL_{name}": reach.url for name in SPOKEN},
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "KFLOW_DATA_DIR": str(data_dir),
            "KFLOW_TARGET": "local",
        }
    gone = set(removed(inherited))
    environment = {name: value for name, value in inherited.items() if name not in gone}
    environment.update(aws_variables(reach, data_dir=data_dir, region=region))
    environment.update(past_proxies(inherited, reach.url))
    environment.update(KFLOW_DATA_DIR=str(data_dir), KFLOW_TARGET="local")
    return environment


def function_environment(
    *, name: str, memory_mb: int, root: str, entry: str, user: Mapping[str, str]
) -> dict[str, str]:
    """The variables that differ from function to function; the user's own are last. The log stream is a new one."""
    log_stream = stream_name("$LATEST")
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
