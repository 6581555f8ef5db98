"""Clients of other makers that the tests run; where they are, and what to do where they are not.

`.ci/run` installs them and says so with `CONFORMANCE=required`: then a client that is missing is a failure. On a desk
its tests are skipped, with the command that would install it. The names do not begin with `KFLOW_`, for those would be
settings.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest


class Client(NamedTuple):
    """A client.

    Attributes:
        name: what people call it.
        variable: says where it is.
        path: of what is looked for, below what the variable says.
        install: a command that installs it at `$place`.
        place: where a desk may keep it.
    """

    name: str
    variable: str
    path: str
    install: str
    place: str


JAVASCRIPT = Client(
    "the AWS SDK for JavaScript",
    "CONFORMANCE_NPM",
    "node_modules/@aws-sdk/client-kinesis/package.json",
    "npm install --prefix {place} @aws-sdk/client-kinesis",
    "/tmp/conformance/npm",
)
JAVASCRIPT_SERVICES = JAVASCRIPT._replace(
    path="node_modules/@aws-sdk/client-lambda/package.json",
    install="npm install --prefix {place} "
    + " ".join(f"@aws-sdk/client-{name}" for name in ("lambda", "sqs", "cloudwatch", "cloudwatch-logs")),
)
AWS_CLI = Client(
    "the AWS CLI",
    "CONFORMANCE_AWSCLI",
    "bin/aws",
    "python3 -m venv {place} && {place}/bin/pip install awscli",
    "/tmp/conformance/awscli",
)

MOTO = Client(
    "moto",
    "CONFORMANCE_MOTO",
    "bin/moto_server",
    "python3 -m venv {place} && {place}/bin/pip install 'moto[server]>=5,<6'",
    "/tmp/conformance/moto",
)


def place_of(client: Client) -> Path:
    """The folder that a client is in; the test is skipped, or fails, where there is none."""
    folder = os.environ.get(client.variable)
    if not folder or not (Path(folder) / client.path).exists():
        missing(f"{client.name} is not at ${client.variable}", client)
    return Path(folder)


def node() -> str:
    """The interpreter of JavaScript on the PATH."""
    found = shutil.which("node")
    if found is None:
        missing("there is no Node.js on the PATH", JAVASCRIPT)
    return found


def missing(what: str, client: Client) -> NoReturn:
    """End the test."""
    command = client.install.format(place=client.place)
    reason = f"{what}; to run this: {command} && export {client.variable}={client.place}"
    if os.environ.get("CONFORMANCE") == "required":
        pytest.fail(reason)
    pytest.skip(reason)
