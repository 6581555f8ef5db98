"""Which version an invocation runs, and what holds for a function's asynchronous invocations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kflow.aws.calls import Place
from kflow.lambda_.asyncconfig import Chosen, Configured, choose
from kflow.lambda_.asynchronous import Policy
from kflow.lambda_.control.facts import InvokeConfig

ARN = "arn:aws:lambda:eu-west-1:210987654321:function:bill"
QUEUE = "arn:aws:sqs:eu-west-1:210987654321:q"


def target(qualifier: str = "", version: str = "$LATEST", **weights: float) -> Any:
    key = "bill@210987654321.eu-west-1"
    facts = SimpleNamespace(
        invoke_configs={
            "$LATEST": InvokeConfig(modified_ms=0, retries=1, on_failure=QUEUE),
            "live": InvokeConfig(modified_ms=0, age_s=60, on_success=QUEUE),
        },
    )
    return SimpleNamespace(
        function=SimpleNamespace(key=key, facts=facts),
        qualifier=qualifier,
        version=version,
        key=f"{key}:{qualifier}" if qualifier else key,
        arn=f"{ARN}:{qualifier}" if qualifier else ARN,
        configuration=SimpleNamespace(dead_letter=f"{QUEUE}-dead"),
        weights={name.removeprefix("v"): part for name, part in weights.items()},
    )


@pytest.mark.parametrize(
    ("dice", "version"), [(0.0, "2"), (0.24, "2"), (0.26, "3"), (0.29, "3"), (0.31, "1"), (0.99, "1")]
)
def test_weights_send_their_part_to_other_versions(dice: float, version: str) -> None:
    found = choose(target("live", "1", v2=0.25, v3=0.05), lambda: dice)

    key = "bill@210987654321.eu-west-1"
    assert found == (Chosen(f"{key}:live", "1") if version == "1" else Chosen(f"{key}:{version}", version))


def test_without_weights_there_is_no_choice() -> None:
    assert choose(target("3", "3")) == Chosen("bill@210987654321.eu-west-1:3", "3")


class Functions:
    """A registry of one function."""

    def __init__(self) -> None:
        self.asked: list[tuple[Place, str, str | None]] = []

    def target(self, place: Place, text: str, qualifier: str | None = None) -> Any:
        self.asked.append((place, text, qualifier))
        return target(qualifier or "", "1" if qualifier else "$LATEST")


def test_a_policy_is_that_of_the_qualifier_and_of_the_version() -> None:
    functions = Functions()
    key = "bill@210987654321.eu-west-1"
    configured = Configured(functions, {key: 3}.get)  # type: ignore[arg-type]  # what is needed of one

    assert configured.policy(ARN, "") == Policy(
        key=key, arn=ARN, version="$LATEST", retries=1, on_failure=QUEUE, dead_letter=f"{QUEUE}-dead", most=3
    )
    assert configured.policy(ARN, "live") == Policy(
        key=f"{key}:live",
        arn=f"{ARN}:live",
        version="1",
        retries=2,
        age_s=60,
        on_success=QUEUE,
        dead_letter=f"{QUEUE}-dead",
        most=3,
    )
    assert configured.policy(ARN, "7") == Policy(
        key=f"{key}:7", arn=f"{ARN}:7", version="1", dead_letter=f"{QUEUE}-dead", most=3
    )
    assert functions.asked[0] == (Place("210987654321", "eu-west-1"), ARN, "")
