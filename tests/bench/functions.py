"""`hosted`, `mapped`, `mappings`: functions that come as a zip and mappings that come by the API, in a served folder.

The function stamps clocks into a file that is mapped into memory; what it costs is the same beside its limit: a bare
loop that speaks the Runtime API to the same client with the same event.
"""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from kflow.broker.folder import DataFolder
from tests.bench.figures import Figure, cpu_ns, interleave, median_pair, percentile, process_tree
from tests.bench.running import Kflow, create_stream, data_folder, wait_for
from tests.bench.serving import port_of
from tests.bench.wire_client import Connection, put_requests, request

_STREAM = "bench"
_ROLE = "arn:aws:iam::123456789012:role/bench"
_BATCH = 100
_STAMPS = struct.Struct("3Q")

_STAMPING = """
import mmap, os, time

_file = os.open({out!r}, os.O_CREAT | os.O_RDWR)
os.ftruncate(_file, mmap.PAGESIZE)
_stamps = memoryview(mmap.mmap(_file, mmap.PAGESIZE)).cast("Q")


def handler(event, context):
    # the first invocation's start, this one's, records before it
    now = time.monotonic_ns()
    if not _stamps[0]:
        _stamps[0] = now
    else:
        _stamps[1] = now
        _stamps[2] += {batch}
"""

_TELLING = """
import base64, os, time

_file = os.open({out!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def handler(event, context):
    now = time.time_ns()
    for record in event["Records"]:
        sent = int(base64.b64decode(record["kinesis"]["data"]).split()[0])
        os.write(_file, b"%d\\n" % (now - sent))
"""


def hosted(quick: bool) -> Iterator[Figure]:
    """A stream's batches of 100 records to a zip function through `awslambdaric`, over a bare Runtime API loop."""
    count = 2_000 if quick else 20_000
    pair = median_pair(interleave(lambda: _by_mapping(count), lambda: _by_bare_loop(count), 1 if quick else 5))
    yield Figure(
        bench="hosted python, batch 100 x 100 B",
        value=pair.ours / 1e3,
        limit=pair.limit / 1e3,
        unit="k records/s",
        must=0.7,
        aim=0.9,
        more_is_better=True,
    )


def mapped(quick: bool) -> Iterator[Figure]:
    """From PutRecord to a zip function by a mapping of the API, one record at a time."""
    with _served() as (folder, lambda_, port):
        out = folder.path.parent / "told"
        _make(lambda_, "telling", _TELLING.format(out=os.fspath(out)))
        _map(lambda_, "telling", _STREAM)
        connection = Connection(port)
        count = 20 if quick else 500
        for number in range(count + 20):
            data = base64.b64encode(b"%d x" % time.time_ns()).decode()
            record = {"StreamName": _STREAM, "PartitionKey": f"k{number}", "Data": data}
            connection.call(request(port, "PutRecord", record))
            wait_for(lambda number=number: out.exists() and out.read_bytes().count(b"\n") > number, "the function")  # type: ignore[misc]  # bound now
        took = sorted(int(each) / 1e6 for each in out.read_text().split()[20:])
    for name, share, must in (("p50", 0.5, 3.0), ("p99", 0.99, 8.0)):
        yield Figure(
            bench=f"put -> zip function {name}", value=percentile(took, share), unit="ms", must=must, aim=must / 4
        )


def mappings(quick: bool) -> Iterator[Figure]:
    """CPU of all processes in 10 s with 1,000 mappings and nothing to do."""
    streams, functions, seconds = (4, 5, 0.5) if quick else (40, 25, 10.0)
    with data_folder() as folder:
        for number in range(streams):
            create_stream(folder, f"s{number}", 1)
        with _serving(folder) as (lambda_, _):
            for function in range(functions):
                _make(lambda_, f"f{function}", "def handler(event, context):\n    pass\n")
            for function in range(functions):
                for stream in range(streams):
                    _map(lambda_, f"f{function}", f"s{stream}", wait=False)
            _wait_enabled(lambda_)
            pid = _pid_of(folder)
            time.sleep(2.0)  # what was asked for last (syncs, catalogues) is not idling yet
            before = sum(map(cpu_ns, process_tree(pid)))
            time.sleep(seconds)
            spent = sum(map(cpu_ns, process_tree(pid))) - before
    yield Figure(
        bench=f"{streams * functions} mappings, idle {seconds:g} s", value=spent / 1e6, unit="ms CPU", must=100, aim=10
    )


# ---------------------------------------------------------------------- kflow


def _pid_of(folder: DataFolder) -> int:
    return int(json.loads(_get(port_of(folder.path), "/_kflow/health"))["pid"])


def _get(port: int, path: str) -> bytes:
    with closing(socket.create_connection(("127.0.0.1", port))) as peer:
        peer.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: peer.recv(1 << 16), b"")).partition(b"\r\n\r\n")[2]


@contextmanager
def _serving(folder: DataFolder) -> Iterator[tuple[Any, int]]:
    """`kflow serve` on a folder: boto3's client of Lambda, and the port."""
    import boto3

    with Kflow("serve", "--port", "0"):
        port = port_of(folder.path)
        client = boto3.client(
            "lambda",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="AKIAKFLOWBENCH000000",
            aws_secret_access_key="x",  # any does
        )
        with closing(client):
            yield client, port


@contextmanager
def _served() -> Iterator[tuple[DataFolder, Any, int]]:
    with data_folder() as folder:
        create_stream(folder, _STREAM, 1)
        with _serving(folder) as (client, port):
            yield folder, client, port


def _make(client: Any, name: str, source: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", source)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    client.create_function(
        FunctionName=name,
        Runtime=version,
        Handler="app.handler",
        Role=_ROLE,
        Timeout=30,
        Code={"ZipFile": packed.getvalue()},
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})


def _map(client: Any, function: str, stream: str, *, wait: bool = True) -> None:
    account = client.get_function_configuration(FunctionName=function)["FunctionArn"].split(":")[4]
    client.create_event_source_mapping(
        FunctionName=function,
        EventSourceArn=f"arn:aws:kinesis:us-east-1:{account}:stream/{stream}",
        BatchSize=_BATCH,
        StartingPosition="TRIM_HORIZON",
    )
    if wait:
        _wait_enabled(client)


def _wait_enabled(client: Any) -> None:
    def all_enabled() -> bool:
        pages = client.get_paginator("list_event_source_mappings").paginate()
        return all(each["State"] == "Enabled" for page in pages for each in page["EventSourceMappings"])

    wait_for(all_enabled, "the mappings to be Enabled")


def _rate(out: Path, count: int) -> float:
    """Records a second, between the first stamp and the last."""

    def stamps() -> tuple[int, int, int]:
        return _STAMPS.unpack_from(out.read_bytes()) if out.exists() and out.stat().st_size else (0, 0, 0)

    wait_for(lambda: stamps()[2] >= count - _BATCH, "the function to have seen all records")
    first, last, records = stamps()
    return records / (last - first) * 1e9


def _by_mapping(count: int) -> float:
    with _served() as (folder, client, port):
        out = folder.path.parent / "stamps"
        connection = Connection(port)
        for sent in put_requests(port, _STREAM, count=500, size=100, variants=count // 500):
            connection.call(sent)
        _make(client, "stamping", _STAMPING.format(out=os.fspath(out), batch=_BATCH))
        _map(client, "stamping", _STREAM, wait=False)
        return _rate(out, count)


# ---------------------------------------------------------------------- the limit


def _by_bare_loop(count: int) -> float:
    """The same client and function, fed with one event by a loop that does nothing else."""
    with data_folder() as folder:
        code = folder.path.parent / "code"
        code.mkdir()
        out = folder.path.parent / "stamps"
        (code / "app.py").write_text(_STAMPING.format(out=os.fspath(out), batch=_BATCH))
        event = _event()
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            "Lambda-Runtime-Aws-Request-Id: 6b1f0a3e-0000-4000-8000-000000000000\r\n"
            "Lambda-Runtime-Deadline-Ms: 4102444800000\r\n"
            "Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:123456789012:function:stamping\r\n\r\n"
        )
        answer = (head % len(event)).encode() + event
        with socket.create_server(("127.0.0.1", 0)) as server:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            child = subprocess.Popen(
                [sys.executable, "-m", "awslambdaric", "app.handler"],
                cwd=code,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": os.fspath(code),
                    "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.getsockname()[1]}",
                    "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            try:
                peer, _ = server.accept()
                with peer:
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for _ in range(count // _BATCH):
                        _receive(peer)
                        peer.sendall(answer)
                        _receive(peer)
                        peer.sendall(b'HTTP/1.1 202 Accepted\r\nContent-Length: 15\r\n\r\n{"status":"OK"}')
                return _rate(out, count)
            finally:
                child.kill()
                child.wait()


def _receive(peer: socket.socket) -> None:
    """One request: its head, and as much of a body as the head says."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += peer.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    lower = head.lower()
    at = lower.find(b"content-length:")
    length = int(lower[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
    while len(body) < length:
        body += peer.recv(1 << 16)


def _event() -> bytes:
    records = [
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": f"user-{number}",
                "sequenceNumber": f"{49590338271490256608559692538361571095921575989136588898 + number}",
                "data": base64.b64encode(os.urandom(100)).decode(),
                "approximateArrivalTimestamp": 1545084650.987,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"shardId-000000000000:{49590338271490256608559692538361571095921575989136588898 + number}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": _ROLE,
            "awsRegion": "us-east-1",
            "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/bench",
        }
        for number in range(_BATCH)
    ]
    return json.dumps({"Records": records}, separators=(",", ":")).encode()
