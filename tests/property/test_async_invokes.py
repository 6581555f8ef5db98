"""Asynchronous invocations under any order of events: failures, throttles, kills and time.

Nothing that was acknowledged is lost, nothing is run more often than it may be, and all who are to be told are told.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.lambda_.errors import TooManyRequests
from kflow.lambda_.fleet import Interrupted
from tests.unit.runtime.functions.test_asyncinvokes import FAILED, OK, QUEUE, Node

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["ok", "fail", "throttle", "interrupt"]), st.integers(0, 7)),
        st.tuples(st.just("advance"), st.sampled_from([1, 1_000, 60_000, 150_000])),
        st.tuples(st.just("step"), st.integers(1, 3)),
        st.tuples(st.just("kill"), st.integers(0, 1)),
    ),
    max_size=40,
)
REPLIES = {"ok": OK, "fail": FAILED, "throttle": TooManyRequests(), "interrupt": Interrupted("ended")}
RETRIES = 2


@given(STEPS, st.sampled_from([None, 1, 3]))
@settings(max_examples=60, deadline=None)
def test_what_was_acknowledged_is_run_until_it_is_over_and_then_told(
    steps: list[tuple[str, int]], most: int | None
) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        with contextlib.closing(Node(folder / "data")) as node:
            _check(node, steps, most)
    finally:
        shutil.rmtree(folder)


def _check(node: Node, steps: list[tuple[str, int]], most: int | None) -> None:
    node.have("bill", most=most, on_success=QUEUE, on_failure=QUEUE)
    acknowledged: set[str] = set()
    outcomes: Counter[tuple[str, bool]] = Counter()  # by event, and whether it worked
    runs: Counter[str] = Counter()
    kills = sent = 0

    def reply(index: int, kind: str) -> None:
        if node.running:
            index %= len(node.running)
            name = node.running[index][1].payload.decode()
            if kind in {"ok", "fail"}:
                outcomes[name, kind == "ok"] += 1
                runs[name] += 1
            node.running.pop(index)[2](REPLIES[kind])

    for kind, number in steps:
        if kind == "accept":
            for _ in range(number):
                sent += 1
                name = str(sent)
                node.events.accept(
                    "arn:aws:lambda:us-east-1:123456789012:function:bill",
                    "",
                    name.encode().rjust(16, b"0"),
                    name.encode(),
                    lambda failure, name=name: None if failure else acknowledged.add(name),
                )
        elif kind == "advance":
            node.advance(number)
        elif kind == "step":
            for _ in range(number):
                node.step()
        elif kind == "kill":
            if node.events._turns._file is not None:
                kills += 1
                if number and node.errands:  # a thread has done it, and the loop never learns of it
                    node.errands[0][0]()
                node.kill()
        else:
            reply(number, kind)
        assert len(node.running) <= (most or 16)
    for _ in range(500):
        node.run()
        if not node.running:
            node.advance(400_000)
            if not node.running:
                break
        while node.running:
            reply(0, "ok")

    assert (node.running, node.timers) == ([], 0)
    told = Counter[str]()
    for delivery in node.sent:
        document = json.loads(delivery.body)
        name = str(document["requestPayload"])
        told[name] += 1
        assert outcomes[name, document["requestContext"]["condition"] == "Success"]
    assert acknowledged <= set(told)
    assert all(count <= RETRIES + 1 + kills for count in runs.values())
    assert all(count <= 1 + kills for count in told.values())
