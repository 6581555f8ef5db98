"""What the settings ask for, what people are told of it, and what is not passed on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kflow.aws.calls import Place
from kflow.aws.identity import Caller
from kflow.runtime.forwarding import forwarder
from kflow.runtime.forwarding.forwarder import Forwarder
from kflow.runtime.forwarding.routes import Way
from kflow.settings import load
from kflow.settings.services import Route
from tests.unit.aws.fakes import Exchange

SPOKEN = ("kinesis", "sqs")


class Desk:
    def __init__(self, folder: Path, **services: str) -> None:
        self.told: list[tuple[str, str]] = []
        self.posted: list[Callable[[], object]] = []
        settings = load(folder, environ={f"KFLOW_SERVICES__{name.upper()}": text for name, text in services.items()})
        self.made = forwarder.make(
            settings,
            SPOKEN,
            run_dir=folder,
            post=self.posted.append,
            notice=lambda level, text: self.told.append((level, text)),
        )

    def forward(self, exchange: Any, signing_name: str = "dynamodb") -> bool:
        assert self.made is not None
        caller = Caller(Place("123456789012", "us-east-1"), "AKID", signing_name)
        is_taken = self.made.forward(exchange, caller, [], "id")
        while self.posted:
            self.posted.pop(0)()
        return is_taken


def test_nothing_is_made_where_nothing_goes_anywhere(tmp_path: Path) -> None:
    assert Desk(tmp_path).made is None
    assert Desk(tmp_path, default="off", s3="off").made is None


def test_people_are_told_what_goes_to_aws_and_what_does_not_come_to_kflow(tmp_path: Path) -> None:
    assert Desk(tmp_path, s3="moto", default="aws:dev", sqs="http://h").told == [
        (
            "warning",
            (
                "calls of all other services go to AWS itself, signed with profile 'dev': what handlers change there "
                "is changed for real (services, in the settings)"
            ),
        ),
        (
            "warning",
            (
                "calls of sqs that come to the endpoint are not answered by kflow's own sqs, but passed on, for "
                "services.sqs says so; triggers and `kflow` itself see kflow's own all the same"
            ),
        ),
    ]


def test_a_service_that_goes_nowhere_is_not_taken(tmp_path: Path) -> None:
    desk = Desk(tmp_path, s3="moto")
    assert not desk.forward(Exchange())


@pytest.mark.parametrize(
    ("exchange", "signing_name", "status", "code"),
    [
        (Exchange(headers={"x-kflow-forwarded": "1", "authorization": "x"}), "dynamodb", 508, b"UpstreamLoop"),
        (Exchange("GET", "/?Action=DeleteUser"), "iam", 403, b"NotForwarded"),
        (Exchange("DELETE", "/b/k"), "s3", 403, b"NotForwarded"),
    ],
)
def test_what_nobody_meant_is_not_passed_on(
    tmp_path: Path, exchange: Any, signing_name: str, status: int, code: bytes
) -> None:
    exchange.answers.clear()
    desk = Desk(tmp_path, default="aws:dev")
    assert desk.forward(exchange, signing_name)
    assert exchange.answer.status == status
    assert code in exchange.answer.body + exchange.answer.headers.get(b"x-amzn-ErrorType", b"")


def test_who_invents_services_gets_no_threads_for_them(tmp_path: Path) -> None:
    desk = Desk(tmp_path, default="moto")
    assert isinstance(desk.made, Forwarder)
    crews = {id(desk.made._crew(Way(Route("moto"), f"service{number}"))) for number in range(1000)}
    assert len(crews) == forwarder.CREWS + 1


def test_too_much_that_waits_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path, dynamodb="moto")
    assert desk.made is not None
    desk.made._held = forwarder.HELD_BYTES + 1
    exchange = Exchange(body=b"x", headers={"x-amz-target": "DynamoDB_20120810.PutItem"})
    assert desk.forward(exchange)
    assert (exchange.answer.status, exchange.json["__type"]) == (503, "ServiceUnavailableException")
    assert desk.made._held == forwarder.HELD_BYTES + 1


def test_nothing_is_begun_once_the_runtime_ends(tmp_path: Path) -> None:
    desk = Desk(tmp_path, dynamodb="moto")
    assert desk.made is not None
    stopped: list[str] = []
    desk.made.stop(lambda: stopped.append("stopped"))
    assert stopped == ["stopped"]
    assert desk.forward(Exchange())
    assert stopped == ["stopped"]
