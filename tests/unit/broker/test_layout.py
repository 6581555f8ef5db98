"""Layouts of data folders: what an earlier version left is read as it is, and brought to today's before a write."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from kflow.broker.checkpoints import SlotFile
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.layout import LAYOUT
from kflow.broker.parked import ParkedStore
from kflow.broker.writing import writing
from kflow.errors import DataFolderBusy, StorageError
from kflow.runtime.tools import admin
from tests.older import expected, records, unpack
from tests.storing import FaultyFiles, held


def layout_of(data: Path) -> int:
    return json.loads((data / "FORMAT").read_text())["layout"]


def put(folder: DataFolder, name: str, *datas: bytes) -> None:
    """Append from this process, as a script without a node does."""
    stream = folder.map(name)
    with writing(folder) as log:
        log.append(stream, Encoder(stream).encode_many(["k"] * len(datas), datas))


def everything(folder: DataFolder) -> dict[str, list[Any]]:
    return {each.name: [records(folder, each, shard.index) for shard in each.shards] for each in folder.maps()}


@pytest.mark.parametrize("same_machine", [True, False])
def test_every_record_of_layout_1_is_read(tmp_path: Path, same_machine: bool) -> None:
    folder = DataFolder.open(unpack(1, tmp_path, same_machine=same_machine))
    assert folder.id == expected(1)["folder_id"]
    assert everything(folder) == expected(1)["streams"]


def test_reading_leaves_the_layout_as_it_is(tmp_path: Path) -> None:
    data = unpack(1, tmp_path, same_machine=True)
    before = (data / "FORMAT").read_bytes()
    everything(DataFolder.open(data))
    assert (data / "FORMAT").read_bytes() == before
    assert json.loads(before)["layout"] == 1


def test_every_slot_of_layout_1_is_read(tmp_path: Path) -> None:
    data = unpack(1, tmp_path, same_machine=True)
    folder = DataFolder.open(data)
    for function, wanted in expected(1)["slots"].items():
        (path,) = (data / "checkpoints" / function).glob("*.slots")
        slots = SlotFile.open(data, function, int(path.stem, 16), files=folder.files)
        assert slots.keys() == [(each["shard"], each["lane"]) for each in wanted]
        for each in wanted:
            slot = slots.load(each["shard"], each["lane"])
            found = {name: getattr(slot, name) for name in each if name not in ("shard", "lane", "request_id")}
            found = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
            assert slot.request_id.hex() == each["request_id"]
            assert found == {name: each[name] for name in found}
        slots.close()


def test_every_parked_entry_of_layout_1_is_read_and_numbers_go_on(tmp_path: Path) -> None:
    folder = DataFolder.open(unpack(1, tmp_path, same_machine=True))
    parked = ParkedStore(folder.path, folder.files, folder.fsync)
    for wanted, entry in zip(expected(1)["parked"], parked.list(), strict=True):
        assert (entry.number, entry.function, entry.attempts) == (
            wanted["number"],
            wanted["function"],
            wanted["attempts"],
        )
        assert entry.claimed_by == wanted["claimed_by"]
        assert entry.error is not None
        assert entry.error.type == wanted["error"]
        assert [[each.sequence_number, each.data.decode()] for each in entry.records] == wanted["records"]
    assert parked.release_claims(epoch=2) == 1
    again = parked.show(1)
    stream = folder.map("orders")
    moved = type(again)(**{name: getattr(again, name) for name in again.__struct_fields__} | {"function": "audit"})
    assert moved.stream_id == stream.id
    assert parked.park(moved) == 5


@pytest.mark.parametrize("same_machine", [True, False])
def test_the_first_put_brings_the_folder_to_the_newest_layout(tmp_path: Path, same_machine: bool) -> None:
    data = unpack(1, tmp_path, same_machine=same_machine)
    folder = DataFolder.open(data)
    put(folder, "orders", b"new")
    assert layout_of(data) == LAYOUT
    found = everything(DataFolder.open(data))
    added = 0
    for name, shards in expected(1)["streams"].items():
        for index, wanted in enumerate(shards):
            assert found[name][index][: len(wanted)] == wanted
            new = found[name][index][len(wanted) :]
            assert [each[2:] for each in new] in ([], [["k", "new"]])
            assert all(each[0] > wanted[-1][0] for each in new)  # a counter that nothing had before
            added += len(new)
    assert added == 1


def test_moving_a_position_brings_the_folder_to_the_newest_layout(tmp_path: Path) -> None:
    data = unpack(1, tmp_path, same_machine=True)
    folder = DataFolder.open(data)
    with admin.no_runtime(folder):
        assert layout_of(data) == LAYOUT
    assert folder.format.layout == LAYOUT


def test_everything_else_in_format_stays(tmp_path: Path) -> None:
    data = unpack(1, tmp_path, same_machine=True)
    before = json.loads((data / "FORMAT").read_text())
    folder = DataFolder.open(data)
    lock = held(folder.writer_lock())
    assert folder.upgrade() == 1
    assert folder.upgrade() is None
    lock.release()
    after = json.loads((data / "FORMAT").read_text())
    assert re.fullmatch("[0-9a-f]{8}", after.pop("crc"))
    assert after == {**before, "layout": LAYOUT}
    folder.recheck()  # it is the folder that was opened


def test_one_of_two_writers_upgrades_and_the_other_finds_it_done(tmp_path: Path) -> None:
    data = unpack(1, tmp_path, same_machine=True)
    first, second = DataFolder.open(data), DataFolder.open(data)
    assert first.upgrade() == 1
    assert second.upgrade() is None
    assert second.format == first.format


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_an_upgrade_that_fails_leaves_the_older_layout(tmp_path: Path, code: int) -> None:
    data = unpack(1, tmp_path, same_machine=True)
    files = FaultyFiles()
    folder = DataFolder.open(data, files=files)
    files.errors["replace"] = code
    files.only = "FORMAT"
    with pytest.raises(StorageError, match=f"cannot bring the data folder .* to layout {LAYOUT}"):
        put(folder, "orders", b"new")
    assert layout_of(data) == 1
    assert everything(DataFolder.open(data)) == expected(1)["streams"]
    assert not list(data.glob("FORMAT.*"))
    files.errors.clear()
    put(folder, "orders", b"new")
    assert layout_of(data) == LAYOUT


def test_nothing_is_upgraded_under_another_writer(tmp_path: Path) -> None:
    data = unpack(1, tmp_path, same_machine=True)
    folder = DataFolder.open(data)
    lock = held(DataFolder.open(data).writer_lock())
    with pytest.raises(DataFolderBusy), writing(folder, timeout_s=0):
        pass
    assert layout_of(data) == 1
    lock.release()


def test_a_newer_layout_is_refused_by_whoever_had_the_folder_open(tmp_path: Path) -> None:
    data = unpack(1, tmp_path, same_machine=True)
    folder = DataFolder.open(data)
    text = (data / "FORMAT").read_text()
    (data / "FORMAT.new").write_text(re.sub(r'"layout":\d+', f'"layout":{LAYOUT + 1}', text))
    os.replace(data / "FORMAT.new", data / "FORMAT")
    with pytest.raises(StorageError, match=f"is of layout {LAYOUT + 1} .*reads layouts up to {LAYOUT}"):
        put(folder, "orders", b"new")
