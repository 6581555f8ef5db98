"""Data folders that earlier versions left (`tests/fixtures`), unpacked for a test."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from kflow.broker.ctl import Ctl
from kflow.broker.files import FILES
from kflow.broker.folder import DataFolder
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap

FIXTURES = Path(__file__).parent / "fixtures"


def unpack(layout: int, target: Path, *, same_machine: bool = False) -> Path:
    """Unpack the folder of a layout; returns the data folder, with the handlers' folder beside it.

    Args:
        layout: which.
        target: where to.
        same_machine: have its control pages name this boot and these files, as if it had been written here: nothing is
            to recover. Else it is a folder that was copied.
    """
    with tarfile.open(FIXTURES / f"layout-{layout}.tar.xz") as archive:
        archive.extractall(target, filter="data")
    if same_machine:
        for path in (target / "data/streams").glob("*/*/ctl"):
            Ctl.open(str(path.parent), FILES, write=True).adopt()
    return target / "data"


def expected(layout: int) -> dict[str, Any]:
    """What the version that made it found in it."""
    found: dict[str, Any] = json.loads((FIXTURES / f"layout-{layout}.json").read_text())
    return found


def records(folder: DataFolder, stream: StreamMap, shard: int) -> list[list[Any]]:
    """Counter, arrival, key and payload (the digest of a long one) of every record of a shard, as `expected` has it."""
    reader, offset = ShardReader(folder, stream, shard), 0
    found: list[list[Any]] = []
    while blocks := reader.read(offset):
        for block in blocks:
            datas, keys = block.columns()
            for n, (data, key) in enumerate(zip(datas, keys, strict=True)):
                text = data.decode("latin-1") if len(data) < 100 else hashlib.sha256(data).hexdigest()
                found.append([block.first_counter + n, block.arrival_ms, key, text])
        offset = blocks[-1].end
    reader.close()
    return found
