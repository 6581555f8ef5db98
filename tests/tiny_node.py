"""A node that only takes puts: the log, the loop and the socket; started, killed and started again by a keeper.

    python -m tests.tiny_node DATA_DIR [--lives N] [--seed S] [--ends KIND,...] [--overlap] [--slow SHARD_FOLDER FILE]

The keeper forks one node after the other. Each ends its own life, by the kind that the seed picks:

    before     SIGKILL in place of a write            torn     SIGKILL after half of a write
    written    SIGKILL after a write, uncommitted     committed  SIGKILL after the commit, unanswered
    anytime    killed by a timer                      stop     stopped politely
    never      only with --lives 1: runs until it is told to stop

Between two lives there is no node for a moment, so producers append by themselves. With `--overlap` the next node
listens already while the one before it holds the writer lock, so producers turn to it. Says `ready` at the beginning of
each life and the kind of each end after it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kflow.broker import handshake
from kflow.broker.files import Files
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.runtime.intake.ingest import Connection, Ingest
from kflow.runtime.lifeline import die_with_parent
from kflow.runtime.loop import Loop

ATTACHED = 3
"""With `--overlap` a node waits for this many producers before the next one begins to listen."""
KILLS = ("before", "torn", "written", "committed", "anytime")


class DeadlyFiles(Files):
    """File calls that kill this process in the middle of a chosen `pwritev`, or wait in it.

    Attributes:
        end: the kind of end.
        left: how many writes are let through first,
        armed: once this is set.
        slow: a write to a file in this folder takes at least 20 ms, and does not return before the file `gate` exists;
            while it waits, there is a file `gate`.stuck.
    """

    def __init__(self, end: str, left: int, slow: str = "", gate: str = "") -> None:
        self.end = end
        self.left = left
        self.slow = slow
        self.gate = gate
        self.armed = True

    def pwritev(self, fd: int, buffers: Sequence[Any], offset: int) -> int:
        self.left -= self.armed
        if self.left <= 0 and self.end in ("before", "torn"):
            whole = b"".join(buffers)
            if self.end == "torn":
                os.pwrite(fd, whole[: len(whole) // 2], offset)
            die()
        written = os.pwritev(fd, buffers, offset)
        if self.left <= 0 and self.end == "written":
            die()
        if self.slow and self.slow in os.readlink(f"/proc/self/fd/{fd}"):
            time.sleep(0.02)
            if not os.path.exists(self.gate):
                Path(f"{self.gate}.stuck").touch()
            while not os.path.exists(self.gate):
                time.sleep(0.001)
        return written


def die() -> None:
    """End as by the kernel's hand."""
    os.kill(os.getpid(), signal.SIGKILL)


def serve(data_dir: Path, end: str, left: int, slow: str, gate: str, marker: Path | None) -> None:
    """One life of a node; with a marker, it makes that file and begins to count only when all producers are here."""
    files = DeadlyFiles(end, left, slow, gate)
    files.armed = marker is None
    folder = DataFolder.open(data_dir, files=files)
    loop = Loop()
    store = Log(folder)

    def appended(*_: object) -> None:
        if marker is not None and not files.armed and len(ingest.producers) >= ATTACHED:
            marker.touch()
            files.armed = True  # only now: a shard's thread may be about to write, and to die of it
        if not files.armed:
            return
        files.left -= end in ("committed", "stop")
        if files.left <= 0 and end == "committed":
            die()
        if files.left <= 0 and end == "stop":
            loop.stop()

    def asked(_connection: Connection, _request: int, message: dict[str, Any]) -> Any:
        if message["op"] == "stop":
            loop.stop()
        return {"pid": os.getpid()}

    ingest = Ingest(store, loop=loop, on_append=appended, on_control=asked, hello=handshake.own_hello(folder.id))
    ingest.listen(folder.make_socket_path())
    lock = folder.writer_lock()
    lock.acquire(30, announce=True)
    if end == "anytime" and marker is None:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 * left)
    store.recover_all()
    os.write(1, b"ready\n")
    loop.run()
    ingest.close()
    store.sync()
    lock.release()


def main(arguments: list[str]) -> int:
    """Keep nodes alive, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--lives", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ends", default="never")
    parser.add_argument("--overlap", action="store_true")
    parser.add_argument("--slow", nargs=2, default=("", ""))
    chosen = parser.parse_args(arguments)
    die_with_parent(os.getppid())
    chance = random.Random(chosen.seed)
    lives: list[tuple[int, str]] = []
    for number in range(chosen.lives):
        end = chance.choice(chosen.ends.split(","))
        marker = Path(f"{chosen.data_dir}.attached-{number}") if chosen.overlap else None
        lives.append((begin(chosen, end, chance.choice((1, 2, 5, 20, 60)), marker), end))
        if len(lives) > 1 or marker is None:
            await_end(*lives.pop(0))
            time.sleep(chance.choice((0, 0, 0.002, 0.02)))
        while marker is not None and number < chosen.lives - 1 and not marker.exists():
            time.sleep(0.001)
    for life in lives:
        await_end(*life)
    return 0


def begin(chosen: argparse.Namespace, end: str, left: int, marker: Path | None) -> int:
    """Fork one life; its pid."""
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        die_with_parent(keeper)
        code = 1
        try:
            serve(chosen.data_dir, end, left, *chosen.slow, marker)
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return pid


def await_end(pid: int, end: str) -> None:
    """Wait for a life's end and say of which kind it was."""
    os.waitpid(pid, 0)
    os.write(1, f"{end}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
