"""What the node says of its leases: every state and every reason has words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import kflow
from kflow.runtime.node.node import Node
from kflow.runtime.plan.lease import Lease, LeaseState
from kflow.runtime.plan.leases import LeaseTable
from kflow.runtime.status.report import WAITS, node_report, waits_for

SOURCES = Path(kflow.__file__).parent


def calls(folder: str) -> Iterator[ast.Call]:
    for path in (SOURCES / folder).rglob("*.py"):
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def texts(call: ast.Call) -> set[str]:
    return {each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def says_wait(call: ast.Call) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr == "WAIT" for each in call.args for node in ast.walk(each))


def name_of(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def reasons() -> set[str]:
    """Every reason that an engine waits for, or that a worker returns a lease with."""
    waits = [texts(call) for call in calls("lambda_") if says_wait(call)]
    returns = [texts(call) for call in calls("runtime") if name_of(call) in ("_give_back", "Returned")]
    return set().union(*waits, *returns) - {""}


def test_the_reasons_are_found() -> None:
    assert reasons() >= {"backoff", "window", "tumbling", "suspect", "alone", "storage", "look-ahead", "damage"}
    assert reasons() >= {"idle", "lane", "retired", "unread"}


def test_every_reason_of_a_return_and_every_state_has_words() -> None:
    states = {state.value for state in LeaseState} - {LeaseState.GRANTED.value}

    assert set(WAITS) >= reasons() | states


def test_what_waits_for_news_is_left_out_unless_it_is_in_trouble() -> None:
    table = LeaseTable(2)
    for number, state in enumerate(LeaseState, 1):
        table.leases[number] = Lease(number, "bill", 1, number, 0, settled_at=0.0, state=state)
    table.leases[9] = Lease(9, "bill", 1, 9, 0, settled_at=0.0, state=LeaseState.NEWS, trouble="the disk is full")
    trigger = SimpleNamespace(enabled=True)
    plan = SimpleNamespace(
        maps=[SimpleNamespace(name="orders")],
        handler=SimpleNamespace(triggers=[trigger]),
        sources={"orders": "arn:x"},
        exists=True,
    )
    node = SimpleNamespace(
        table=table,
        options=SimpleNamespace(epoch=1),
        endpoint="http://127.0.0.1:4566",
        is_draining=False,
        folder=SimpleNamespace(path="data", fsync="none"),
        feed=SimpleNamespace(dropped=0),
        beside=None,
        functions={"bill": plan},
        supervisor=SimpleNamespace(handles={}),
    )

    found = node_report(cast(Node, node), 1.0, 1.0)

    assert [each["state"] for each in found["leases"]] == ["parents", "due", "ready", "running", "news"]
    assert found["leases"][-1]["detail"] == "the disk is full"
    assert found["consumers"] == [["bill", "orders", "arn:x"]]
    assert found["endpoint"] == "http://127.0.0.1:4566"
    assert found["reads"] == [["bill", "orders"]]

    plan.exists = False
    missing = node_report(cast(Node, node), 1.0, 1.0)["leases"][0]
    assert (missing["state"], missing["waits_for"]) == ("functionless", "there is no function of that name")


@pytest.mark.parametrize("state", LeaseState)
def test_a_lease_says_its_reason_while_that_holds_else_its_state(state: LeaseState) -> None:
    lease = Lease(1, "bill", 1, 0, 0, settled_at=0.0, state=state, reason="backoff")
    running = state is LeaseState.GRANTED
    held_up = state is LeaseState.DUE

    assert waits_for(lease) == ("running" if running else "backoff" if held_up else state.value)
