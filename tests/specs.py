"""What a worker is told it is, for tests of its parts."""

from __future__ import annotations

from typing import Any

import msgspec

from kflow.declarations import Handler
from kflow.runtime.messages import WorkerSpec


def worker_spec(handler: Handler, **changes: Any) -> WorkerSpec:
    """That of the first worker of a folder, but for `changes`."""
    spec = WorkerSpec(
        worker=1,
        handler=handler,
        data_dir="",
        maps=(),
        epoch=1,
        previous_epoch_clean=True,
        region="us-east-1",
        account="123456789012",
        retry_backoff_scale=1.0,
        timeout_s=3,
        memory_mb=128,
        environment={},
    )
    return msgspec.structs.replace(spec, **changes)
