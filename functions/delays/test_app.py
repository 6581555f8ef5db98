"""`delays` on real flights, called as Lambda calls it: `event.json` holds five departures of one shard."""

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from functions.delays.app import Flight, delays, suspicion
from kflow import lambda_handler
from kflow.errors import DecodeFailed

EVENT: dict[str, Any] = json.loads(Path(__file__).with_name("event.json").read_text())
handler = lambda_handler(delays)


def broken_at(index: int) -> dict[str, Any]:
    """The event with a delay that is text, not a number of minutes, in one of its records."""
    event = copy.deepcopy(EVENT)
    record = event["Records"][index]["kinesis"]
    flight = json.loads(base64.b64decode(record["data"])) | {"dep_delay": "two minutes"}
    record["data"] = base64.b64encode(json.dumps(flight).encode()).decode()
    return event


def test_two_of_five_departures_are_suspicious(capsys: pytest.CaptureFixture[str]) -> None:
    assert not (handler(EVENT, None) or {}).get("batchItemFailures")
    assert capsys.readouterr().out == (
        "2013-01-02T13:00:00Z 9E3754 JFK-BUF N829AY: lost 74 minutes after leaving the gate\n"
        "2013-01-10T14:00:00Z UA544 LGA-ORD N419UA: left 385 minutes late\n"
    )


def test_a_broken_record_is_named_and_those_before_it_are_done() -> None:
    assert handler(broken_at(3), None) == {
        "batchItemFailures": [{"itemIdentifier": EVENT["Records"][3]["kinesis"]["sequenceNumber"]}]
    }


def test_a_broken_record_at_the_front_fails_the_batch_so_that_it_is_halved() -> None:
    with pytest.raises(DecodeFailed, match="dep_delay"):
        handler(broken_at(0), None)


@pytest.mark.parametrize(
    ("dep_delay", "arr_delay", "why"),
    [
        (40, 35, None),
        (-4, 70, "lost 74 minutes after leaving the gate"),
        (5, 65, None),
        (361, 300, "left 361 minutes late"),
        (360, 300, None),
        (None, None, None),  # cancelled
        (29, None, None),  # diverted
    ],
)
def test_the_rule(dep_delay: int | None, arr_delay: int | None, why: str | None) -> None:
    flight = Flight("2013-01-02T13:00:00Z", "9E", 3754, "JFK", "BUF", dep_delay, arr_delay)
    assert suspicion(flight) == why
