"""Producers while nodes are killed, stopped and started; forks; descriptors that user code closes.

Invariants: no acknowledged record missing, none stored twice, the order of each key's records kept.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.linking import call
from kflow.broker.reader import ShardReader
from kflow.broker.writing import writing
from tests.deadline import eventually
from tests.tiny_node import KILLS

ROOT = Path(__file__).parents[2]

PUTTING = """
import os, sys
from pathlib import Path
import kflow
name, way, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
stop = folder / "stop"
log = open(folder / f"acknowledged-{name}", "a", buffering=1)
number = 0

def entries(count):
    global number
    for _ in range(count):
        number += 1
        key = f"{name}-{number % 7}"
        yield f"{name} {key} {number}".encode(), key

if way == "producer":
    with kflow.Producer("orders", linger_ms=2) as producer:
        while not stop.exists():
            for data, key in entries(700):
                producer.put(data, key)
            producer.flush()
            log.write(f"{number}\\n")
else:
    while not stop.exists():
        if way == "one":
            for data, key in entries(1):
                kflow.put("orders", data, partition_key=key)
        else:
            kflow.put_many("orders", list(entries(2500 if number % 3 == 0 else 40)))
        log.write(f"{number}\\n")
"""


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    opened = DataFolder.open(tmp_path / "data", create=True, fsync="none")
    with writing(opened) as log:
        log.create_stream("orders", 3)
    return opened


def environment(folder: DataFolder) -> dict[str, str]:
    return {**os.environ, "KFLOW_TARGET": "local", "KFLOW_DATA_DIR": str(folder.path), "PYTHONPATH": str(ROOT)}


@contextmanager
def keeper(folder: DataFolder, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A keeper of tiny nodes; its first node is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tiny_node", str(folder.path), *options],
        cwd=ROOT,
        env=environment(folder),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def node(folder: DataFolder, *options: str) -> Iterator[None]:
    """One node that lives as long as the block."""
    with keeper(folder, *options) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        call(folder.path, "stop")
        assert process.wait(20) == 0


def script(folder: DataFolder, source: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        env=environment(folder),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What a script printed; it must have ended well."""
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out


def stored(folder: DataFolder) -> list[list[str]]:
    """The payloads of each shard, in order."""
    found = []
    stream = folder.map("orders")
    for index in range(len(stream.shards)):
        reader, offset, datas = ShardReader(folder, stream, index), 0, []
        while blocks := reader.read(offset):
            for block in blocks:
                datas += [data.decode() for data in block.columns()[0]]
            offset = blocks[-1].end
        reader.close()
        found.append(datas)
    return found


def ended(nodes: subprocess.Popen[str], producers: list[subprocess.Popen[str]]) -> str:
    """What the keeper printed; nodes may wait for producers, so one that ends before they do is told at once."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        try:
            return nodes.communicate(timeout=0.1)[0]
        except subprocess.TimeoutExpired:
            for process in producers:
                assert process.poll() is None, f"a producer ended too early: {process.communicate()}"
    raise AssertionError("the nodes did not end")


def put_through(folder: DataFolder, lives: int, seed: int, ends: str, *options: str) -> list[str]:
    """Producers put while nodes live and die; checks the invariants, returns how the nodes ended."""
    work = folder.path.parent
    ways = {"a": "many", "b": "producer", "c": "one"}
    with keeper(folder, "--lives", str(lives), "--seed", str(seed), "--ends", ends, *options) as nodes:
        producers = [script(folder, PUTTING, name, way, str(work)) for name, way in ways.items()]
        try:
            out = ended(nodes, producers)
            (work / "stop").touch()
            for process in producers:
                finished(process)
        finally:
            for process in producers:
                process.kill()
                process.communicate()
    places: dict[str, list[int]] = {}
    for datas in stored(folder):
        for data in datas:
            _, key, number = data.split(" ")
            places.setdefault(key, []).append(int(number))
    for name in ways:
        lines = (work / f"acknowledged-{name}").read_text().split()
        acknowledged = int(lines[-1])
        found = sorted(number for key, numbers in places.items() if key.startswith(f"{name}-") for number in numbers)
        assert found == list(range(1, acknowledged + 1)), f"{name}: records missing or doubled"
    for key, numbers in places.items():
        assert numbers == sorted(numbers), f"{key} is out of order"
    return [line for line in out.split() if line != "ready"]


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_of_the_node_neither_lose_nor_double_nor_reorder_puts(folder: DataFolder, seed: int) -> None:
    ends = put_through(folder, 40, seed, ",".join(KILLS))

    assert len(ends) == 40
    assert set(ends) == set(KILLS)


def test_what_a_killed_node_stored_is_found_by_the_next_one(folder: DataFolder) -> None:
    ends = put_through(folder, 40, 4, "before,torn,written,committed", "--overlap")

    assert len(ends) == 40


def test_a_script_puts_while_a_node_starts_and_stops(folder: DataFolder) -> None:
    assert put_through(folder, 25, 3, "stop") == ["stop"] * 25


def test_a_script_goes_from_one_stopping_node_to_the_next(folder: DataFolder) -> None:
    assert put_through(folder, 25, 5, "stop", "--overlap") == ["stop"] * 25


FORKING = """
import os, signal, sys
import kflow
kflow.put_many("orders", [(f"parent {i}", "k") for i in range(20)])
producer = kflow.Producer("orders", linger_ms=60000)
for i in range(10):
    producer.put(f"gathered {i}", "k")
pid = os.fork()
if pid:
    os.kill(os.getpid(), signal.SIGKILL)
kflow.put_many("orders", [(f"child {i}", "k") for i in range(20)])
producer.put("child through the inherited producer", "k")
producer.flush()
print("done", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("with_node", [True, False])
def test_a_forked_child_puts_its_own_and_nothing_of_its_killed_parent(folder: DataFolder, with_node: bool) -> None:
    def fork() -> None:
        out, errors = script(folder, FORKING).communicate(timeout=60)
        assert out == "done\n", errors

    if with_node:
        with node(folder):
            fork()
    else:
        fork()

    assert sorted(data for datas in stored(folder) for data in datas) == sorted(
        [f"parent {i}" for i in range(20)]
        + [f"child {i}" for i in range(20)]
        + ["child through the inherited producer"]
    )


CLOSING = """
import os, sys
import kflow
kflow.put("orders", "one before", partition_key="k")
kflow.put_many("orders", [("many before", "k")] * 3)
producer = kflow.Producer("orders", linger_ms=60000)
producer.put("gathered before", "k")
producer.flush()
producer.put("gathered across", "k")
os.closerange(3, 1024)
files = [open(f"{sys.argv[1]}/mine-{i}", "w+") for i in range(40)]
for i, file in enumerate(files):
    file.write(f"mine {i}")
    file.flush()
kflow.put("orders", "one after", partition_key="k")
kflow.put_many("orders", [("many after", "k")] * 3)
producer.put("gathered after", "k")
producer.close()
for i, file in enumerate(files):
    file.seek(0)
    assert file.read() == f"mine {i}", i
"""


@pytest.mark.parametrize("with_node", [True, False])
def test_user_code_that_closes_all_descriptors_costs_nothing(folder: DataFolder, with_node: bool) -> None:
    work = folder.path.parent
    if with_node:
        with node(folder):
            finished(script(folder, CLOSING, str(work)))
    else:
        finished(script(folder, CLOSING, str(work)))

    assert sorted(data for datas in stored(folder) for data in datas) == sorted(
        ["one before", "gathered before", "gathered across", "one after", "gathered after"]
        + ["many before", "many after"] * 3
    )
    assert [(work / f"mine-{i}").read_text() for i in range(40)] == [f"mine {i}" for i in range(40)]


CROWD = """
import sys, threading
import kflow
name = sys.argv[1]
def put(thread):
    for number in range(60):
        kflow.put_many("orders", [(f"{name}-{thread} {number} {i}", f"{name}-{thread}", 0) for i in range(5)])
        kflow.put("orders", f"{name}-{thread} {number} 5", partition_key=f"{name}-{thread}", explicit_hash_key=0)
threads = [threading.Thread(target=put, args=(i,)) for i in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("with_node", [True, False])
def test_eight_threads_and_two_processes_put_to_one_shard(folder: DataFolder, with_node: bool) -> None:
    def crowd() -> None:
        for process in [script(folder, CROWD, name) for name in ("a", "b")]:
            finished(process)

    if with_node:
        with node(folder):
            crowd()
    else:
        crowd()

    found: dict[str, list[str]] = {}
    for data in stored(folder)[0]:
        who, rest = data.split(" ", 1)
        found.setdefault(who, []).append(rest)
    everything = [f"{number} {i}" for number in range(60) for i in range(6)]
    assert found == {f"{name}-{thread}": everything for name in ("a", "b") for thread in range(8)}


WAITING = """
import sys
from pathlib import Path
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.producing.channel import Channel
from kflow.producing.frames import Frame
folder = DataFolder.open(Path(sys.argv[1]))
channel = Channel(folder, patience_s=0.3)
stream = folder.map("orders")
def put(data):
    frame = Frame(stream, [Encoder(stream).encode_one(data, "k")])
    channel.submit(frame)
    channel.wait_for(frame)
    return frame.failures[0].status if frame.failures else "stored"
print(put(b"one"), flush=True)
sys.stdin.readline()
print(put(b"two"), flush=True)
print(put(b"three"), flush=True)
"""


def test_without_a_sign_of_the_writer_a_put_is_unknown_if_it_was_sent_and_else_refused(folder: DataFolder) -> None:
    with keeper(folder) as nodes:
        assert nodes.stdout is not None
        assert nodes.stdout.readline() == "ready\n"
        pid = call(folder.path, "who")["pid"]
        process = subprocess.Popen(
            [sys.executable, "-c", WAITING, str(folder.path)],
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        with process, process.stdin, process.stdout:
            assert process.stdout.readline() == "stored\n"
            os.kill(pid, signal.SIGSTOP)
            process.stdin.write("go on\n")
            process.stdin.flush()
            assert process.stdout.readline() == "unknown\n"
            assert process.stdout.readline() == "refused\n"
        os.kill(pid, signal.SIGKILL)


GATED = """
import json, sys
import kflow
place = kflow.put("orders", sys.argv[1], partition_key="k", explicit_hash_key=int(sys.argv[2]))
print(json.dumps([place.shard_id, place.sequence_number]))
"""


def test_a_shard_on_a_stuck_disk_holds_up_nobody_else(folder: DataFolder, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    stream = folder.map("orders")
    first = {shard.index: shard.start for shard in stream.shards}

    def put(data: str, shard: int) -> subprocess.Popen[str]:
        return script(folder, GATED, data, str(first[shard]))

    with node(folder, "--slow", f"{folder.shard_dir(stream, 0)}/", str(gate)):
        finished(put("slow", 0))
        gate.unlink()
        stuck = [put("stuck", 0), put("behind it", 0)]
        eventually(Path(f"{gate}.stuck").exists, what="a write that does not return")
        for shard in (1, 2):
            place, _ = json.loads(finished(put("at once", shard)))
            assert place == f"shardId-{shard:012d}"
        assert [process.poll() for process in stuck] == [None, None]
        gate.touch()
        for process in stuck:
            finished(process)
    assert sorted(stored(folder)[0]) == ["behind it", "slow", "stuck"]
