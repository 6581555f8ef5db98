"""What goes with a stream that is deleted, and what is said where it cannot."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kflow.broker.checkpoints import SlotFile, slots_path
from kflow.broker.forgetting import forget
from kflow.errors import StorageError
from tests.storing import FaultyFiles, Store


def test_where_the_consumers_of_a_stream_stood_is_forgotten_or_it_is_said_why_not(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path / "data", files=files)
    (store.folder.path / "checkpoints" / "stray").write_bytes(b"no folder")
    SlotFile.open(store.folder.path, "bill", store.stream.id, files=files, create_for=[0]).close()

    files.errors["unlink"] = errno.EIO
    with pytest.raises(StorageError, match="cannot forget where the consumers of stream orders stood: "):
        forget(store.folder, store.stream)

    files.errors.clear()
    forget(store.folder, store.stream)
    assert not os.path.exists(slots_path(store.folder.path, "bill", store.stream.id))
