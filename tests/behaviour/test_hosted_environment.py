"""One environment of a function by itself, in a process that a test speaks with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.runtime.lifeline import identify
from tests.deadline import eventually

HOST = """\
import json, os, sys, uuid
from kflow.declarations import Handler, HandlerForm, Package
from kflow.runtime.worker.hosted import environment
from kflow.runtime.messages import Invoke, WorkerSpec

class Channel:
    sent = 0
    def send(self, *messages):
        told.extend("starts" if each.initialising else "runs" for each in messages)

answers, told = os.dup(1), []
asked = json.loads(sys.argv[1])
environment.INIT_S = asked["init_s"]
package = Package(function="f", version="$LATEST", runtime="python3.%d" % sys.version_info.minor, entry="app.handler",
                  code=asked["code"], account="123456789012", region="us-east-1")
handler = Handler(name="f", file="", line=0, root="", module="", qualname="", form=HandlerForm.EVENT, package=package)
spec = WorkerSpec(worker=1, handler=handler, data_dir=asked["data"], maps=(), epoch=1, previous_epoch_clean=True,
                  region="us-east-1", account="123456789012", retry_backoff_scale=0, timeout_s=asked["timeout_s"],
                  memory_mb=256, environment={})
place = environment.HostedEnvironment(spec, Channel())
for line in sys.stdin:
    told.clear()
    done = place.call(Invoke(1, uuid.uuid4().bytes, line.encode(), "arn:f", "", True))
    error, log = done.error and done.error.type, done.log.decode()
    said = {"payload": done.payload.decode(), "error": error, "log": log, "told": told}
    os.write(answers, json.dumps(said).encode() + b"\\n")
place.close()
"""
CODE = """\
import os, sys, threading, time
time.sleep({at_import})
def handler(event, context):
    if "print" in event:
        print("x" * event["print"])
    if "stray" in event:
        import subprocess
        return {{"pid": os.getpid(), "stray": subprocess.Popen(["sleep", "300"], start_new_session=True).pid}}
    if "leave" in event:
        threading.Timer(0.05, os._exit, [9]).start()
    return {{"pid": os.getpid(), "length": len(event.get("text", ""))}}
"""


class Host:
    """The process, and what it is asked."""

    def __init__(self, folder: Path, *, at_import: float = 0, init_s: float = 10, timeout_s: int = 20) -> None:
        self.folder = folder
        (folder / "code").mkdir()
        (folder / "code" / "app.py").write_text(CODE.format(at_import=at_import))
        given = {"code": str(folder / "code"), "data": str(folder), "init_s": init_s, "timeout_s": timeout_s}
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOST, json.dumps(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def invoke(self, **event: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(event) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        return {**said, "payload": json.loads(said["payload"])}

    def log(self) -> str:
        return (self.folder / "logs" / "f.log").read_text()

    def close(self) -> None:
        """End it politely, once."""
        if self._process.returncode is not None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        assert self._process.wait(30) == 0


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Any]:
    made: list[Host] = []

    def make(**options: Any) -> Host:
        made.append(Host(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_start_that_takes_too_long_is_made_again_inside_the_invocation(hosts: Any) -> None:
    host = hosts(at_import=0.7, init_s=0.2)
    said = host.invoke()
    assert said["error"] is None
    assert said["told"] == ["starts", "runs"]
    assert "INIT_REPORT Init Duration: 200.00 ms\tPhase: init\tStatus: timeout\n" in host.log()
    assert host.log().count("INIT_START") == 2
    assert host.invoke()["told"] == ["runs"]


def test_a_start_that_takes_longer_than_the_function_may_is_a_timeout(hosts: Any) -> None:
    host = hosts(at_import=30, init_s=0.1, timeout_s=1)
    said = host.invoke()
    assert said["error"] == "Sandbox.Timedout"
    assert said["payload"]["errorMessage"].endswith(" Error: Task timed out after 1.00 seconds")


def test_events_of_the_largest_size_arrive_whole(hosts: Any) -> None:
    host = hosts()
    assert host.invoke(text="x" * 6_000_000)["payload"]["length"] == 6_000_000
    assert host.invoke(text="ä" * 1_000)["payload"]["length"] == 1_000


def test_who_prints_more_than_a_pipe_holds_is_not_stuck_and_of_its_log_the_end_is_told(hosts: Any) -> None:
    host = hosts()
    said = host.invoke(print=3_000_000)
    assert said["error"] is None
    assert len(said["log"].encode()) == 4096
    assert said["log"].startswith("xxx")
    assert "\nREPORT RequestId: " in said["log"]
    assert host.log().count("x" * 3_000_000) == 1


def test_a_process_that_ends_between_two_invocations_costs_none(hosts: Any) -> None:
    host = hosts()
    first = host.invoke()["payload"]["pid"]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: identify(first) is None, what="the process to end")
    said = host.invoke()
    assert said["error"] is None
    assert said["payload"]["pid"] != first
    left = host.invoke(leave=1)["payload"]["pid"]
    eventually(lambda: identify(left) is None, what="the process to end by itself")
    assert host.invoke()["error"] is None


def test_nothing_is_left_when_the_worker_ends(hosts: Any, tmp_path: Path) -> None:
    host = hosts()
    pid = host.invoke()["payload"]["pid"]
    assert (tmp_path / "run" / "tmp" / "1-1").is_dir()
    host.close()
    assert identify(pid) is None
    assert not (tmp_path / "run" / "tmp" / "1-1").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="descendants are found by /proc")
def test_what_a_function_started_in_a_session_of_its_own_ends_with_it(hosts: Any) -> None:
    host = hosts()
    stray = host.invoke(stray=1)["payload"]["stray"]
    assert identify(stray) is not None
    host.close()
    eventually(lambda: identify(stray) is None, what="what it had started to end")
