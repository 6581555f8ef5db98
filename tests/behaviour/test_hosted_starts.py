"""How runtime processes start, and what is told where they do not: with AWS's client of the Runtime API and ours."""

from __future__ import annotations

import importlib.util
import json
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from kflow.broker.folder import DataFolder
from kflow.declarations import Package, sourceless
from kflow.runtime.messages import Channel, Invoke, Invoked
from kflow.runtime.worker.hosted.environment import HostedEnvironment
from tests.specs import worker_spec

OWN = f"python3.{sys.version_info.minor}"
HAS_CLIENT = importlib.util.find_spec("awslambdaric") is not None
CODE = """\
import logging
calls = 0
def handler(event, context):
    global calls
    calls += 1
    if event.get("raise"):
        raise ValueError(event["raise"])
    if event.get("log"):
        try:
            {}["missing"]
        except KeyError:
            logging.getLogger("shop").error("caught %d", 1, exc_info=True, extra={"order": 7})
    if event.get("debug"):
        logging.getLogger("shop").info("told")
        logging.getLogger("shop").debug("not told")
    if event.get("bytes"):
        return b'{"raw": 1}'
    return {"calls": calls}
"""
Start = Callable[..., HostedEnvironment]


class Node:
    """The other side of the worker's channel, where nobody listens."""

    sent = 0

    def send(self, *messages: Any) -> None:
        self.sent += len(messages)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Makes environments of functions."""
    made: list[HostedEnvironment] = []
    data = tmp_path / "data"
    DataFolder.open(data, create=True, fsync="none")

    def begin(
        files: dict[str, str],
        entry: str = "app.handler",
        runtime: str = OWN,
        variables: dict[str, str] | None = None,
        **package: Any,
    ) -> HostedEnvironment:
        code = tmp_path / "code"
        code.mkdir()
        for name, text in files.items():
            (code / name).write_text(text)
            (code / name).chmod(stat.S_IRWXU)
        made_of = Package(function="f", version="$LATEST", runtime=runtime, entry=entry, code=str(code), **package)
        spec = worker_spec(
            sourceless("f", made_of), data_dir=str(data), timeout_s=30, memory_mb=256, environment=variables or {}
        )
        made.append(HostedEnvironment(spec, cast("Channel", Node())))
        return made[-1]

    yield begin
    for each in made:
        each.close()


@pytest.fixture(params=["awslambdaric", "own"])
def variables(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """With these a Python function runs by AWS's client, or by kflow's own."""
    if request.param == "own":
        hidden = tmp_path / "hidden"
        hidden.mkdir()
        (hidden / "runtime_client.py").write_text("raise ImportError('hidden')\n")
        return {"PYTHONPATH": str(hidden)}
    if not HAS_CLIENT:
        pytest.skip("awslambdaric is not installed: pip install 'kflow-streams[ric]'")
    return {}


def call(function: HostedEnvironment, **event: Any) -> tuple[Any, str]:
    """What it returned, and what it logged."""
    request = Invoke(
        number=1,
        request_id=uuid.uuid4().bytes,
        payload=json.dumps(event).encode(),
        arn="",
        client_context="",
        tail=True,
    )
    answer: Invoked = function.call(request)
    return json.loads(answer.payload), answer.log.decode(errors="replace")


@pytest.mark.parametrize(
    ("files", "entry", "kind", "message"),
    [
        (
            {"app.py": CODE},
            "app.missing",
            "Runtime.HandlerNotFound",
            "Handler 'missing' missing on module 'app'",
        ),
        (
            {"app.py": CODE},
            "app",
            "Runtime.MalformedHandlerName",
            "Bad handler 'app': not enough values to unpack (expected 2, got 1)",
        ),
        (
            {"app.py": CODE},
            "sys.handler",
            "Runtime.BuiltInModuleConflict",
            "Cannot use built-in module sys as a handler module",
        ),
        ({"app.py": "raise KeyError('TABLE')\n"}, "app.handler", "KeyError", "'TABLE'"),
    ],
)
def test_what_is_wrong_with_a_handler_is_said_in_lambdas_words(
    start: Start, variables: dict[str, str], files: dict[str, str], entry: str, kind: str, message: str
) -> None:
    said, _ = call(start(files, entry, variables=variables))
    assert (said["errorType"], said["errorMessage"], said["requestId"]) == (kind, message, "")


def test_an_exit_at_import_is_told_as_one_each_time(start: Start) -> None:
    function = start({"app.py": "import sys\nsys.exit(0)\n"})
    said, log = call(function)
    assert said["errorType"] == "Runtime.ExitError"
    assert said["errorMessage"].endswith(" Error: Runtime exited without providing a reason")
    assert list(said) == ["errorType", "errorMessage"]
    assert "\tPhase: init\tStatus: error\tError Type: Runtime.ExitError\n" in log
    again, log = call(function)
    assert (again["errorType"], log.count("INIT_START")) == ("Runtime.ExitError", 1)


def test_a_segmentation_fault_at_the_start_is_told_as_a_timeout(start: Start) -> None:
    said, log = call(start({"bootstrap": "#!/bin/sh\nkill -SEGV $$\n"}, runtime="provided.al2023"))
    assert said["errorType"] == "Sandbox.Timedout"
    assert said["errorMessage"].endswith(" Error: Task timed out after 30.00 seconds")
    assert list(said) == ["errorType", "errorMessage"]
    assert "signal: segmentation fault" in log


def test_an_error_of_hundreds_of_kilobytes_comes_whole_and_the_last_4_kb_of_its_log(
    start: Start, variables: dict[str, str]
) -> None:
    function = start({"app.py": CODE}, variables=variables)
    said, log = call(function, **{"raise": "x" * 400_000})
    assert said["errorMessage"] == "x" * 400_000
    assert call(function)[0]["calls"] == 2
    assert len(log.encode()) == 4096
    assert log.endswith(" ms\t\n")


def test_bytes_are_the_response_as_they_are(start: Start, variables: dict[str, str]) -> None:
    said, _ = call(start({"app.py": CODE}, variables=variables), bytes=1)
    assert said == {"raw": 1}


def test_errors_in_a_log_of_json_have_lambdas_members(start: Start, variables: dict[str, str]) -> None:
    function = start({"app.py": CODE}, variables=variables, log_format="JSON", log_level="INFO")
    _, log = call(function, log=1)
    (caught,) = [found for found in objects(log) if found.get("logger") == "shop"]
    assert {name: caught[name] for name in ("level", "message", "errorType", "errorMessage", "order")} == {
        "level": "ERROR",
        "message": "caught 1",
        "errorType": "KeyError",
        "errorMessage": "'missing'",
        "order": 7,
    }
    assert isinstance(caught["stackTrace"], list)
    assert caught["location"].endswith("/app.py:handler:12")

    _, log = call(function, **{"raise": "no"})
    (raised,) = [found for found in objects(log) if found.get("errorType") == "ValueError"]
    assert set(raised) == {"timestamp", "level", "errorMessage", "errorType", "requestId", "stackTrace"}
    assert (raised["level"], raised["errorMessage"]) == ("ERROR", "no")

    _, log = call(function, debug=1)
    assert [found["message"] for found in objects(log) if found.get("logger") == "shop"] == ["told"]


def objects(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]
