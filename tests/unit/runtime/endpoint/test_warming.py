"""Services that nobody has called yet: who calls first waits for their code, and nobody else does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kflow.clock import ManualClock
from kflow.runtime.endpoint.warming import MODULES, Warming
from tests.looping import SteppedLoop

SIGNED = "AWS4-HMAC-SHA256 Credential=AKID/20261126/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"


def request(**headers: str) -> Any:
    return SimpleNamespace(headers={name.replace("_", "-"): text for name, text in headers.items()}, is_closed=False)


class Gate:
    def __init__(self, cache: Path) -> None:
        self.loop = SteppedLoop(ManualClock())
        self.passed: list[Any] = []
        self.warming = Warming(self.passed.append, self.loop.submit, cache)

    def send(self, *requests: Any) -> None:
        for each in requests:
            self.warming(each)


def test_requests_of_a_service_wait_for_its_code_and_come_in_their_order(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    one, two = request(x_amz_target="AmazonSQS.SendMessage"), request(authorization=SIGNED.format("sqs"))
    gate.send(one, two)
    assert gate.passed == []
    gate.loop.run()
    assert gate.passed == [one, two]
    assert gate.loop.submitted == 1
    assert list(tmp_path.iterdir())  # the model, as it is read from now on
    gate.send(one)
    assert (gate.passed, gate.loop.submitted) == ([one, two, one], 1)


@pytest.mark.parametrize(
    "headers",
    [
        {"x_amz_target": "Kinesis_20131202.PutRecord", "authorization": SIGNED.format("kinesis")},
        {"authorization": SIGNED.format("s3")},
        {"authorization": "Bearer x"},
        {},
    ],
)
def test_others_do_not_wait(tmp_path: Path, headers: dict[str, str]) -> None:
    gate = Gate(tmp_path)
    gate.send(request(authorization=SIGNED.format("lambda")))
    other = request(**headers)
    gate.send(other)
    assert gate.passed == [other]
    gate.loop.run()
    assert len(gate.passed) == 2


def test_who_hung_up_is_not_answered(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    gone = request(authorization=SIGNED.format("sts"))
    gate.send(gone)
    gone.is_closed = True
    gate.loop.run()
    assert gate.passed == []


def test_code_that_cannot_be_read_is_the_calls_own_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(tmp_path)
    monkeypatch.setattr("kflow.runtime.endpoint.warming.MODULES", {"sts": ("kflow.no_such",)})
    one = request(authorization=SIGNED.format("sts"))
    gate.send(one)
    gate.loop.run()
    assert gate.passed == [one]


@pytest.mark.parametrize("name", sorted({each for modules in MODULES.values() for each in modules}))
def test_what_is_read_is_there(name: str) -> None:
    assert importlib.util.find_spec(name) is not None
