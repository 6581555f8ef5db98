"""Nodes that take puts and change the shards of their stream all the time, and die of it; started again by a keeper.

    python -m tests.resharding_node DATA_DIR --lives N --seed S --ends KIND,...

The keeper forks one node after the other. Each splits, merges and scales at random, and ends by the kind that the seed
picks:

    made       SIGKILL before a child's folder is made    page       SIGKILL when a child's control page is there
    unwritten  SIGKILL before the map is replaced         published  SIGKILL right after it was
    anytime    killed by a timer                          stop       stopped politely

Between two lives there is no node for a moment, and producers append by themselves; sometimes the keeper then changes
the shards without a node. Says `ready` at the beginning of each life, the kind of each end, and in the end how many
changes there were.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kflow.broker import handshake
from kflow.broker.files import Files
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.resharding import Plan, carry_out, merge, scale, split
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from kflow.errors import KflowError
from kflow.runtime.errands import Errands
from kflow.runtime.intake.ingest import Connection, Ingest
from kflow.runtime.lifeline import die_with_parent
from kflow.runtime.loop import Loop
from kflow.runtime.streams.resharding import Resharding
from tests.tiny_node import die

MOST = 9
"""Open shards at most."""


class DeadlyFiles(Files):
    """File calls that kill this process in the middle of a change of shards.

    Attributes:
        end: the kind of end.
        left: how often the fatal place is passed alive.
    """

    def __init__(self, end: str, left: int) -> None:
        self.end = end
        self.left = left

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        self._pass("made")
        os.mkdir(path, mode)

    def replace(self, source: Any, target: Any) -> None:
        name = os.fspath(target)
        if name.endswith("map.json"):
            self._pass("unwritten")
        os.replace(source, target)
        if name.endswith("map.json"):
            self._pass("published")
        elif name.endswith("ctl"):
            self._pass("page")

    def _pass(self, place: str) -> None:
        if self.end == place:
            self.left -= 1
            if self.left <= 0:
                die()


class Threads:
    """Work off the loop, as `Upkeep` does it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pool = ThreadPoolExecutor(2)

    def submit(self, work: Callable[[], Any], then: Callable[[Any], object]) -> None:
        def run() -> None:
            try:
                result = work()
            except KflowError as error:
                result = error
            self._loop.call_soon_threadsafe(lambda: then(result))

        self._pool.submit(run)

    def close(self) -> None:
        self._pool.shutdown()


def some_plan(stream: StreamMap, chance: random.Random) -> Plan:
    """A change that AWS would allow."""
    shards = stream.open_shards
    account, region = "1", "r"
    kinds = ["scale"]
    if len(shards) < MOST:
        kinds.append("split")
    if len(shards) > 1:
        kinds.append("merge")
    kind = chance.choice(kinds)
    if kind == "split":
        chosen = chance.choice(shards)
        return split(stream, chosen.index, None, account=account, region=region)
    if kind == "merge":
        at = chance.randrange(len(shards) - 1)
        return merge(stream, shards[at].index, shards[at + 1].index, account=account)
    count = len(shards)
    targets = [n for n in range((count + 1) // 2, min(2 * count, MOST) + 1) if n != count]
    return scale(stream, chance.choice(targets), account=account, region=region)


def serve(data_dir: Path, end: str, chance: random.Random) -> None:
    """One life of a node."""
    folder = DataFolder.open(data_dir, files=DeadlyFiles(end, chance.randint(1, 6)))
    loop = Loop()
    store = Log(folder)
    threads = Threads(loop)
    done = 0

    def asked(_connection: Connection, _request: int, _message: dict[str, Any]) -> Any:
        return {"pid": os.getpid()}

    def changed(old: StreamMap, new: StreamMap) -> None:
        assert new.generation == old.generation + 1
        ingest.forget(new.id)

    def told(result: Any) -> None:
        nonlocal done
        assert not isinstance(result, KflowError), result
        done += 1
        if end == "stop" and done >= 6:
            loop.stop()
        else:
            loop.call_later(chance.choice((0, 0.001, 0.01)), change)

    def change() -> None:
        resharding.change(folder.map("orders"), lambda stream: some_plan(stream, chance), told)

    ingest = Ingest(store, loop=loop, on_append=lambda *_: None, on_control=asked, hello=handshake.own_hello(folder.id))
    resharding = Resharding(store, ingest.appender, threads, Errands(), changed)
    ingest.listen(folder.make_socket_path())
    lock = folder.writer_lock()
    lock.acquire(30, announce=True)
    store.recover_all()
    if end == "anytime":
        signal.setitimer(signal.ITIMER_REAL, chance.choice((0.01, 0.03, 0.1)))
    os.write(1, b"ready\n")
    loop.call_later(0, change)
    loop.run()
    threads.close()
    ingest.close()
    store.sync()
    lock.release()


def reshard_without_a_node(data_dir: Path, chance: random.Random) -> None:
    """One change by a process that has only the lock."""
    folder = DataFolder.open(data_dir)
    with writing(folder, timeout_s=30) as log:
        carry_out(log, some_plan(folder.map("orders"), chance))


def main(arguments: list[str]) -> int:
    """Keep nodes alive, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--lives", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ends", default="stop")
    chosen = parser.parse_args(arguments)
    die_with_parent(os.getppid())
    chance = random.Random(chosen.seed)
    for number in range(chosen.lives):
        end = chance.choice(chosen.ends.split(","))
        seed = chance.random()
        os.waitpid(in_a_child(lambda end=end, seed=seed: serve(chosen.data_dir, end, random.Random(seed))), 0)  # type: ignore[misc]
        os.write(1, f"{end}\n".encode())
        if number % 3 == 0:
            _, status = os.waitpid(
                in_a_child(lambda seed=seed: reshard_without_a_node(chosen.data_dir, random.Random(seed))),  # type: ignore[misc]
                0,
            )
            assert status == 0
        time.sleep(chance.choice((0, 0, 0.002, 0.02)))
    changes = DataFolder.open(chosen.data_dir).map("orders").generation - 1
    os.write(1, f"changes {changes}\n".encode())
    return 0


def in_a_child(deed: Callable[[], None]) -> int:
    """Do it in a process of its own; its pid."""
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        die_with_parent(keeper)
        code = 1
        try:
            deed()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return pid


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
