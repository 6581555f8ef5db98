"""The AWS SDK for JavaScript: over HTTP/2 as it comes, with one connection for all, over HTTP/1.1, and over TLS.

What it does is in `javascript/scenarios.mjs`, each scenario over every transport at once; here is what it must see.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import tools
from tests.conformance.sdk import environment, plain
from tests.served import ACCOUNT, Served, served

SCENARIOS = Path(__file__).parent / "javascript" / "scenarios.mjs"
TRANSPORTS = ("http1", "http1-tls", "http2", "http2-shared", "http2-tls")
MIB = 1 << 20


class Script:
    """A scenario that runs in a process of Node.js, with no more setting-up than `kflow env` does."""

    def __init__(self, endpoint: Served, scenario: str) -> None:
        packages, node = tools.place_of(tools.JAVASCRIPT), tools.node()
        self.process = subprocess.Popen(
            [node, str(SCENARIOS), scenario, plain(endpoint), endpoint.url],
            env={**environment(endpoint), tools.JAVASCRIPT.variable: str(packages), "NODE_NO_WARNINGS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Every transport has come to where it waits."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.process.communicate(timeout=60)

    def result(self, said: str = "") -> dict[str, Any]:
        """What it saw, by transport."""
        try:
            output, errors = self.process.communicate(said, timeout=90)
        finally:
            self.process.kill()
            self.process.communicate()
        assert self.process.returncode == 0, errors
        found: dict[str, Any] = json.loads(output)
        return found


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("javascript"), "--tls") as made:
        yield made


@pytest.fixture
def own_endpoint(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, "--tls") as made:
        yield made


def run(endpoint: Served, scenario: str, transports: Sequence[str] = TRANSPORTS) -> dict[str, Any]:
    found = Script(endpoint, scenario).result()
    assert sorted(found) == sorted(transports)
    return found


def test_a_stream_lives_from_its_creation_to_its_end(endpoint: Served) -> None:
    middle = 1 << 127
    for transport, found in run(endpoint, "life").items():
        assert found == {
            "protocol": "http/1.1" if transport.startswith("http1") else "h2",
            "state": "SUCCESS",
            "placed": ["shardId-000000000000", 56, None],
            "everyByte": True,
            "key": "ключ-鍵-🔑",
            "number": True,
            "empty": True,
            "arrival": True,
            "failed": 0,
            "many": 502,
            "right": True,
            "since": True,
            "tags": [{"Key": "équipe", "Value": "π r²"}],
            "created": True,
            "shards": [
                {"StartingHashKey": "0", "EndingHashKey": str(middle - 1)},
                {"StartingHashKey": str(middle), "EndingHashKey": str((1 << 128) - 1)},
            ],
            "status": "ACTIVE",
            "listed": True,
            "deleted": ["$metadata"],
            "gone": "SUCCESS",
        }, transport


ERRORS = {
    "missing": ("ResourceNotFoundException", f"Stream nope under account {ACCOUNT} not found."),
    "put": ("ResourceNotFoundException", f"Stream nope under account {ACCOUNT} not found."),
    "token": ("InvalidArgumentException", "Invalid ShardIterator."),
    "noKey": (
        "ValidationException",
        (
            "1 validation error detected: Value '' at 'partitionKey' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1"
        ),
    ),
    "noName": (
        "ValidationException",
        "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null",
    ),
    "badName": (
        "ValidationException",
        (
            "2 validation errors detected: Value 'bad name' at 'streamName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; "
            "Value '0' at 'shardCount' failed to satisfy constraint: Member must have value greater than or equal to 1"
        ),
    ),
    "noRecords": (
        "ValidationException",
        (
            "1 validation error detected: Value at 'records' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1"
        ),
    ),
    "sideways": (
        "ValidationException",
        (
            "1 validation error detected: Value 'SIDEWAYS' at 'shardIteratorType' failed to satisfy constraint: "
            "Member must satisfy enum value set: "
            "[AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER, TRIM_HORIZON, LATEST, AT_TIMESTAMP]"
        ),
    ),
    "type": ("SerializationException", "class java.lang.String can not be converted to an Integer"),
    "dry": (
        "DryRunOperationException",
        "The request was rejected because the DryRun parameter was specified.",
    ),
    "consumer": (
        "ResourceNotFoundException",
        (
            f"Consumer arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/nope/consumer/fast:1700000000, "
            f"account {ACCOUNT} not found."
        ),
    ),
}


def test_errors_become_the_sdks_own_classes_with_the_text_of_aws(endpoint: Served) -> None:
    unmodelled = {"SerializationException": "KinesisServiceException"}
    for transport, found in run(endpoint, "errors").items():
        assert found.pop("nothingWasPut") == 0
        assert found == {
            name: {
                "name": code,
                "message": text,
                "class": unmodelled.get(code, code),
                "status": 400,
                "fault": "client",
                "told": True,
            }
            for name, (code, text) in ERRORS.items()
        }, transport


def test_every_command_of_the_sdk_is_known(endpoint: Served) -> None:
    for transport, found in run(endpoint, "commands").items():
        assert len(found) >= 45
        answers = {"answered", "400 ValidationException", "400 InvalidArgumentException"}
        assert {name: answer for name, answer in found.items() if answer not in answers} == {}, transport


def test_records_that_are_put_after_subscribing_are_pushed(endpoint: Served) -> None:
    for transport, found in run(endpoint, "subscription").items():
        assert found == {"early": ["one", "two"], "late": ["three"], "again": "shardId-000000000000"}, transport


def test_more_than_any_window_holds_is_pushed_in_order(endpoint: Served) -> None:
    for transport, found in run(endpoint, "backlog").items():
        assert found == {"inOrder": True, "count": 600}, transport


def test_a_subscription_ends_with_the_children_of_a_split_shard(endpoint: Served) -> None:
    parents = ["shardId-000000000000"]
    for transport, found in run(endpoint, "children").items():
        assert found == {
            "records": ["last"],
            "goOn": True,
            "end": None,
            "children": [["shardId-000000000001", parents], ["shardId-000000000002", parents]],
        }, transport


def test_a_subscription_ends_with_an_error_of_its_own_when_the_stream_is_deleted(endpoint: Served) -> None:
    for transport, found in run(endpoint, "deletion").items():
        assert found == {
            "name": "ResourceNotFoundException",
            "message": f"Stream js-deletion-{transport} under account {ACCOUNT} not found.",
            "class": "ResourceNotFoundException",
        }


def test_a_hundred_puts_at_once_and_a_subscription_do_not_hinder_each_other(endpoint: Served) -> None:
    for transport, found in run(endpoint, "together").items():
        assert found == {"numbers": 100, "found": 100}, transport


def test_calls_and_answers_of_ten_mebibytes_go_through_and_no_larger_ones(endpoint: Served) -> None:
    for transport, found in run(endpoint, "size", ["http2", "http2-tls"]).items():
        assert found == {
            "failed": 0,
            "sizes": [*[MIB - 1] * 10, 10 * MIB - 1],
            "same": True,
            "tooLarge": ["InvalidArgumentException", 400],
            "beyond": 413,
        }, transport


def test_a_stopped_endpoint_ends_subscriptions_without_an_error(own_endpoint: Served) -> None:
    script = Script(own_endpoint, "stop")
    script.wait_until_ready()
    own_endpoint.process.send_signal(signal.SIGTERM)
    for transport, found in script.result("go\n").items():
        assert found == ["one", "end"], transport
    own_endpoint.process.wait(60)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_token_from_before_a_restart_is_good_after_it(own_endpoint: Served, end: str) -> None:
    script = Script(own_endpoint, "restart")
    script.wait_until_ready()
    getattr(own_endpoint, end)()
    own_endpoint.start()
    for transport, found in script.result(f"{plain(own_endpoint)} {own_endpoint.url}\n").items():
        assert found == ["one", "two", "three"], transport
