"""`http-put`, `http-get`, `http-push`, `serve`: what the endpoint costs, by the CPU clocks of its processes.

The load comes from this process, encoded beforehand, so that it costs the server nothing. Beside the figures that are
judged by themselves stand limits: a loop that reads the same requests and sends canned answers, and the bare base64 of
what is read.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.figures import Figure, cpu_ns, median, own_cpu_ns, percentile, process_tree
from tests.bench.running import Kflow, create_stream, data_folder, wait_for
from tests.bench.wire_client import Connection, ask, load, put_requests, request

_STREAM = "bench"


class _Endpoint:
    """`kflow serve` on a data folder, and what its processes spend."""

    def __init__(self, data_dir: Path, port: int, pid: int) -> None:
        self.data_dir = data_dir
        self.port = port
        self._pid = pid

    def cpu_ns(self) -> int:
        return sum(map(cpu_ns, process_tree(self._pid)))

    def memory_kib(self) -> int:
        """Proportional set size of the process tree."""
        total = 0
        for pid in process_tree(self._pid):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total


@contextmanager
def _endpoint(shards: int = 4) -> Iterator[_Endpoint]:
    """A served folder with one stream."""
    with data_folder() as folder:
        create_stream(folder, _STREAM, shards)
        with Kflow("serve", "--port", "0") as kflow:
            yield _Endpoint(folder.path, port_of(folder.path), kflow.pid)


def port_of(data_dir: Path) -> int:
    """The port that a node serves on, as soon as it does."""
    path = data_dir / "endpoint"
    wait_for(lambda: path.exists() and path.read_text().strip(), "the endpoint")
    return int(path.read_text().strip().rsplit(":", 1)[1].rstrip("/"))


def http_put(quick: bool) -> Iterator[Figure]:
    """Server CPU of PutRecords and PutRecord, and of PutRecord behind 10 million records."""
    rounds = 3 if quick else 9
    with _endpoint() as endpoint:
        calls = 20 if quick else 200
        for count, size, must in ((500, 100, 2.5), (100, 1024, None)):
            requests = put_requests(endpoint.port, _STREAM, count=count, size=size, variants=20)
            load(endpoint.port, requests, connections=4, count=len(requests))
            spent = []
            for _ in range(rounds):
                before = endpoint.cpu_ns()
                load(endpoint.port, requests, connections=4, count=calls)
                spent.append((endpoint.cpu_ns() - before) / calls / count / 1e3)
            yield Figure(
                bench=f"http-put {count} x {size} B", value=median(spent), unit="us CPU/record", must=must, aim=None
            )
        single = put_requests(endpoint.port, _STREAM, count=1, size=100, variants=200)
        calls = 200 if quick else 4000
        answer = Connection(endpoint.port).call(single[0])
        load(endpoint.port, single, connections=8, count=200)
        pairs = []
        with _canned(len(answer)) as (canned_port, canned_pid):
            for _ in range(rounds):
                before = endpoint.cpu_ns()
                load(endpoint.port, single, connections=8, count=calls)
                ours = endpoint.cpu_ns() - before
                before = cpu_ns(canned_pid)
                load(canned_port, single, connections=8, count=calls)
                pairs.append((ours / calls / 1e3, (cpu_ns(canned_pid) - before) / calls / 1e3))
        ranked = sorted(pairs, key=lambda pair: pair[0] / pair[1])
        ours, limit = ranked[len(ranked) // 2]
        yield Figure(bench="http-put 1 x 100 B", value=ours, unit="us CPU/request", must=81.0, aim=60.0)
        yield Figure(
            bench="http-put 1 x 100 B, over a canned answer",
            value=ours,
            limit=limit,
            unit="us CPU/request",
            must=None,
            aim=None,
        )
        filling = put_requests(endpoint.port, _STREAM, count=500, size=100, variants=20)
        load(endpoint.port, filling, connections=4, count=200 if quick else 20_000)
        behind = []
        for _ in range(rounds):
            before = endpoint.cpu_ns()
            load(endpoint.port, single, connections=8, count=calls)
            behind.append((endpoint.cpu_ns() - before) / calls / 1e3)
        yield Figure(
            bench="http-put 1 x 100 B, behind 10 M records",
            value=median(behind),
            limit=ours,
            unit="us CPU/request",
            must=1.15,
            aim=1.0,
        )


def http_get(quick: bool) -> Iterator[Figure]:
    """Server CPU of GetRecords while a backlog is drained, over the bare base64 of its data."""
    puts = 40 if quick else 400
    with _endpoint(shards=1) as endpoint:
        requests = put_requests(endpoint.port, _STREAM, count=500, size=100, variants=20)
        load(endpoint.port, requests, connections=2, count=puts)
        spent = []
        for _ in range(3 if quick else 7):
            before = endpoint.cpu_ns()
            got = _drain(endpoint.port, puts * 500)
            spent.append((endpoint.cpu_ns() - before) / got / 1e3)
        datas = [os.urandom(100) for _ in range(10_000)]
        begin = own_cpu_ns()
        for data in datas:
            base64.b64encode(data)
        limit = (own_cpu_ns() - begin) / len(datas) / 1e3
        yield Figure(bench="http-get", value=median(spent), unit="us CPU/record", must=2.0, aim=1.0)
        yield Figure(
            bench="http-get, over bare base64",
            value=median(spent),
            limit=limit,
            unit="us CPU/record",
            must=None,
            aim=None,
        )


def _drain(port: int, total: int) -> int:
    """Read a shard from its beginning until `total` records were seen."""
    connection = Connection(port)
    token = ask(
        port, "GetShardIterator", StreamName=_STREAM, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    got = 0
    while got < total:
        body = connection.call(request(port, "GetRecords", {"ShardIterator": token, "Limit": 10_000}))
        got += body.count(b'"SequenceNumber"')
        token = json.loads(body)["NextShardIterator"]
    connection.close()
    return got


def http_push(quick: bool) -> Iterator[Figure]:
    """From the put to the record, by GetRecords and by SubscribeToShard, milliseconds on the wall clock."""
    turns = 50 if quick else 1000
    with _endpoint(shards=1) as endpoint:
        port = endpoint.port
        put = put_requests(port, _STREAM, count=1, size=100, variants=1)[0]
        putter, getter = Connection(port), Connection(port)
        putter.call(put)
        token = ask(
            port, "GetShardIterator", StreamName=_STREAM, ShardId="shardId-000000000000", ShardIteratorType="LATEST"
        )["ShardIterator"]
        polled = []
        for _ in range(turns):
            begin = time.perf_counter()
            putter.call(put)
            seen = False
            while not seen:
                body = getter.call(request(port, "GetRecords", {"ShardIterator": token, "Limit": 100}))
                seen = b'"SequenceNumber"' in body
                token = json.loads(body)["NextShardIterator"]
            polled.append((time.perf_counter() - begin) * 1e3)
        yield Figure(bench="put -> GetRecords p50", value=median(polled), unit="ms", must=0.7, aim=0.3)
        yield Figure(bench="put -> GetRecords p99", value=percentile(polled, 0.99), unit="ms", must=3.0, aim=1.0)
        pushed = _pushed(port, put, putter, turns)
        yield Figure(bench="put -> SubscribeToShard p50", value=median(pushed), unit="ms", must=2.0, aim=0.5)
        yield Figure(bench="put -> SubscribeToShard p99", value=percentile(pushed, 0.99), unit="ms", must=10.0, aim=2.0)


def _pushed(port: int, put: bytes, putter: Connection, turns: int) -> list[float]:
    summary = ask(port, "DescribeStreamSummary", StreamName=_STREAM)["StreamDescriptionSummary"]
    made = ask(port, "RegisterStreamConsumer", StreamARN=summary["StreamARN"], ConsumerName="pushed")["Consumer"]
    arn = made["ConsumerARN"]

    def is_active() -> bool:
        found = ask(port, "DescribeStreamConsumer", ConsumerARN=arn)["ConsumerDescription"]
        return bool(found["ConsumerStatus"] == "ACTIVE")

    wait_for(is_active, "the consumer")
    subscriber = socket.create_connection(("127.0.0.1", port), 30)
    members = {"ConsumerARN": arn, "ShardId": "shardId-000000000000", "StartingPosition": {"Type": "LATEST"}}
    subscriber.sendall(request(port, "SubscribeToShard", members))
    received = b""
    while b"initial-response" not in received:
        received += subscriber.recv(1 << 16)
    found = []
    for _ in range(turns):
        begin = time.perf_counter()
        putter.socket.sendall(put)
        event = b""
        while b'"SequenceNumber"' not in event:
            piece = subscriber.recv(1 << 16)
            if not piece:
                raise ConnectionError("the subscription has ended")
            event += piece
        found.append((time.perf_counter() - begin) * 1e3)
        while putter.feed() is None:
            pass
    subscriber.close()
    return found


def serve(quick: bool) -> Iterator[Figure]:
    """`kflow serve`: from its start to the first answer, and the memory that it holds then."""
    starts, memory = [], []
    for _ in range(2 if quick else 9):
        with data_folder() as folder:
            begin = time.perf_counter()
            with Kflow("serve", "--port", "0") as kflow:
                path = folder.path / "endpoint"
                while not (path.exists() and path.read_text().strip()):
                    time.sleep(0.001)
                port = port_of(folder.path)
                ask(port, "ListStreams")
                starts.append(time.perf_counter() - begin)
                memory.append(_Endpoint(folder.path, port, kflow.pid).memory_kib() / 1024)
    yield Figure(bench="serve: start to first ListStreams", value=median(starts), unit="s", must=0.4, aim=0.3)
    yield Figure(bench="serve: memory after it", value=median(memory), unit="MiB PSS", must=40.0, aim=30.0)


@contextmanager
def _canned(length: int) -> Iterator[tuple[int, int]]:
    """A process that reads requests and answers each with as many bytes as the endpoint's answer has."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n%s"
    listener = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(
        target=_answer_all, args=(listener, answer % (length, b"x" * length)), daemon=True
    )
    process.start()
    port = listener.getsockname()[1]
    listener.close()
    assert process.pid is not None
    try:
        yield port, process.pid
    finally:
        process.terminate()
        process.join()


def _answer_all(listener: socket.socket, answer: bytes) -> None:
    poller = select.epoll()
    poller.register(listener.fileno(), select.EPOLLIN)
    opened: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                opened[accepted.fileno()] = accepted
                poller.register(accepted.fileno(), select.EPOLLIN)
            elif opened[fd].recv(1 << 16):
                opened[fd].send(answer)
            else:
                poller.unregister(fd)
                opened.pop(fd).close()
