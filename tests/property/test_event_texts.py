"""Events that are written are events that are built, whatever keys and payloads hold."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from kflow.lambda_.event_texts import EventTextShape
from kflow.lambda_.shapes import EventShape
from tests.blocks import Block

NAMES = {"arn": "arn:stream", "region": "eu-west-1", "role": "arn:role"}
TEXTS = EventTextShape(1_600_000_000, 3, **NAMES)
EVENTS = EventShape(1_600_000_000, 3, **NAMES)


@given(st.text(max_size=40), st.binary(max_size=40), st.integers(0, 2**50))
def test_any_key_and_any_bytes_are_written_so_that_json_reads_them_back(key, data, arrival_ms):
    block = Block([data, b""], [key, "k"], arrival_ms)
    assert json.loads(f"[{','.join(TEXTS.build(block, 0, 2))}]") == EVENTS.build(block, 0, 2)
