"""Runtime processes, workers and the node are killed: what counts as an attempt, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.runtime.lifeline import identify
from tests.deadline import eventually
from tests.lambdaing import ROLE, zipped
from tests.served import Served, served

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at by /proc")

CODE = """\
import json, os, subprocess, time
child = subprocess.Popen(["sleep", "300"], start_new_session=False).pid
def handler(event, context):
    with open(os.environ["SEEN"], "a") as file:
        file.write(json.dumps({"pid": os.getpid(), "child": child, "tmp": os.environ["TMPDIR"]}) + "\\n")
    while not os.path.exists(os.environ["GO"]):
        time.sleep(0.01)
"""
HANDLER = 'import kflow\n\n@kflow.on_stream("declared")\ndef declared(event, context):\n    pass\n'


class Lab:
    """A runtime, and one function that holds the only record of a stream until it is let go."""

    def __init__(self, endpoint: Served) -> None:
        self.endpoint = endpoint
        self.seen_file = endpoint.folder / "seen.jsonl"
        self.go = endpoint.folder / "go"
        self.client = endpoint.client(service="lambda")
        kinesis = endpoint.client(service="kinesis")
        variables = {"SEEN": str(self.seen_file), "GO": str(self.go)}
        self.client.create_function(
            FunctionName="holds",
            Runtime=f"python3.{sys.version_info.minor}",
            Role=ROLE,
            Handler="app.handler",
            Timeout=60,
            Code={"ZipFile": zipped({"app.py": CODE})},
            Environment={"Variables": variables},
        )
        self.client.get_waiter("function_active_v2").wait(FunctionName="holds", WaiterConfig={"Delay": 0})
        kinesis.create_stream(StreamName="orders", ShardCount=1)
        stream = eventually(lambda: self._active(kinesis))
        self.client.create_event_source_mapping(
            FunctionName="holds", EventSourceArn=stream, StartingPosition="TRIM_HORIZON", MaximumRetryAttempts=0
        )
        kinesis.put_record(StreamName="orders", Data=b"{}", PartitionKey="k")

    @staticmethod
    def _active(kinesis: Any) -> str | None:
        summary = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]
        return str(summary["StreamARN"]) if summary["StreamStatus"] == "ACTIVE" else None

    def attempt(self, number: int) -> dict[str, Any]:
        """What the handler noted at its n-th attempt, once it has begun."""
        eventually(lambda: len(self._seen()) >= number, seconds=30, what=f"attempt {number}")
        return dict(json.loads(self._seen()[number - 1]))

    def _seen(self) -> list[str]:
        return self.seen_file.read_text().splitlines() if self.seen_file.exists() else []

    def parked(self) -> list[Any]:
        """What was given up."""
        folder = DataFolder.open(self.endpoint.data_dir)
        return list(ParkedStore(folder.path, files=folder.files, fsync=folder.fsync).list())

    def log(self) -> str:
        return (self.endpoint.data_dir / "logs" / "holds.log").read_text()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "app.py").write_text(HANDLER)
    with served(tmp_path, command="run", KFLOW_RETRY_BACKOFF_SCALE="0") as endpoint:
        yield Lab(endpoint)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def guard_of(worker: int) -> int:
    """The shell that waits for a worker's end."""
    (found,) = [
        pid
        for pid in map(int, Path(f"/proc/{worker}/task/{worker}/children").read_text().split())
        if b"kflow-guard" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


def all_gone(noted: dict[str, Any]) -> bool:
    return identify(noted["pid"]) is None and identify(noted["child"]) is None and not os.path.exists(noted["tmp"])


def test_a_runtime_process_that_is_killed_is_an_attempt(lab: Lab) -> None:
    noted = lab.attempt(1)
    os.kill(noted["pid"], signal.SIGKILL)
    (entry,) = eventually(lab.parked, what="the record to be parked")
    assert entry.error.type == "Runtime.ExitError"
    assert entry.error.message.endswith(" Error: Runtime exited with error: signal: killed")
    eventually(lambda: identify(noted["child"]) is None, what="what the process had started to end")


def test_a_worker_that_is_killed_is_none_and_its_process_ends_with_it(lab: Lab) -> None:
    noted = lab.attempt(1)
    os.kill(parent(noted["pid"]), signal.SIGKILL)
    eventually(lambda: all_gone(noted), what="the processes of the first worker to end")
    again = lab.attempt(2)
    assert again["pid"] != noted["pid"]
    lab.go.touch()
    eventually(lambda: lab.log().count("REPORT") == 1, what="the second attempt to end")
    assert lab.parked() == []


def test_nothing_is_left_of_a_node_that_is_killed_and_the_next_one_goes_on(lab: Lab) -> None:
    noted = lab.attempt(1)
    lab.endpoint.process.kill()
    lab.endpoint.process.wait(30)
    eventually(lambda: all_gone(noted), what="all of its processes to end")
    lab.go.touch()
    lab.endpoint.start()
    lab.attempt(2)
    eventually(lambda: lab.log().count("REPORT") == 1, what="the second attempt to end")
    assert lab.parked() == []


def test_without_its_guard_the_process_still_ends_with_the_worker(lab: Lab) -> None:
    noted = lab.attempt(1)
    worker = parent(noted["pid"])
    os.kill(guard_of(worker), signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: identify(noted["pid"]) is None, what="the process to end")
    lab.go.touch()
    lab.attempt(2)
    os.kill(noted["child"], signal.SIGKILL)  # nobody was left to end it
    assert os.path.exists(noted["tmp"]), "nobody was left to remove it either"
    lab.endpoint.kill()
    lab.endpoint.start()
    assert not os.path.exists(noted["tmp"])
