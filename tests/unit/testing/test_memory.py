"""The disk in memory behaves as the file system does, and loses in a crash what was not synced, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from kflow.broker.files import FILES, Files
from kflow.broker.folder import DataFolder
from kflow.broker.locks import FileLock
from kflow.broker.log import Log
from kflow.broker.probe import probe
from kflow.broker.reader import ShardReader
from kflow.errors import DataFolderBusy
from kflow.testing.memory import FIRST_DESCRIPTOR, MemoryFiles
from tests.storing import Store, everything

NAMES = ("a", "b", "c/d", "c/e", "c", "f/g")


def outcome(call: Callable[[], object]) -> object:
    """What a call returned, or which error it raised: of those that callers tell apart."""
    try:
        return call()
    except (FileNotFoundError, FileExistsError) as error:
        return errno.errorcode[error.errno or 0]
    except OSError:
        return "refused"


def status(found: os.stat_result) -> object:
    """What does not differ from one file system to the next."""
    return "folder" if stat.S_ISDIR(found.st_mode) else (found.st_size, found.st_nlink)


def one_of_many(random: Random, fds: list[tuple[int, int]]) -> Callable[[Files, str, int], object]:
    """A random call, to be made on both file systems: of (files, folder, which of the two)."""
    name, other = random.choice(NAMES), random.choice(NAMES)
    content = random.randbytes(random.randint(0, 20))
    offset, length = random.randint(0, 30), random.randint(0, 30)
    flags = random.choice((os.O_RDONLY, os.O_RDWR)) | random.choice((0, os.O_CREAT, os.O_CREAT | os.O_TRUNC))
    flags |= random.choice((0, 0, os.O_EXCL)) if flags & os.O_CREAT else 0
    pair = random.choice(fds) if fds else (1 << 19, 1 << 19)
    calls: tuple[Callable[[Files, str, int], object], ...] = (
        lambda files, top, which: files.pwrite(pair[which], content, offset),
        lambda files, top, which: files.pwritev(pair[which], [content, b"-", content], offset),
        lambda files, top, which: files.pread(pair[which], length, offset),
        lambda files, top, which: files.ftruncate(pair[which], length),
        lambda files, top, which: status(files.fstat(pair[which])),
        lambda files, top, which: files.fdatasync(pair[which]),
        lambda files, top, which: files.mkdir(f"{top}/{name}"),
        lambda files, top, which: files.rmdir(f"{top}/{name}"),
        lambda files, top, which: files.unlink(f"{top}/{name}"),
        lambda files, top, which: files.rename(f"{top}/{name}", f"{top}/{other}"),
        lambda files, top, which: files.replace(f"{top}/{name}", f"{top}/{other}"),
        lambda files, top, which: files.link(f"{top}/{name}", f"{top}/{other}"),
        lambda files, top, which: sorted(files.listdir(f"{top}/{name}")),
        lambda files, top, which: files.read_bytes(f"{top}/{name}"),
        lambda files, top, which: files.write_replace(f"{top}/{name}", content, sync=True),
        lambda files, top, which: files.exists(f"{top}/{name}"),
        lambda files, top, which: files.is_folder(f"{top}/{name}"),
        lambda files, top, which: files.make_folder(f"{top}/{name}", sync=bool(length % 2)),
        lambda files, top, which: files.remove_tree(f"{top}/{name}"),
        lambda files, top, which: files.sync_folder(f"{top}/{name}"),
        lambda files, top, which: files.open(f"{top}/{name}", flags, 0o644),
        lambda files, top, which: files.open(f"{top}/{name}", flags, 0o644),
    )
    return random.choice(calls)


@pytest.mark.parametrize("seed", range(30))
def test_every_call_does_what_the_file_system_does(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    memory = MemoryFiles()
    memory.make_folder("/top")
    fds: list[tuple[int, int]] = []
    for _ in range(300):
        call = one_of_many(random, fds)
        real = outcome(lambda: call(FILES, os.fspath(tmp_path), 0))  # noqa: B023
        ours = outcome(lambda: call(memory, "/top", 1))  # noqa: B023
        if isinstance(real, int) and isinstance(ours, int) and ours >= FIRST_DESCRIPTOR:
            fds.append((real, ours))
        else:
            assert ours == real
    for fd, other in fds:
        FILES.close(fd)
        memory.close(other)
    assert memory.open_descriptors == 0


def test_a_descriptor_is_never_one_of_the_system() -> None:
    files = MemoryFiles()
    fd = files.open("/a", os.O_RDWR | os.O_CREAT)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_what_is_mapped_is_what_is_read_and_written() -> None:
    files = MemoryFiles()
    probe("/", files)
    files.write_new("/page", bytes(4096), sync=False)
    fd = files.open("/page", os.O_RDWR)
    view, readonly = files.map_page(fd, 4096, True).cast("Q"), files.map_page(fd, 4096, False)
    view[1] = 7
    files.pwrite(fd, b"\x09", 16)
    assert (view[2], readonly[8], files.pread(fd, 1, 8)) == (9, 7, b"\x07")
    assert readonly.readonly
    files.close(fd)
    view[3] = 1
    assert files.read_bytes("/page")[24] == 1


def test_a_lock_ends_with_its_process() -> None:
    files = MemoryFiles()
    other = files.process()
    held = FileLock("/lock", files)
    held.acquire(0)
    with pytest.raises(DataFolderBusy):
        FileLock("/lock", other).acquire(0)
    files.kill()
    again = FileLock("/lock", other)  # kept: a lock that nobody has any more is let go
    again.acquire(0)
    other.disk.patience_s = 0.0
    fd = other.open("/lock", os.O_RDWR)
    with pytest.raises(OSError, match="deadlock"):
        other.flock(fd, fcntl.LOCK_EX)


def test_a_lock_is_waited_for_by_another_thread() -> None:
    files = MemoryFiles()
    fds = [files.open("/lock", os.O_RDWR | os.O_CREAT) for _ in range(2)]
    files.flock(fds[0], fcntl.LOCK_EX)
    waiting = threading.Thread(target=files.flock, args=(fds[1], fcntl.LOCK_EX))
    waiting.start()
    files.close(fds[0])
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_full_disk_takes_what_fits_and_gives_back_what_is_removed() -> None:
    files = MemoryFiles()
    files.disk.capacity_bytes = 10
    fd = files.open("/a", os.O_RDWR | os.O_CREAT)
    assert files.pwrite(fd, bytes(12), 0) == 10
    with pytest.raises(OSError, match="No space left"):
        files.pwrite(fd, b"x", 10)
    assert files.pwrite(fd, b"over", 0) == 4
    files.close(fd)
    files.unlink("/a")
    files.write_new("/b", bytes(10), sync=False)


def test_what_was_synced_is_in_every_image() -> None:
    files = MemoryFiles()
    files.write_replace("/a", b"first", sync=True)
    fd = files.open("/a", os.O_RDWR)
    files.pwrite(fd, b"F", 0)
    files.write_replace("/b", b"new", sync=False)
    seen = set()
    for image in itertools.islice(files.crash_images(Random(1)), 60):
        found = image.read_bytes("/a")
        assert found in {b"first", b"First"}
        seen.add((found, outcome(lambda: image.read_bytes("/b"))))  # noqa: B023
    assert {(b"first", "ENOENT"), (b"First", b"new")} <= seen
    assert (b"first", b"") in seen, "a name may survive without what was written under it"


def test_the_first_images_are_the_two_extremes() -> None:
    files = MemoryFiles()
    fd = files.open("/a", os.O_RDWR | os.O_CREAT)
    files.pwrite(fd, b"12", 0)
    none, everything_ = itertools.islice(files.crash_images(Random(1)), 2)
    assert none.listdir("/") == []
    assert everything_.read_bytes("/a") == b"12"
    assert everything_.stat("/a").st_dev != files.stat("/a").st_dev


def test_a_write_of_several_sectors_may_be_torn() -> None:
    files = MemoryFiles()
    files.write_new("/a", bytes(2048), sync=True)
    files.sync_folder("/")
    fd = files.open("/a", os.O_RDWR)
    files.pwrite(fd, b"x" * 1024, 256)
    sectors = {
        bytes(image.read_bytes("/a")[at] for at in (256, 512, 1024))
        for image in itertools.islice(files.crash_images(Random(3)), 400)
    }
    assert {b"xxx", b"\0\0\0", b"x\0x", b"\0x\0"} <= sectors


def test_a_folder_that_was_not_synced_takes_its_files_along() -> None:
    files = MemoryFiles()
    files.mkdir("/new")
    files.write_replace("/new/a", b"x", sync=True)
    (lost,) = itertools.islice(files.crash_images(Random(1)), 1)
    assert not lost.exists("/new")
    files.sync_folder("/")
    (kept,) = itertools.islice(files.crash_images(Random(1)), 1)
    assert kept.read_bytes("/new/a") == b"x"


def test_a_rename_is_one_step_in_both_folders() -> None:
    files = MemoryFiles()
    files.make_folder("/one", sync=True)
    files.make_folder("/two", sync=True)
    files.write_replace("/one/a", b"x", sync=True)
    files.rename("/one/a", "/two/b")
    for image in itertools.islice(files.crash_images(Random(1)), 30):
        assert image.listdir("/one") + image.listdir("/two") in (["a"], ["b"])
    files.sync_folder("/two")
    for image in itertools.islice(files.crash_images(Random(2)), 30):
        assert (image.listdir("/one"), image.listdir("/two")) == ([], ["b"])


def test_an_image_holds_any_state_that_a_mapped_page_has_had() -> None:
    files = MemoryFiles()
    files.write_new("/page", bytes(4096), sync=True)
    files.sync_folder("/")
    fd = files.open("/page", os.O_RDWR)
    page = files.map_page(fd, 4096, True).cast("Q")
    for number in range(1, 4):
        page[0] = number
        files.write_new("/beside", b"x", sync=False)
    page[0] = 9
    found = {image.read_bytes("/page")[0] for image in itertools.islice(files.crash_images(Random(4)), 80)}
    assert found == {0, 1, 2, 3, 9}


def test_a_crash_leaves_the_original_alone_and_equal_seeds_give_equal_images() -> None:
    files = MemoryFiles()
    fd = files.open("/a", os.O_RDWR | os.O_CREAT)
    for at in range(20):
        files.pwrite(fd, bytes([at + 1]), at)
    image = files.crash_image(Random(5), survives=1)
    image.unlink("/a")
    contents = [
        [outcome(lambda: found.read_bytes("/a")) for found in itertools.islice(files.crash_images(Random(6)), 9)]  # noqa: B023
        for _ in range(2)
    ]
    assert contents[0] == contents[1]
    assert len({str(each) for each in contents[0]}) > 3


def test_a_log_lives_on_it_and_comes_back_with_all_that_was_synced() -> None:
    files = MemoryFiles()
    store = Store(Path("/data"), files=files, fsync="interval")
    store.put(b"a")
    store.log.sync()
    store.put(b"b")
    store.put(b"c")
    found = set()
    for image in itertools.islice(files.crash_images(Random(7)), 30):
        folder = DataFolder.open("/data", files=image)
        log = Log(folder, clock=store.clock)
        log.recover_all()
        stream = folder.map("orders")
        found.add(tuple(everything(ShardReader(folder, stream, 0))))
        log.close()
    assert {(b"a",), (b"a", b"b", b"c")} <= found <= {(b"a",), (b"a", b"b"), (b"a", b"c"), (b"a", b"b", b"c")}
    assert store.datas() == [b"a", b"b", b"c"]
