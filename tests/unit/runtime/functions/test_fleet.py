"""The node as services see it: which functions there are, and how many of one run at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kflow.declarations import Handler, HandlerForm, Package, StreamTrigger
from kflow.declarations import MappingOptions as Options
from kflow.errors import KflowError
from kflow.lambda_.errors import ResourceNotFound, TooManyRequests
from kflow.lambda_.fleet import Interrupted, Published, Replied, Reply, Request
from kflow.limits import CONCURRENT_EXECUTIONS
from kflow.runtime.functions.fleet import Fleet
from kflow.runtime.plan.functions import FunctionPlan, absent

REQUEST = Request(request_id=bytes(16), payload=b"{}", arn="arn:aws:lambda:us-east-1:123456789012:function:bill")
PACKAGE = Package(function="bill", version="$LATEST", runtime="python3.12", entry="app.handler", code="/code")


def handler(name: str, package: Package | None = None, **options: Any) -> Handler:
    given = {"file": "", "line": 0, "root": "", "module": "app", "qualname": name, "form": HandlerForm.EVENT, **options}
    return Handler(name=name, package=package, **given)


def plan(made: Handler) -> FunctionPlan:
    return FunctionPlan(handler=made, maps=(), timeout_s=3, memory_mb=128, environment={})


class Node:
    """A node whose invocations end when told to."""

    def __init__(self, *functions: FunctionPlan) -> None:
        self.options = SimpleNamespace(retry_backoff_scale=0.5)
        self.functions = {each.handler.name: each for each in functions}
        self.table = SimpleNamespace(busy=lambda function: self.leases.get(function, 0))
        self.leases: dict[str, int] = {}
        self.limits: dict[str, int | None] = {}
        self.running: list[tuple[str, Replied]] = []
        self.function_measures = SimpleNamespace(throttled=lambda _: None, invoked=lambda *_: None)
        self.fleet = Fleet(self)  # type: ignore[arg-type]  # what is needed of one
        self.told: list[Reply | KflowError] = []

    def knows(self, key: str) -> bool:
        return key in self.functions and self.functions[key].exists

    def publish(self, made: FunctionPlan) -> None:
        self.functions[made.handler.name] = made

    def invoke(self, key: str, request: Request, replied: Replied) -> None:
        self.running.append((key, replied))

    def limit(self, function: str, most: int | None) -> None:
        self.limits[function] = most

    def ask(self, key: str, times: int = 1) -> str:
        """How the last of them was answered at once; empty: it runs."""
        return self._ask(key, REQUEST, times)

    def _ask(self, key: str, request: Request, times: int) -> str:
        self.told.clear()
        for _ in range(times):
            self.fleet.invoke(key, request, self.told.append)
        return type(self.told[-1]).__name__ if self.told else ""

    def end(self, reply: Reply | KflowError) -> None:
        self.running.pop(0)[1](reply)


def test_decorated_handlers_are_declared_and_no_others() -> None:
    node = Node(plan(handler("bill", PACKAGE)), plan(handler("ship")), absent("gone"))

    assert list(node.fleet.declared()) == ["ship"]
    assert node.fleet.declared()["ship"].timeout_s == 3


def test_what_is_not_there_is_not_found() -> None:
    node = Node(plan(handler("bill")), absent("gone"))

    assert [node.ask(key) for key in ("bill", "bill:3", "gone", "ship")] == [
        "",
        "ResourceNotFound",
        "ResourceNotFound",
        "ResourceNotFound",
    ]
    assert str(node.told[0]) == f"Function not found: {REQUEST.arn}"
    assert isinstance(node.told[0], ResourceNotFound)


def test_a_function_runs_no_more_often_than_it_may_over_all_its_keys() -> None:
    node = Node(*(plan(handler(name, PACKAGE)) for name in ("bill", "bill:3", "ship")))
    node.fleet.limit("bill", 2)
    assert node.limits == {"bill": 2}

    assert [node.ask(key) for key in ("bill", "bill:3", "bill", "ship")] == ["", "", "TooManyRequests", ""]
    node.end(Interrupted("ended"))
    assert node.fleet.running("bill") == 1
    assert node.ask("bill") == ""
    assert node.fleet.most("bill") == 2
    node.fleet.limit("bill", None)
    assert node.fleet.most("bill") is None
    assert node.ask("bill") == ""


def test_batches_of_its_mappings_count_too_and_none_may_be_none() -> None:
    node = Node(plan(handler("bill")))
    node.leases["bill"] = 1
    node.fleet.limit("bill", 1)
    assert node.fleet.running("bill") == 1
    assert node.ask("bill") == "TooManyRequests"

    node.leases.clear()
    node.fleet.limit("bill", 0)
    assert node.ask("bill") == "TooManyRequests"
    (error,) = node.told
    assert isinstance(error, TooManyRequests)
    assert error.members == {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"}


def test_an_account_has_a_limit_of_its_own() -> None:
    node = Node(plan(handler("bill")))

    assert node.ask("bill", CONCURRENT_EXECUTIONS) == ""
    assert node.ask("bill") == "TooManyRequests"
    (error,) = node.told
    assert isinstance(error, TooManyRequests)
    assert error.members == {"Reason": "ConcurrentInvocationLimitExceeded"}


def test_payloads_in_memory_are_bounded_and_one_always_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kflow.runtime.functions.fleet.HELD_BYTES", 100)
    node = Node(plan(handler("bill")))
    small = msgspec.structs.replace(REQUEST, payload=bytes(60))

    assert node._ask("bill", msgspec.structs.replace(REQUEST, payload=bytes(200)), 1) == ""
    assert node._ask("bill", small, 1) == "TooManyRequests"
    node.end(Interrupted("ended"))
    assert node._ask("bill", small, 1) == ""
    assert node._ask("bill", small, 1) == "TooManyRequests"


def test_a_function_that_is_published_again_keeps_its_mappings() -> None:
    trigger = StreamTrigger(stream="orders", options=Options())
    node = Node(plan(handler("bill", PACKAGE, triggers=(trigger,))))
    node.fleet.publish(
        Published(handler=handler("bill", PACKAGE, line=7), timeout_s=30, memory_mb=512, environment={"A": "1"})
    )

    made = node.functions["bill"]
    assert (made.handler.line, made.timeout_s, made.memory_mb, made.environment) == (7, 30, 512, {"A": "1"})
    assert made.handler.triggers == (trigger,)
