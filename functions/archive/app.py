"""An archive of everything: one gzip file a batch, the records as lines, exactly the bytes that were put.

Delivery is at least once, so the same records may come again: after a crash the next delivery starts at the first
record that was not settled, but it may hold fewer or more records than before. So a file is named by the sequence
number of its *first* record alone: what comes again starts with that record and replaces the file, and what a shorter
one no longer holds is delivered next. With the last record in the name too, a longer redelivery would lie beside the
shorter file, and its records would be there twice.
"""

import gzip
import os
from pathlib import Path

from kflow import Batch, on_stream


def folder() -> Path:
    """Where files go: `ARCHIVE_DIR`, else `archive` beside the data folder."""
    named = os.environ.get("ARCHIVE_DIR")
    return Path(named) if named else Path(os.environ.get("KFLOW_DATA_DIR", ".kflow")).parent / "archive"


@on_stream("flights", batch_size=1000)
def archive(batch: Batch) -> None:
    """Write one file: complete under another name, then renamed, so that nobody ever reads half of one."""
    first = batch.records[0].sequence_number
    path = folder() / batch.stream / batch.shard_id / f"{first}.jsonl.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = b"".join(record.data + b"\n" for record in batch)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(gzip.compress(lines, compresslevel=6, mtime=0))  # mtime=0: the same records, the same file
    unfinished.replace(path)
