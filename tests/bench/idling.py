"""`idle`: what a runtime with nothing to do costs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from kflow import put
from tests.bench.figures import Figure, cpu_ns, process_tree
from tests.bench.running import Kflow, create_stream, data_folder, wait_for

_STREAM = "bench"
_SETTLE_S = 2.0

_HANDLER = """\
import os
from kflow import Batch, on_stream


@on_stream("{stream}")
def seen(batch: Batch):
    with open("{out}", "a") as out:
        print(len(batch), file=out)
"""


def idle(quick: bool) -> Iterator[Figure]:
    """CPU of the whole process tree of `kflow run` with one handler, its worker alive, in 10 s without a record."""
    seconds = 0.5 if quick else 10.0
    with data_folder() as folder:
        out = folder.path.parent / "seen"
        module = folder.path.parent / "handlers" / "seen.py"
        module.parent.mkdir()
        module.write_text(_HANDLER.format(out=out, stream=_STREAM))
        create_stream(folder, _STREAM, 1)
        with Kflow("run", os.fspath(module)) as kflow:
            put(_STREAM, b"so that there is a worker", partition_key="key")
            wait_for(out.exists, "the handler to see its record")
            time.sleep(_SETTLE_S)  # what follows a batch (syncs, lines on the terminal) is not idling yet
            tree = process_tree(kflow.pid)
            before = sum(map(cpu_ns, tree))
            time.sleep(seconds)
            if process_tree(kflow.pid) != tree:
                raise RuntimeError("processes came or went while the runtime was idle")
            spent = sum(map(cpu_ns, tree)) - before
        yield Figure(
            bench=f"idle {len(tree)} processes, {seconds:g} s", value=spent / 1e6, unit="ms CPU", must=20.0, aim=5.0
        )
