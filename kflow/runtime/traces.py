"""Trace ids, as X-Ray writes them: they tell which worker a call comes from.

SDKs find the id of an invocation in `_X_AMZN_TRACE_ID`, and send it on as `X-Amzn-Trace-Id` with every call.

Source: documented: X-Ray, tracing header; recorded: botocore, `add_recursion_detection_header`. chosen: the segment
names the worker.
"""

from __future__ import annotations

import os
import re
import time
from typing import Final

VARIABLE: Final = "_X_AMZN_TRACE_ID"
_SEGMENT: Final = "6b666c6f"
_PARENT: Final = re.compile(rf"(?:^|;)\s*Parent={_SEGMENT}([0-9a-f]{{8}})(?:;|$)")


def trace_id(worker: int) -> str:
    """A new one, for what a worker runs."""
    return f"Root=1-{int(time.time()):08x}-{os.urandom(12).hex()};Parent={_SEGMENT}{worker:08x};Sampled=0"


def worker_of(trace: str) -> int | None:
    """The number of the worker whose function sends this; None: it is none of ours."""
    found = _PARENT.search(trace) if trace else None
    return None if found is None else int(found[1], 16)
