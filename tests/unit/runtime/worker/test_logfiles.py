"""Logs in files: bounded by size, rotated by whoever writes, followed across rotations."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kflow.broker.functionlogs import index_path
from kflow.runtime.worker.logfiles import Follower, LogFile, cut_overlong, functions, log_path, older
from tests.deadline import eventually


def write(log: LogFile, *lines: str) -> None:
    os.write(log.fd, "".join(line + "\n" for line in lines).encode())


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_full_file_becomes_an_older_one_and_the_oldest_goes(tmp_path: Path) -> None:
    path = log_path(tmp_path, "bill")
    log = LogFile(path, file_bytes=10, files=3)
    number = log.fd
    for text in ("first 10 bytes", "second full", "third full too", "fourth"):
        log.look()
        write(log, text)
    assert log.fd == number
    assert content(path) == "fourth\n"
    assert content(older(path, 1)) == "third full too\n"
    assert content(older(path, 2)) == "second full\n"
    assert not older(path, 3).exists()
    assert functions(tmp_path) == ["bill"]
    log.close()


def test_a_file_that_is_not_full_stays(tmp_path: Path) -> None:
    log = LogFile(log_path(tmp_path, "bill"), file_bytes=10)
    write(log, "12345678")
    assert not log.look()
    before = log.identity
    write(log, "")
    assert log.look()
    assert log.identity != before
    assert (os.fstat(log.fd).st_dev, os.fstat(log.fd).st_ino) == log.identity[1:]
    assert not os.get_inheritable(log.fd)
    log.close()


def test_other_workers_go_on_in_the_new_file(tmp_path: Path) -> None:
    path = log_path(tmp_path, "bill")
    first, second = LogFile(path, file_bytes=10), LogFile(path, file_bytes=10)
    write(first, "full of one")
    assert first.look()
    write(second, "late")  # in the middle of an invocation: its lines stay together
    assert second.look()
    write(second, "two")
    assert content(older(path, 1)) == "full of one\nlate\n"
    assert content(path) == "two\n"
    assert not first.look()
    first.close()
    second.close()


def test_a_rotation_that_another_worker_is_at_is_not_waited_for(tmp_path: Path) -> None:
    import fcntl

    path = log_path(tmp_path, "bill")
    first, second = LogFile(path, file_bytes=1), LogFile(path, file_bytes=1)
    write(first, "full")
    fcntl.flock(second.fd, fcntl.LOCK_EX)
    assert not first.look()
    fcntl.flock(second.fd, fcntl.LOCK_UN)
    assert first.look()
    first.close()
    second.close()


def test_a_log_that_somebody_removed_is_begun_anew(tmp_path: Path) -> None:
    path = log_path(tmp_path, "bill")
    log = LogFile(path, file_bytes=1)
    write(log, "gone")
    path.unlink()
    assert log.look()
    write(log, "new")
    assert content(path) == "new\n"
    assert not older(path, 1).exists()
    log.close()


def test_a_crash_in_the_middle_of_a_rotation_loses_no_file(tmp_path: Path) -> None:
    """The newest is renamed last: a crash leaves a number out."""
    path = log_path(tmp_path, "bill")
    path.parent.mkdir()
    older(path, 1).write_text("b\n")
    older(path, 3).write_text("a\n")
    follower = Follower(path)
    assert follower.last(10) == [b"a", b"b"]
    log = LogFile(path)
    write(log, "c")
    assert follower.look() == ([b"c"], False)
    follower.close()
    log.close()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 100])
def test_the_last_lines_are_found_over_all_files(tmp_path: Path, count: int) -> None:
    path = log_path(tmp_path, "bill")
    log = LogFile(path, file_bytes=40_000)
    lines = [f"{number} {'x' * (number % 3) * 30_000}" for number in range(7)]
    for line in lines:
        log.look()
        write(log, line)
    assert older(path, 1).exists()
    follower = Follower(path)
    assert follower.last(count) == [line.encode() for line in lines][7 - count if count < 7 else 0 :][:count]
    follower.close()
    log.close()


def test_following_goes_on_across_rotations(tmp_path: Path) -> None:
    path = log_path(tmp_path, "bill")
    log = LogFile(path, file_bytes=50)
    write(log, "before")
    follower = Follower(path)
    assert follower.last(10) == [b"before"]
    chance = random.Random(3)
    wanted: list[bytes] = []
    found: list[bytes] = []
    for number in range(300):
        log.look()
        write(log, f"line {number}")
        wanted.append(b"line %d" % number)
        if chance.random() < 0.2:
            found += follower.look()[0]
    found += follower.look()[0]
    assert found == wanted
    follower.close()
    log.close()


def test_following_reads_what_a_long_invocation_still_writes_into_the_older_file(tmp_path: Path) -> None:
    path = log_path(tmp_path, "bill")
    slow, quick = LogFile(path, file_bytes=10), LogFile(path, file_bytes=10)
    follower = Follower(path)
    assert follower.last(10) == []
    write(quick, "quick is full")
    quick.look()
    write(quick, "new file")
    assert follower.look()[0] == [b"quick is full", b"new file"]
    write(slow, "slow goes on")
    write(quick, "quick, too")
    assert follower.look()[0] == [b"slow goes on", b"quick, too"]
    for log in (slow, quick):
        log.close()
    follower.close()


def test_following_closes_files_that_are_gone(tmp_path: Path) -> None:
    path = log_path(tmp_path, "bill")
    log = LogFile(path, file_bytes=1, files=3)
    follower = Follower(path, files=3)
    follower.last(0)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for number in range(50):
        log.look()
        write(log, str(number))
        assert follower.look()[0] == [b"%d" % number]
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after - before <= 3
    log.close()
    follower.close()


def test_a_line_is_shown_when_it_is_complete(tmp_path: Path) -> None:
    path = log_path(tmp_path, "bill")
    log = LogFile(path)
    follower = Follower(path)
    os.write(log.fd, b"half")
    assert follower.last(10) == []
    assert follower.unfinished() == [b"half"]
    assert follower.look() == ([], False)
    os.write(log.fd, b" and half\nnext")
    assert follower.look() == ([b"half and half"], False)
    follower.close()
    log.close()


def test_much_at_once_is_read_piece_by_piece(tmp_path: Path) -> None:
    path = log_path(tmp_path, "bill")
    log = LogFile(path)
    follower = Follower(path)
    follower.last(0)
    lines = [b"%07d" % number for number in range(400_000)]
    with path.open("ab") as file:
        file.write(b"\n".join(lines) + b"\n")
        file.write(b"x" * (3 << 20))
    found: list[bytes] = []
    looks = 0
    more = True
    while more:
        some, more = follower.look()
        assert sum(map(len, some)) <= 3 << 20
        found += some
        looks += 1
    assert looks > 3
    assert found[: len(lines)] == lines
    assert b"".join(found[len(lines) :]) + follower._open[-1]._rest == b"x" * (3 << 20)
    follower.close()
    log.close()


def test_what_one_invocation_writes_is_bounded(tmp_path: Path) -> None:
    path = log_path(tmp_path, "bill")
    log = LogFile(path)
    write(log, "x" * 1000)
    assert cut_overlong(path, most_bytes=1001) == 0
    follower = Follower(path)
    assert len(follower.last(1)) == 1
    assert cut_overlong(path, most_bytes=1000) == 1001
    write(log, "goes on")
    assert content(path) == "goes on\n"  # from the beginning: no hole
    assert follower.look()[0] == [b"goes on"]
    assert cut_overlong(tmp_path / "none.log") == 0
    log.close()
    follower.close()


def test_many_processes_rotate_and_lose_no_line(tmp_path: Path) -> None:
    """Four processes write 2,000 lines each into files of 5 kB; a follower sees every line once."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from kflow.runtime.worker.logfiles import LogFile\n"
        "log = LogFile(Path(sys.argv[1]), file_bytes=5_000, files=100)\n"
        "sys.stdin.readline()\n"
        "for n in range(2_000):\n"
        "    log.look()\n"
        "    os.write(log.fd, f'{sys.argv[2]} {n}\\n'.encode())\n"
    )
    path = log_path(tmp_path, "bill")
    path.parent.mkdir()
    follower = Follower(path, files=100)
    assert follower.last(10) == []
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(n)], stdin=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.close()
    found: list[bytes] = []

    def ended() -> bool:
        found.extend(follower.look()[0])
        return all(writer.poll() is not None for writer in writers)

    eventually(ended, seconds=60, what="the writers to end")
    ended()
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0]
    assert sorted(found) == sorted(b"%d %d" % (w, n) for w in range(4) for n in range(2_000))
    for w in range(4):
        mine = [int(line.split()[1]) for line in found if line.startswith(b"%d " % w)]
        assert len(set(mine)) == 2_000
    assert older(path, 3).exists()
    follower.close()


def test_an_index_is_renamed_with_its_log(tmp_path: Path) -> None:
    path = log_path(tmp_path, "bill")
    log = LogFile(path, file_bytes=1, files=3)
    for number in range(3):
        log.look()
        write(log, f"{number}")
        index_path(path).write_text(f"of {number}")
    assert [index_path(each).read_text() for each in (path, older(path, 1), older(path, 2))] == ["of 2", "of 1", "of 0"]
    index_path(path).unlink()
    log.look()
    assert not index_path(older(path, 1)).exists()
    assert index_path(older(path, 2)).read_text() == "of 1"
    log.close()
