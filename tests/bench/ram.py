"""The limit of `deliver-lambda`: the same events, from the same blocks, to the same handler, without log and runtime.

    python -m tests.bench.ram DATA_DIR STREAM BATCH MODULE

Blocks are held in memory; building, batching and calling are all that is left.
"""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from typing import Any

from kflow import arn
from kflow.broker.block import Block
from kflow.broker.folder import DataFolder
from kflow.declarations import HandlerForm
from kflow.lambda_.shapes import Shape, shape_for
from tests.bench.reading import all_blocks


def main(argv: Sequence[str]) -> int:
    """Deliver everything once."""
    data_dir, stream_name, batch, module = argv
    folder = DataFolder.open(data_dir)
    stream = folder.map(stream_name)
    shapes = [
        shape_for(
            HandlerForm.EVENT,
            stream=stream,
            shard=info.index,
            arn=arn.stream_arn(folder.region, folder.account, stream.name),
            region=folder.region,
            role=arn.role_arn(folder.account, "touch"),
        )
        for info in stream.shards
    ]
    blocks = [all_blocks(folder, stream, info.index) for info in stream.shards]
    touch = _load(module)
    gc.collect()
    gc.freeze()
    for shape, of_shard in zip(shapes, blocks, strict=True):
        _deliver(shape, of_shard, int(batch), touch)
    return 0


def _deliver(shape: Shape, blocks: Sequence[Block], size: int, touch: Callable[[Any, Any], Any]) -> None:
    waiting: list[Any] = []
    for block in blocks:
        waiting += shape.build(block, 0, block.count)
        at = 0
        while len(waiting) - at >= size:
            touch({"Records": waiting[at : at + size]}, None)
            at += size
        waiting = waiting[at:]
    if waiting:
        touch({"Records": waiting}, None)


def _load(path: str) -> Callable[[Any, Any], Any]:
    spec = importlib.util.spec_from_file_location("touch", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[Any, Any], Any] = module.touch
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
