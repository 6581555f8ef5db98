"""The AWS SDK for JavaScript and functions, queues, logs and metrics; CloudWatch it calls in three protocols.

What it does is in `javascript/services.mjs`; here is what it must see.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import tools
from tests.conformance.sdk import environment
from tests.lambdaing import ARN, ROLE, zipped
from tests.served import served

SCRIPT = Path(__file__).parent / "javascript" / "services.mjs"
CODE = """\
export const handler = async (event) => {
  console.log("héllo");
  if (event.fail) throw new Error(event.fail);
  return { got: event, greeting: process.env.GREETING };
};
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the script saw."""
    packages, node = tools.place_of(tools.JAVASCRIPT_SERVICES), tools.node()
    with served(tmp_path_factory.mktemp("javascript-services")) as endpoint:
        code = endpoint.folder / "code.zip"
        code.write_bytes(zipped({"index.mjs": CODE}))
        done = subprocess.run(
            [node, str(SCRIPT), str(code), ROLE],
            env={**environment(endpoint), tools.JAVASCRIPT.variable: str(packages), "NODE_NO_WARNINGS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)


def test_a_function_of_node_lives_and_fails_as_the_sdk_expects(found: dict[str, Any]) -> None:
    got = {"got": {"ключ": "☃"}, "greeting": "grüß"}
    assert found["functions"] == {
        "made": ["js", "Pending", "grüß"],
        "active": "SUCCESS",
        "one": [200, "$LATEST", got, True],
        "failed": ["Unhandled", "nö"],
        "event": 202,
        "streamed": ['{"got":{"stream":1},"greeting":"grüß"}', ["PayloadChunk", "InvokeComplete"]],
        "names": ["js"],
        "missing": [
            "ResourceNotFoundException",
            f"Function not found: {ARN}:nobody:$LATEST",
            "ResourceNotFoundException",
            404,
            "client",
        ],
        "wrong": [
            "InvalidRequestContentException",
            "Could not parse request body into json: Could not parse payload into json: Input data was truncated",
            "InvalidRequestContentException",
            400,
            "client",
        ],
    }


def test_messages_of_a_queue_pass_the_sdks_own_checks(found: dict[str, Any]) -> None:
    assert found["queues"] == {
        "batch": [["a"], [["b", "MissingParameter"]]],
        "first": ["ключ ☃", [0, 255]],
        "missing": ["QueueDoesNotExist"],
    }


def test_what_the_function_printed_is_found(found: dict[str, Any]) -> None:
    assert found["events"] == {
        "message": "héllo",
        "named": True,
        "missing": [
            "ResourceNotFoundException",
            "The specified log group does not exist.",
            "ResourceNotFoundException",
            400,
            "client",
        ],
    }


@pytest.mark.parametrize("protocol", ["json", "cbor", "query"])
def test_metrics_go_and_come_in_each_protocol(found: dict[str, Any], protocol: str) -> None:
    assert found[protocol] == {
        "data": ["b", [3], True],
        "listed": [{"Namespace": protocol, "MetricName": "orders", "Dimensions": [{"Name": "où", "Value": "là"}]}],
        "wrong": ["ValidationException"],
    }
