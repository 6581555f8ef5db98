"""`queues`: one client sends, receives and deletes, by boto3, a message at a time.

The limit is a server that does nothing: it knows the answers, and when a request ends. What is left is the client.
Beside it, where `CONFORMANCE_MOTO` names an environment with moto (tests/README.md), the same by moto's server.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.bench.figures import Figure, cpu_ns, interleave, median_pair, process_tree
from tests.bench.running import Kflow, data_folder, wait_for
from tests.bench.serving import port_of

_BODY = "x" * 100
_LENGTH = re.compile(rb"(?i)content-length: (\d+)")
_TARGET = re.compile(rb"(?i)x-amz-target: AmazonSQS\.(\w+)")


def queues(quick: bool) -> Iterator[Figure]:
    """SQS: send, receive and delete by one boto3 client; beside a server that does nothing, and beside moto's."""
    cycles, pairs = (50, 1) if quick else (200, 9)
    with data_folder() as folder, Kflow("serve", "--port", "0", "--data-dir", str(folder.path)) as kflow:
        ours = _Client(port_of(folder.path))
        with _bare() as port:
            bare = _Client(port)
            pair = median_pair(interleave(lambda: ours.rate(cycles), lambda: bare.rate(cycles), pairs))
        yield Figure(
            bench="send, receive, delete: over no work",
            value=pair.ours,
            limit=pair.limit,
            unit="a second",
            must=0.5,
            aim=0.8,
            more_is_better=True,
        )
        before = sum(map(cpu_ns, process_tree(kflow.pid)))
        ours.rate(cycles)
        spent = sum(map(cpu_ns, process_tree(kflow.pid))) - before
        yield Figure(bench="the same: server", value=spent / cycles / 3e3, unit="us CPU/call", must=None, aim=None)
        place = os.environ.get("CONFORMANCE_MOTO")
        if place:
            with _moto(Path(place)) as port:
                peer = _Client(port)
                pair = median_pair(interleave(lambda: ours.rate(cycles), lambda: peer.rate(cycles), pairs))
            yield Figure(
                bench="send, receive, delete: over moto",
                value=pair.ours,
                limit=pair.limit,
                unit="a second",
                must=3,
                aim=4,
                more_is_better=True,
            )


class _Client:
    """One boto3 client, and a queue of its own."""

    def __init__(self, port: int) -> None:
        self._sqs: Any = boto3.client(
            "sqs",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="bench",
            aws_secret_access_key="bench",  # nobody checks it
            config=Config(retries={"max_attempts": 0}),
        )
        self._url = self._sqs.create_queue(QueueName="bench")["QueueUrl"]
        self.rate(20)

    def rate(self, cycles: int) -> float:
        """Cycles of three calls a second."""
        sqs, url = self._sqs, self._url
        begin = time.perf_counter()
        for _ in range(cycles):
            sqs.send_message(QueueUrl=url, MessageBody=_BODY)
            (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return cycles / (time.perf_counter() - begin)


@contextmanager
def _bare() -> Iterator[int]:
    """A server of answers that are known, in a process of its own; its port."""
    code = "from tests.bench import queues; queues.serve_known()"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        yield int(child.stdout.readline())
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()


def serve_known() -> None:
    """Answer one connection after the other, until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_answer, args=(listener,), daemon=True).start()
    sys.stdin.read()


def _answer(listener: socket.socket) -> None:
    import hashlib

    digest = hashlib.md5(_BODY.encode(), usedforsecurity=False).hexdigest()
    message_id = "00000000-0000-4000-8000-000000000000"
    known = {
        b"CreateQueue": f'{{"QueueUrl":"http://127.0.0.1:{listener.getsockname()[1]}/000000000000/bench"}}',
        b"SendMessage": f'{{"MessageId":"{message_id}","MD5OfMessageBody":"{digest}"}}',
        b"ReceiveMessage": f'{{"Messages":[{{"MessageId":"{message_id}","ReceiptHandle":"{"r" * 48}",'
        f'"MD5OfBody":"{digest}","Body":"{_BODY}"}}]}}',
        b"DeleteMessage": "",
    }
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: "
    answers = {name: f"{head}{len(body)}\r\n\r\n{body}".encode() for name, body in known.items()}
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        while True:
            piece = connection.recv(65_536)
            if not piece:
                break
            data += piece
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                continue
            length = _LENGTH.search(data, 0, end)
            target = _TARGET.search(data, 0, end)
            assert length is not None
            assert target is not None
            if len(data) >= end + int(length[1]):
                data = data[end + int(length[1]) :]
                connection.sendall(answers[target[1]])
        connection.close()


@contextmanager
def _moto(place: Path) -> Iterator[int]:
    """moto's server; its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryFile() as output:
        command = [str(place / "bin" / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
        child = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_for(lambda: _answers(port), "moto")
            yield port
        finally:
            child.terminate()
            child.wait(10)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
