"""`start`: from the node's request for a worker to the first result, over a bare fork of such a zygote.

This process plays the node: it has the real zygote fork the real worker, grants it a lease with one record to deliver,
and waits for what the worker says after its checkpoint.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kflow import settings
from kflow.broker import streammap
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.writing import writing
from kflow.declarations import Handler
from kflow.runtime import environment, loader
from kflow.runtime.host import PRELOAD
from kflow.runtime.messages import Channel, Ended, Grant, LaneGrant, Returned, Stop, WorkerSpec
from kflow.runtime.node.workers import WorkerHandle, ZygoteSpawner
from kflow.runtime.starting import set_up
from tests.bench.figures import Figure, interleave, median_pair
from tests.bench.running import ROOT, create_stream, data_folder

_STREAM = "bench"

_HANDLER = """\
from kflow import on_stream


@on_stream("{stream}")
def first(event, context):
    return None
"""


def start(quick: bool) -> Iterator[Figure]:
    """Worker start to first result, as the node sees it, over a bare fork and exit of a zygote that holds the same."""
    with data_folder() as folder, _forker() as bare_fork:
        module = folder.path.parent / "handlers" / "first.py"
        module.parent.mkdir()
        module.write_text(_HANDLER.format(stream=_STREAM))
        create_stream(folder, _STREAM, 1)
        with _starter(folder, os.fspath(module)) as first_result:
            first_result()
            bare_fork()
            pair = median_pair(interleave(first_result, bare_fork, 3 if quick else 61))
        yield Figure(
            bench="start to first result", value=pair.ours / 1e6, limit=pair.limit / 1e6, unit="ms", must=5.0, aim=3.0
        )


@contextmanager
def _starter(folder: DataFolder, module: str) -> Iterator[Callable[[], float]]:
    """Starts one worker after the other; each call returns how long its first result took, nanoseconds."""
    variables = environment.worker_environment(
        os.environ, data_dir=folder.path, region=folder.region, reach=environment.Reach(url="http://127.0.0.1:9")
    )
    (handler,) = loader.load(module, environment=variables).handlers
    spawner = ZygoteSpawner(variables, PRELOAD)
    try:
        spawner.wait_ready()
        yield _Starter(folder, handler, spawner).first_result
    finally:
        spawner.close()


class _Starter:
    """The node's part in the start of a worker."""

    def __init__(self, folder: DataFolder, handler: Handler, spawner: ZygoteSpawner) -> None:
        self._folder = folder
        self._spawner = spawner
        self._stream = folder.map(_STREAM)
        self._encoder = Encoder(self._stream)
        self._count = 0
        chosen = settings.load(files=False, overrides={"data_dir": folder.path})
        with writing(folder) as log:
            (self._lease,) = set_up(log, [handler], chosen, time.monotonic()).leases
        self._spec = WorkerSpec(
            worker=0,
            handler=handler,
            data_dir=os.fspath(folder.path),
            maps=(streammap.encode(self._stream),),
            epoch=1,
            previous_epoch_clean=True,
            region=folder.region,
            account=folder.account,
            retry_backoff_scale=1.0,
            timeout_s=3,
            memory_mb=128,
            environment={},
        )

    def first_result(self) -> float:
        """Put a record, start a worker, end it; how long it took from the start to the first result, nanoseconds."""
        with writing(self._folder) as log:
            log.append(self._stream, [self._encoder.encode_one(b"{}", "key")])
        self._count += 1
        live, live_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        begin = time.monotonic_ns()
        ours, theirs = socket.socketpair()
        channel = Channel(ours, "from_worker")
        handle = WorkerHandle(self._count, self._spec.handler.name, self._spec, channel, time.monotonic())
        channel.post(self._spec)
        with theirs:
            self._spawner.start(handle, theirs, live_theirs)
        lane = LaneGrant(self._lease.id, self._count, 0)
        channel.post(Grant(self._lease.trigger, self._lease.shard, (lane,)))
        returned = self._returned(channel)
        spent = time.monotonic_ns() - begin
        if returned.reason != "idle" or not returned.settled:
            raise RuntimeError(f"the worker did not settle its record: {returned}")
        channel.post(Stop())
        self._wait_for_end()
        for sock in (live, live_theirs):
            sock.close()
        channel.close()
        return float(spent)

    def _returned(self, channel: Channel) -> Returned:
        while True:
            for message in channel.receive(wait=True):
                if isinstance(message, Returned):
                    return message
            if channel.closed:
                raise RuntimeError("the worker ended without a result")

    def _wait_for_end(self) -> None:
        """Wait until the zygote has reported the worker's end, so that one start never meets another one's end."""
        ended = False
        while not ended:
            self._spawner.socket.recv(1, socket.MSG_PEEK)
            received = self._spawner.receive()
            if received is None:
                raise RuntimeError("the zygote ended")
            ended = any(isinstance(message, Ended) for message in received)


@contextmanager
def _forker() -> Iterator[Callable[[], float]]:
    """A process with the zygote's imports and frozen heap; each call returns how long a fork and exit took there."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.forker", str(theirs.fileno()), *PRELOAD],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
            stdin=subprocess.DEVNULL,
        )

    def bare_fork() -> float:
        begin = time.monotonic_ns()
        ours.send(b"f")
        ours.recv(1)
        return float(time.monotonic_ns() - begin)

    try:
        ours.recv(1)
        yield bare_fork
    finally:
        ours.close()
        process.wait()
