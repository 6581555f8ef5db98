"""The AWS CLI and functions, their logs and their metrics: zips and payloads as files, as people give them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance import tools
from tests.conformance.sdk import environment
from tests.deadline import eventually
from tests.lambdaing import ARN, ROLE, zipped
from tests.served import ACCOUNT, Served, served

HOUR = timedelta(hours=1)
CODE = """\
import json
def handler(event, context):
    for record in event.get("Records", ()):
        print("record", record["kinesis"]["partitionKey"])
    print("héllo", json.dumps(event, ensure_ascii=False))
    if event.get("fail"):
        raise ValueError("nö")
    return {"got": event, "id": context.aws_request_id}
"""


class Shell:
    """A shell where `eval "$(kflow env)"` was run."""

    def __init__(self, endpoint: Served) -> None:
        self._aws = tools.place_of(tools.AWS_CLI) / tools.AWS_CLI.path
        self.folder = endpoint.folder
        self._environment = {**environment(endpoint), "AWS_PAGER": "", "PYTHONIOENCODING": "utf-8"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`aws ...`, to its end."""
        return subprocess.run(
            [str(self._aws), *arguments],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def text(self, *arguments: str) -> str:
        """What a command prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stderr}"
        return done.stdout

    def aws(self, *arguments: str) -> Any:
        """What a command answers."""
        return json.loads(self.text(*arguments))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    tools.place_of(tools.AWS_CLI)
    with served(tmp_path_factory.mktemp("cli-functions")) as made:
        found = Shell(made)
        (found.folder / "code.zip").write_bytes(zipped({"app.py": CODE}))
        created = found.aws(
            *("lambda", "create-function", "--function-name", "f", "--zip-file", "fileb://code.zip", "--role", ROLE),
            *("--runtime", f"python3.{sys.version_info.minor}", "--handler", "app.handler"),
            *("--environment", "Variables={GREETING=grüß}", "--publish"),
        )
        assert (created["FunctionArn"], created["Version"]) == (f"{ARN}:f:1", "1")
        yield found


def test_a_function_is_invoked_and_its_payloads_are_files(shell: Shell) -> None:
    (shell.folder / "event.json").write_text('{"ключ": "☃"}')
    answer = shell.aws("lambda", "invoke", "--function-name", "f", "--payload", "fileb://event.json", "out.json")
    assert answer == {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
    assert json.loads((shell.folder / "out.json").read_bytes())["got"] == {"ключ": "☃"}
    failed = shell.aws("lambda", "invoke", "--function-name", "f", "--payload", '{"fail":1}', "out.json")
    assert failed["FunctionError"] == "Unhandled"
    assert json.loads((shell.folder / "out.json").read_bytes())["errorMessage"] == "nö"
    missing = shell.run("lambda", "invoke", "--function-name", "nobody", "out.json")
    assert missing.returncode in {254, 255}
    assert (
        f"(ResourceNotFoundException) when calling the Invoke operation: Function not found: {ARN}:nobody:$LATEST"
        in (missing.stderr)
    )


def test_what_it_printed_is_found_and_what_it_did_is_counted(shell: Shell) -> None:
    shell.text("lambda", "invoke", "--function-name", "f:1", "--payload", '{"find": "me"}', "out.json")
    # what `aws logs tail` of version 2 calls
    told = ("logs", "filter-log-events", "--log-group-name", "/aws/lambda/f", "--query", "events[].message")
    (found,) = shell.aws(*told, "--filter-pattern", "find")
    assert found.rstrip() == 'héllo {"find": "me"}'
    metric = {
        "Namespace": "AWS/Lambda",
        "MetricName": "Invocations",
        "Dimensions": [{"Name": "FunctionName", "Value": "f"}],
    }
    query = [{"Id": "a", "MetricStat": {"Metric": metric, "Period": 3600, "Stat": "Sum"}}]
    (shell.folder / "query.json").write_text(json.dumps(query))
    now = datetime.now(UTC)
    times = ("--start-time", (now - HOUR).isoformat(), "--end-time", (now + HOUR).isoformat())

    def counted() -> float:
        told = ("cloudwatch", "get-metric-data", "--metric-data-queries", "file://query.json", *times)
        return sum(shell.aws(*told)["MetricDataResults"][0]["Values"])

    eventually(lambda: counted() >= 1, seconds=60, what="the invocation to be counted")


def test_a_stream_is_mapped_to_it_and_changed(shell: Shell) -> None:
    shell.text("kinesis", "create-stream", "--stream-name", "orders", "--shard-count", "1")
    source = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/orders"
    made = shell.aws(
        *("lambda", "create-event-source-mapping", "--function-name", "f", "--event-source-arn", source),
        *("--starting-position", "TRIM_HORIZON", "--batch-size", "10"),
    )
    shell.text("kinesis", "put-record", "--stream-name", "orders", "--partition-key", "k-1", "--data", "eA==")
    log = shell.folder / ".kflow" / "logs" / "f.log"
    eventually(lambda: log.exists() and "record k-1" in log.read_text(), seconds=60, what="the record to arrive")
    uuid = ("--uuid", made["UUID"])
    changed = shell.aws("lambda", "update-event-source-mapping", *uuid, "--batch-size", "7", "--no-enabled")
    assert (changed["BatchSize"], changed["FunctionArn"]) == (7, f"{ARN}:f")
    (listed,) = shell.aws("lambda", "list-event-source-mappings", "--function-name", "f")["EventSourceMappings"]
    assert listed["UUID"] == made["UUID"]


def test_its_code_is_changed(shell: Shell) -> None:
    (shell.folder / "new.zip").write_bytes(zipped({"app.py": "def handler(event, context):\n    return 'new'\n"}))
    shell.text("lambda", "update-function-code", "--function-name", "f", "--zip-file", "fileb://new.zip")
    shell.text("lambda", "wait", "function-updated-v2", "--function-name", "f")
    shell.text("lambda", "invoke", "--function-name", "f", "out.json")
    assert (shell.folder / "out.json").read_text() == '"new"'
