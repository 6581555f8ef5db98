"""Trace ids, as X-Ray writes them, and whose they are."""

from __future__ import annotations

import re

import pytest

from kflow.runtime.traces import trace_id, worker_of


def test_a_trace_is_as_x_ray_writes_it() -> None:
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01]", trace_id(7))


def test_it_tells_which_worker_sends_it() -> None:
    assert worker_of(trace_id(7)) == 7
    assert worker_of(trace_id(2**31) + ";Lineage=1:ab:0") == 2**31


@pytest.mark.parametrize(
    "trace",
    [
        "",
        "Root=1-67891233-abcdef012345678912345678",
        "Root=1-6;Parent=53995c3f42cd8ad8;Sampled=1",
        "Parent=6b666c6f",
        "☃",
    ],
)
def test_what_others_send_is_of_no_worker(trace: str) -> None:
    assert worker_of(trace) is None
