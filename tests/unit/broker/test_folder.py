"""The data folder: making, opening, refusing."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kflow.broker import layout
from kflow.broker.files import FILES, Files
from kflow.broker.folder import DataFolder, socket_path
from kflow.broker.log import Log
from kflow.broker.writing import writing
from kflow.errors import Damaged, DataFolderBusy, ResourceNotFound, StorageError, StorageFull, UsageError
from tests.storing import FaultyFiles, Store, held


def test_a_new_folder_has_its_format_and_keeps_out_of_git(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data", create=True)
    found = json.loads((tmp_path / "data/FORMAT").read_text())
    assert re.fullmatch("[0-9a-f]{8}", found.pop("crc"))
    assert found == {
        "layout": 2,
        "block": 1,
        "folder_id": folder.id,
        "fsync": "interval",
        "region": "us-east-1",
        "account": "123456789012",
    }
    assert len(folder.id) == 32
    assert (tmp_path / "data/.gitignore").read_text() == "*\n"
    assert sorted(path.name for path in (tmp_path / "data").iterdir() if path.is_dir()) == [
        "checkpoints",
        "logs",
        "parked",
        "run",
        "streams",
        "trash",
    ]


def test_opening_again_finds_the_same_folder(tmp_path: Path) -> None:
    first = DataFolder.open(
        tmp_path / "a/b/data", create=True, fsync="none", region="eu-west-1", account="000000000001"
    )
    second = DataFolder.open(tmp_path / "a/b/data")
    assert (second.id, second.fsync, second.region, second.account) == (first.id, "none", "eu-west-1", "000000000001")


def test_a_policy_that_is_asked_for_is_stored_with_the_data(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path, create=True)
    assert DataFolder.open(tmp_path, fsync="none", create=True).id == folder.id
    assert DataFolder.open(tmp_path).fsync == "none"
    folder.recheck()
    assert folder.fsync == "none"


def test_a_policy_is_changed_under_the_writer_lock_and_from_what_lies_there_then(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path, create=True)
    lock = held(folder.writer_lock())
    with pytest.raises(DataFolderBusy):
        folder.configure(fsync="none", timeout_s=0)
    lock.release()
    assert DataFolder.open(tmp_path).fsync == "interval"
    DataFolder.open(tmp_path).configure(region="eu-west-1")
    folder.configure(fsync="none")  # knows nothing of the region yet
    found = DataFolder.open(tmp_path)
    assert (found.fsync, found.region) == (folder.fsync, folder.region) == ("none", "eu-west-1")


def test_a_policy_that_is_changed_takes_no_layout_back(tmp_path: Path) -> None:
    old = DataFolder.open(tmp_path, create=True)
    older = msgspec.structs.replace(old.format, layout=1)
    layout.write(tmp_path, FILES, older)
    early = DataFolder.open(tmp_path)
    assert early.format.layout == 1
    with writing(DataFolder.open(tmp_path)):
        pass  # a writer's first act is to upgrade
    early.configure(account="000000000001")
    assert (
        DataFolder.open(tmp_path).format == early.format == msgspec.structs.replace(old.format, account="000000000001")
    )


def test_a_policy_is_not_changed_in_another_folder_of_that_name(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data", create=True)
    (tmp_path / "data").rename(tmp_path / "other")
    DataFolder.open(tmp_path / "data", create=True)
    with pytest.raises(StorageError, match="was replaced by another one"):
        folder.configure(fsync="none")
    assert DataFolder.open(tmp_path / "data").fsync == "interval"


def test_a_folder_that_is_made_while_it_is_looked_for_is_no_stranger(tmp_path: Path) -> None:
    class Late(Files):
        def read_bytes(self, path: Any) -> bytes:
            if os.fspath(path).endswith("FORMAT") and not os.path.exists(path):
                DataFolder.open(tmp_path / "data", create=True)
                raise FileNotFoundError(path)
            return super().read_bytes(path)

    (tmp_path / "data").mkdir()
    folder = DataFolder.open(tmp_path / "data", create=True, files=Late())
    assert folder.id == DataFolder.open(tmp_path / "data").id


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_format_is_never_misread(tmp_path: Path, seed: int) -> None:
    folder = DataFolder.open(tmp_path, create=True, fsync="always", region="eu-west-1")
    path = tmp_path / "FORMAT"
    content = bytearray(path.read_bytes())
    at = random.Random(seed).randrange(len(content))
    content[at] ^= 1 << random.Random(seed).randrange(8)
    path.write_bytes(content)
    said, found = "", folder.format
    try:
        found = DataFolder.open(tmp_path).format
    except StorageError as error:
        said = str(error)
    assert found == folder.format
    assert not said or str(path) in said
    assert "use the kflow that wrote it" not in said


def test_a_damaged_format_is_restored_from_its_copy(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path, create=True, fsync="always")
    folder.configure(fsync="none")
    path = tmp_path / "FORMAT"
    path.write_bytes(path.read_bytes().replace(b"none", b"nine"))
    with pytest.raises(Damaged, match="`kflow doctor --repair`"):
        DataFolder.open(tmp_path)
    assert layout.restore(tmp_path, FILES)
    assert DataFolder.open(tmp_path).format == folder.format
    path.write_bytes(b"")
    (tmp_path / "FORMAT.twin").write_bytes(b"{}")
    assert not layout.restore(tmp_path, FILES)


def test_a_format_without_a_checksum_is_an_older_one(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path, create=True)
    (tmp_path / "FORMAT").write_bytes(msgspec.json.encode(folder.format) + b"\n")
    assert DataFolder.open(tmp_path).format == folder.format


def test_a_folder_that_is_not_there_is_not_made_by_accident(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no kflow data folder at .*`kflow streams create NAME`"):
        DataFolder.open(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StorageError, match=r"holds 'thesis.tex'; name an empty or a new folder as data_dir"):
        DataFolder.open(tmp_path, create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(StorageError, match="is not a folder"):
        DataFolder.open(tmp_path / "data", create=True)


@pytest.mark.parametrize("versions", [{"layout": 3, "block": 1}, {"layout": 0, "block": 1}, {"layout": 1, "block": 9}])
def test_another_layout_is_refused_and_not_read(tmp_path: Path, versions: dict[str, int]) -> None:
    (tmp_path / "FORMAT").write_text(json.dumps({**versions, "something": "else"}))
    with pytest.raises(StorageError, match=r"is of layout .*use the kflow that wrote it, or another data_dir"):
        DataFolder.open(tmp_path, create=True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"layout": 1, "block": 1}'])
def test_a_format_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "FORMAT").write_text(text)
    with pytest.raises(StorageError, match="FORMAT cannot be read"):
        DataFolder.open(tmp_path, create=True)


def test_a_policy_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='must be "none", "interval" or "always", not \'never\''):
        DataFolder.open(tmp_path, create=True, fsync="never")
    assert not (tmp_path / "FORMAT").exists()


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (errno.EROFS, StorageError, "is read-only for this user"),
        (errno.EACCES, StorageError, "is read-only for this user"),
        (errno.ENOSPC, StorageFull, "the disk is full"),
        (errno.EIO, StorageError, "Input/output error"),
    ],
)
def test_a_folder_that_cannot_be_written_says_why(tmp_path: Path, code: int, error, text: str) -> None:
    files = FaultyFiles()
    files.errors["pwrite"] = code
    with pytest.raises(error, match=f"cannot use the data folder .*{text}"):
        DataFolder.open(tmp_path / "data", create=True, files=files)


def test_processes_that_make_it_at_once_agree(tmp_path: Path) -> None:
    code = (
        "import sys; from kflow.broker.folder import DataFolder\n"
        "sys.stdin.readline(); print(DataFolder.open(sys.argv[1], create=True).id)"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "data")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    ids = {child.communicate(timeout=60)[0] for child in children}
    assert ids == {DataFolder.open(tmp_path / "data").id + "\n"}
    assert [child.returncode for child in children] == [0, 0, 0, 0]
    assert not list((tmp_path / "data").glob("*.tmp"))


def test_a_folder_replaced_behind_our_back_is_noticed(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data", create=True)
    folder.recheck()
    os.rename(tmp_path / "data", tmp_path / "old")
    with pytest.raises(StorageError, match="was removed"):
        folder.recheck()
    DataFolder.open(tmp_path / "data", create=True)
    with pytest.raises(StorageError, match="was replaced by another one"):
        folder.recheck()


def test_an_unknown_stream_is_answered_with_the_nearest_and_the_line_that_makes_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(
        ResourceNotFound,
        match=r"Stream order under account 123456789012 not found. Did you mean orders\? "
        "To create it: kflow streams create order --shards 1",
    ):
        store.folder.map("order")
    with pytest.raises(ResourceNotFound, match=r"Stream billing under account 123456789012 not found. To create it"):
        store.folder.map("billing")


def test_maps_are_read_again_when_they_change(tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = DataFolder.open(tmp_path)
    assert other.map("orders") == store.stream
    assert other.map("orders") is other.map("orders")
    made = store.log.reset_stream("orders")
    assert other.map("orders") == made
    assert other.map_by_id(made.id) == made
    with pytest.raises(ResourceNotFound, match="does not exist any more"):
        other.map_by_id(store.stream.id)
    with pytest.raises(ResourceNotFound):
        other.current(store.stream)
    store.log.create_stream("billing", 2)
    assert [found.name for found in other.maps()] == ["billing", "orders"]
    store.log.delete_stream("orders")
    with pytest.raises(ResourceNotFound):
        other.map("orders")


def test_maps_of_streams_that_went_are_not_remembered(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data", create=True, fsync="none")
    with writing(folder) as log:
        for _ in range(5):
            log.create_stream("orders", 1)
            log.delete_stream("orders")
        log.create_stream("other", 1)
    assert [each.name for each in folder.live_maps()] == ["other"]
    assert len(folder._maps) == 1


def test_a_map_that_is_none_is_not_taken_for_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.folder.stream_dir(store.stream) / "map.json").write_text("{}")
    with pytest.raises(StorageError, match="is not the map of a stream"):
        DataFolder.open(tmp_path).maps()


def test_a_stream_folder_that_was_renamed_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    os.rename(store.folder.stream_dir(store.stream), tmp_path / "streams/other.0000000000000001")
    with pytest.raises(StorageError, match="was the folder renamed"):
        DataFolder.open(tmp_path).maps()


def test_the_socket_lies_in_run_where_the_path_fits(tmp_path: Path) -> None:
    path = Path("/tmp/kf")  # nothing is made there
    assert socket_path(path) == Path("/tmp/kf/run/node.sock")


def test_a_long_path_gets_a_short_private_socket_folder(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / ("long" * 30), create=True)
    assert len(os.fsencode(folder.run_dir)) > 103
    assert folder.socket_path == folder.run_dir / "node.sock"  # nobody has made the short one yet
    made = folder.make_socket_path()
    try:
        assert len(os.fsencode(made)) < 60
        assert os.stat(made.parent).st_mode & 0o777 == 0o700
        assert folder.socket_path == made == folder.make_socket_path() == socket_path(folder.path)
        os.chmod(made.parent, 0o755)
        other = folder.make_socket_path()
        assert other != made  # what others may write into is not used
        os.rmdir(other.parent)
    finally:
        os.rmdir(made.parent)


def test_a_folder_is_readable_where_nothing_can_be_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    files = FaultyFiles()
    files.errors = dict.fromkeys(("pwrite", "pwritev", "ftruncate", "replace", "rename", "unlink"), errno.EROFS)
    folder = DataFolder.open(tmp_path, files=files)
    assert folder.map("orders") == store.stream
    with pytest.raises(StorageError, match="read-only"):
        Log(folder).create_stream("other", 1)
