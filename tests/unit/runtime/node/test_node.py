"""What the node tells people: its parts are real, no process is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.writing import writing
from kflow.declarations import Handler, HandlerForm, MappingOptions, StreamTrigger
from kflow.runtime.loop import Loop
from kflow.runtime.messages import Alive, Returned
from kflow.runtime.node.node import FunctionPlan, Node
from kflow.runtime.plan.leases import GrantLease, Lease
from tests.nodes import Heard, node_of


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Node, Heard]]:
    folder = DataFolder.open(tmp_path / "data", create=True)
    with writing(folder) as log:
        stream = log.create_stream("orders", 1)
    heard = Heard()
    loop = Loop()
    node = node_of(Log(folder), loop, heard, max_workers=2)
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


def test_of_workers_that_end_together_none_is_given_what_another_held(
    made: tuple[Node, Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = made
    first = node.table.leases[1]
    node.table.add(Lease(2, "bill", first.stream_id, 1, 0, settled_at=0.0))
    handles: dict[int, Any] = node.supervisor.handles  # type: ignore[assignment]
    monkeypatch.setattr(
        node.supervisor, "start_worker", lambda spec, _: handles.update({spec.worker: SimpleNamespace(deadline=None)})
    )
    monkeypatch.setattr(node.supervisor, "send", lambda handle, message: None)
    node.table.ends[first.place_in_log] = (10, 1)
    granted = {each.leases[0].id: each.worker for each in node.table.plan(0.0) if isinstance(each, GrantLease)}
    busy, idle = granted[1], granted[2]
    node.table.returned(idle, Returned(2, node.table.leases[2].generation, "idle", None, 0), 0, 1, 0.0)
    spec: Any = SimpleNamespace(handler=SimpleNamespace(triggers=()))
    gone: list[Any] = [SimpleNamespace(id=each, spec=spec) for each in (busy, idle)]

    node.ended(gone, None, 0.0, died=False)

    assert list(handles) == [3]


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


def test_what_starts_workers_is_started_once_where_a_function_was_asked_for_before_the_node_begins(
    made: tuple[Node, Heard],
) -> None:
    node, _ = made
    node.supervisor.start(wait=False)
    first = node.supervisor._spawner

    node.start()

    assert first is not None
    assert node.supervisor._spawner is first
