"""The lock file: processes, threads, forks, replaced files, closed descriptors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kflow.broker.files import FILES
from kflow.broker.locks import FileLock
from kflow.errors import DataFolderBusy, StorageError
from tests.storing import FaultyFiles

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def lock(tmp_path: Path) -> FileLock:
    return FileLock(tmp_path / "writer.lock", FILES)


def other(lock: FileLock) -> FileLock:
    return FileLock(lock.path, FILES)


def test_a_second_lock_on_the_file_is_refused_until_the_first_is_released(lock: FileLock) -> None:
    lock.acquire(1)
    second = other(lock)
    assert not second.try_acquire()
    lock.release()
    assert second.try_acquire()
    second.release()


def test_a_copy_of_a_lock_file_names_no_holder(lock: FileLock, tmp_path: Path) -> None:
    lock.acquire(0, announce=True)
    copied = tmp_path / "copy.lock"
    copied.write_bytes(Path(lock.path).read_bytes())
    assert FileLock(copied, FILES).holder() is None
    lock.release()


def test_a_refusal_names_the_holder(lock: FileLock) -> None:
    lock.acquire(0, announce=True)
    assert Path(lock.path).read_text().split()[0] == str(os.getpid())
    with pytest.raises(DataFolderBusy, match=f"writer.lock is held by process {os.getpid()}"):
        other(lock).acquire(0.01)
    assert other(lock).holder() == os.getpid()
    lock.release()
    assert Path(lock.path).read_text() == ""


def test_the_holder_in_another_process_is_named(lock: FileLock) -> None:
    code = (
        "import sys; from kflow.broker.locks import FileLock; from kflow.broker.files import FILES\n"
        "lock = FileLock(sys.argv[1], FILES); lock.acquire(0, announce=True)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, lock.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(DataFolderBusy, match=f"held by process {child.pid}"):
            lock.acquire(0)
        child.kill()
        child.wait()
        lock.acquire(10)
    lock.release()


def test_a_second_thread_waits_for_the_first(lock: FileLock) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(50):
            lock.acquire(10)
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200


def test_a_thread_that_holds_it_is_named_as_this_process(lock: FileLock) -> None:
    lock.acquire(0)
    with pytest.raises(DataFolderBusy, match="held by another thread of this process"):
        lock.acquire(0)
    with pytest.raises(DataFolderBusy, match="held by another thread of this process"):
        lock.acquire(0.01)
    lock.release()


def test_releasing_what_is_not_held_does_nothing(lock: FileLock) -> None:
    lock.release()
    assert lock.try_acquire()
    lock.release()
    lock.release()
    assert lock.try_acquire()
    lock.release()


def test_a_lock_file_that_was_replaced_is_locked_anew(lock: FileLock) -> None:
    lock.acquire(0)
    lock.release()
    os.replace(lock.path, lock.path + ".old")
    lock.acquire(0)
    assert lock.descriptors()[0][2] == os.stat(lock.path).st_ino
    assert not other(lock).try_acquire()
    lock.release()


def test_a_lock_file_that_was_removed_is_made_anew(lock: FileLock) -> None:
    lock.acquire(0)
    lock.release()
    os.unlink(lock.path)
    lock.acquire(0)
    assert os.path.exists(lock.path)
    lock.release()


def test_user_code_that_closed_the_descriptor_costs_nothing(lock: FileLock) -> None:
    lock.acquire(0)
    lock.release()
    os.close(lock.descriptors()[0][0])
    lock.acquire(0)
    assert not other(lock).try_acquire()
    lock.release()


def test_a_file_of_the_user_under_our_number_is_neither_locked_nor_closed(lock: FileLock, tmp_path: Path) -> None:
    lock.acquire(0)
    lock.release()
    fd = lock.descriptors()[0][0]
    os.close(fd)
    users = os.open(tmp_path / "users", os.O_RDWR | os.O_CREAT)
    assert users == fd
    lock.acquire(0)
    assert lock.descriptors()[0][0] != users
    assert FileLock(tmp_path / "users", FILES).try_acquire()
    os.write(users, b"still open")
    lock.release()
    os.close(users)


def test_a_descriptor_closed_while_held_gives_the_lock_back(lock: FileLock) -> None:
    lock.acquire(0, announce=True)
    os.close(lock.descriptors()[0][0])
    lock.release()
    assert lock.try_acquire()
    lock.release()


def test_a_forked_child_closes_it_and_does_not_unlock(lock: FileLock) -> None:
    lock.acquire(0)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            lock.release()  # not the child's to release
            if not lock.held and not lock.descriptors() and not lock.try_acquire():
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert not other(lock).try_acquire()
    lock.release()
    assert other(lock).try_acquire()


def test_a_fork_while_another_thread_holds_it_leaves_the_child_free_to_wait(lock: FileLock) -> None:
    holds, done = threading.Event(), threading.Event()

    def hold() -> None:
        lock.acquire(0)
        holds.set()
        done.wait(10)
        lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(10)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if not lock.try_acquire():  # by the parent's flock, not by a mutex that nobody would ever release
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    done.set()
    thread.join()


def test_a_folder_that_cannot_be_written_is_said_plainly(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.errors["open"] = errno.EROFS
    with pytest.raises(StorageError, match=r"cannot open the lock file .* is read-only for this user"):
        FileLock(tmp_path / "writer.lock", files).acquire(0)


def test_a_lock_that_nobody_has_any_more_holds_no_descriptor(lock: FileLock) -> None:
    dropped = other(lock)
    dropped.acquire(0)
    ((fd, device, inode),) = dropped.descriptors()
    assert (os.fstat(fd).st_dev, os.fstat(fd).st_ino) == (device, inode)
    del dropped
    assert lock.try_acquire()
    ((again, *_),) = lock.descriptors()
    assert again == fd


def test_on_a_full_disk_the_lock_is_taken_and_given_back_without_naming_its_holder(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.errors.update(pwrite=errno.ENOSPC)
    lock = FileLock(tmp_path / "runtime.lock", files)
    lock.acquire(0, announce=True)
    assert lock.held
    assert (tmp_path / "runtime.lock").read_bytes() == b""
    files.errors.update(ftruncate=errno.EIO)
    lock.release()
    assert other(lock).try_acquire()
