"""What the node tells people: its parts are real, no process is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.writing import writing
from kflow.declarations import Handler, HandlerForm, MappingOptions, StreamTrigger
from kflow.runtime.loop import Loop
from kflow.runtime.messages import Alive
from kflow.runtime.node.node import FunctionPlan, Node
from kflow.runtime.plan.leases import Lease
from tests.nodes import Heard, node_of


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Node, Heard]]:
    folder = DataFolder.open(tmp_path / "data", create=True)
    with writing(folder) as log:
        stream = log.create_stream("orders", 1)
    heard = Heard()
    loop = Loop()
    node = node_of(Log(folder), loop, heard, max_workers=1)
    handler = Handler(
        name="bill",
        file="app.py",
        line=1,
        root=".",
        module="app",
        qualname="bill",
        form=HandlerForm.EVENT,
        triggers=(StreamTrigger(stream="orders", options=MappingOptions()),),
    )
    node.functions["bill"] = FunctionPlan(handler=handler, maps=(stream,), timeout_s=3, memory_mb=128, environment={})
    node.table.add(Lease(1, "bill", stream.id, 0, 0, settled_at=0.0))
    yield node, heard
    node.close()
    loop.close()


def test_what_the_storage_refuses_is_told_once_and_so_is_its_end(made: tuple[Node, Heard]) -> None:
    node, heard = made
    node.table.plan(0.0)
    worker = SimpleNamespace(id=1)

    node.held(worker, Alive(1, "no space left", 1))  # type: ignore[arg-type]  # only its number is looked at
    node.held(worker, Alive(1, "no space left", 1))  # type: ignore[arg-type]
    node.held(worker, Alive(1, "", 1))  # type: ignore[arg-type]
    node.feed.start()
    node.feed.close()

    assert heard.notices == [
        ("error", "bill orders/0 waits for the storage: no space left"),
        ("info", "bill orders/0 goes on, the storage works again"),
    ]


def test_a_drain_of_nothing_stops_at_once(made: tuple[Node, Heard]) -> None:
    node, _ = made
    node.table.leases.clear()

    node.start_drain({})
    node.loop.run()  # would never return

    assert node.reason == "drained"


def test_the_end_waits_for_what_must_end_first_and_a_second_request_does_not(made: tuple[Node, Heard]) -> None:
    node, _ = made
    node.table.leases.clear()
    ends: list[object] = []
    node.before_end = ends.append

    node.request_stop("Ctrl-C")
    node.dispatch()
    assert len(ends) == 1

    node.request_stop("Ctrl-C again")
    assert len(ends) == 1
    node.loop.run()  # would never return
