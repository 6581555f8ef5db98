"""The AWS CLI, set up by nothing but what `kflow env` prints; over TLS, as that is what it says here."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import tools
from tests.conformance.sdk import environment
from tests.served import ACCOUNT, Served, served

SHARD = "shardId-000000000000"


class Shell:
    """A shell where `eval "$(kflow env)"` was run."""

    def __init__(self, endpoint: Served) -> None:
        self._aws = tools.place_of(tools.AWS_CLI) / tools.AWS_CLI.path
        self._folder = endpoint.folder
        self._environment = {**environment(endpoint), "AWS_PAGER": "", "AWS_RETRY_MODE": "standard"}

    def run(self, operation: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`aws kinesis ...`, to its end."""
        return subprocess.run(
            [str(self._aws), "kinesis", operation, *arguments],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def text(self, operation: str, *arguments: str) -> str:
        """What a command prints."""
        done = self.run(operation, *arguments)
        assert done.returncode == 0, f"{operation} {arguments} ended with {done.returncode}:\n{done.stderr}"
        return done.stdout

    def aws(self, operation: str, *arguments: str) -> Any:
        """What a command answers."""
        return json.loads(self.text(operation, *arguments))

    def error(self, operation: str, *arguments: str) -> str:
        """What a command that is refused says."""
        done = self.run(operation, *arguments)
        assert done.returncode in (254, 255), done
        return done.stderr.strip()

    def file(self, name: str, content: bytes) -> str:
        """An argument that is taken from a file, byte by byte: version 2 would decode a text as base64."""
        (self._folder / name).write_bytes(content)
        return f"fileb://{name}"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("cli"), "--tls") as made:
        yield made


@pytest.fixture
def shell(endpoint: Served) -> Shell:
    return Shell(endpoint)


def test_records_go_in_and_come_out(shell: Shell, endpoint: Served) -> None:
    assert endpoint.url.startswith("https://")
    assert shell.text("create-stream", "--stream-name", "orders", "--shard-count", "1") == ""
    assert shell.text("wait", "stream-exists", "--stream-name", "orders") == ""  # looks every 10 s, and sees it at once
    data = bytes(range(256))
    one = shell.aws(
        "put-record", "--stream-name", "orders", "--partition-key", "ключ", "--data", shell.file("record", data)
    )
    entries = [{"Data": base64.b64encode(b"%d" % n).decode(), "PartitionKey": str(n)} for n in range(3)]
    (endpoint.folder / "records.json").write_text(json.dumps(entries))
    many = shell.aws("put-records", "--stream-name", "orders", "--records", "file://records.json")
    iterator = shell.text(
        "get-shard-iterator",
        *("--stream-name", "orders", "--shard-id", SHARD, "--shard-iterator-type", "AT_TIMESTAMP"),
        *("--timestamp", "2020-01-01T00:00:00Z", "--query", "ShardIterator", "--output", "text"),
    ).strip()
    page = shell.aws("get-records", "--shard-iterator", iterator, "--limit", "2")
    rest = shell.aws("get-records", "--shard-iterator", page["NextShardIterator"])

    records = [*page["Records"], *rest["Records"]]
    assert (one["ShardId"], many["FailedRecordCount"]) == (SHARD, 0)
    assert [record["SequenceNumber"] for record in records] == [
        one["SequenceNumber"],
        *(entry["SequenceNumber"] for entry in many["Records"]),
    ]
    assert base64.b64decode(records[0]["Data"]) == data
    assert records[0]["PartitionKey"] == "ключ"
    assert len(records) == 4
    assert page["MillisBehindLatest"] > 0
    assert rest["MillisBehindLatest"] == 0


def test_a_stream_is_administered_from_its_creation_to_its_end(shell: Shell) -> None:
    name = ("--stream-name", "shop")
    shell.text("create-stream", *name, "--shard-count", "2", "--tags", "team=a b,cost=1")
    summary = shell.aws("describe-stream-summary", *name)["StreamDescriptionSummary"]
    arn = summary["StreamARN"]
    assert arn == f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/shop"
    assert (summary["StreamStatus"], summary["OpenShardCount"], summary["RetentionPeriodHours"]) == ("ACTIVE", 2, 24)

    middle = str(1 << 126)
    shell.text("split-shard", *name, "--shard-to-split", SHARD, "--new-starting-hash-key", middle)
    shards = shell.aws("list-shards", *name, "--shard-filter", "Type=AT_LATEST")["Shards"]
    assert [shard["ShardId"][-1] for shard in shards] == ["1", "2", "3"]
    assert shards[2]["HashKeyRange"]["StartingHashKey"] == middle
    scaled = shell.aws("update-shard-count", *name, "--target-shard-count", "2", "--scaling-type", "UNIFORM_SCALING")
    assert (scaled["CurrentShardCount"], scaled["TargetShardCount"]) == (3, 2)
    assert shell.aws("list-tags-for-stream", *name)["Tags"] == [
        {"Key": "cost", "Value": "1"},
        {"Key": "team", "Value": "a b"},
    ]
    consumer = shell.aws("register-stream-consumer", "--stream-arn", arn, "--consumer-name", "fast")["Consumer"]
    assert consumer["ConsumerARN"].startswith(f"{arn}/consumer/fast:")
    assert "(ResourceInUseException)" in shell.error("delete-stream", *name)
    shell.text("delete-stream", *name, "--enforce-consumer-deletion")
    shell.text("wait", "stream-not-exists", *name)


def test_lists_are_followed_page_by_page(shell: Shell, endpoint: Served) -> None:
    client = endpoint.client(verify=str(endpoint.data_dir / "tls" / "localhost.pem"))
    for number in range(7):
        client.create_stream(StreamName=f"page-{number}", ShardCount=1)
        client.get_waiter("stream_exists").wait(StreamName=f"page-{number}", WaiterConfig={"Delay": 1})
    client.close()
    names = [f"page-{number}" for number in range(7)]
    found = shell.aws("list-streams", "--page-size", "2")["StreamNames"]
    assert [name for name in found if name.startswith("page-")] == names
    some = shell.aws("list-streams", "--max-items", "3")
    more = shell.aws("list-streams", "--max-items", "100", "--starting-token", some["NextToken"])
    assert [*some["StreamNames"], *more["StreamNames"]] == found
    shards = shell.aws("list-shards", "--stream-name", "page-0", "--page-size", "1")["Shards"]
    assert [shard["ShardId"] for shard in shards] == [SHARD]


REFUSED = {
    "DescribeStream": (
        ("describe-stream", "--stream-name", "nope"),
        (
            f"(ResourceNotFoundException) when calling the DescribeStream operation: "
            f"Stream nope under account {ACCOUNT} not found."
        ),
    ),
    "CreateStream": (
        ("create-stream", "--stream-name", "bad name", "--shard-count", "1"),
        (
            "(ValidationException) when calling the CreateStream operation: 1 validation error detected: "
            "Value 'bad name' at 'streamName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
        ),
    ),
    "GetRecords": (
        ("get-records", "--shard-iterator", "AAAA"),
        "(InvalidArgumentException) when calling the GetRecords operation: Invalid ShardIterator.",
    ),
    "PutRecords": (
        ("put-records", "--stream-name", "nope", "--records", "Data=eA==,PartitionKey=k"),
        (
            f"(ResourceNotFoundException) when calling the PutRecords operation: "
            f"Stream nope under account {ACCOUNT} not found."
        ),
    ),
}


def test_what_is_refused_is_said_as_of_aws(shell: Shell) -> None:
    with ThreadPoolExecutor() as threads:
        said = list(threads.map(lambda row: shell.error(*row[0]), REFUSED.values()))
    for text, (_, expected) in zip(said, REFUSED.values(), strict=True):
        assert text.endswith(f"An error occurred {expected}")


def test_regions_and_accounts_are_apart(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.text("create-stream", "--stream-name", "far", "--shard-count", "1", "--region", "eu-west-1")
    summary = shell.aws("describe-stream-summary", "--stream-name", "far", "--region", "eu-west-1")
    assert summary["StreamDescriptionSummary"]["StreamARN"] == f"arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/far"
    assert "ResourceNotFoundException" in shell.error("describe-stream-summary", "--stream-name", "far")
    monkeypatch.setitem(shell._environment, "AWS_ACCESS_KEY_ID", "210987654321")
    assert "under account 210987654321 not found" in shell.error("describe-stream-summary", "--stream-name", "far")


def test_what_the_cli_put_is_there_after_a_kill(tmp_path: Path) -> None:
    with served(tmp_path, "--tls") as endpoint:
        shell = Shell(endpoint)
        shell.text("create-stream", "--stream-name", "orders", "--shard-count", "1")
        one = shell.aws(
            "put-record", "--stream-name", "orders", "--partition-key", "k", "--data", shell.file("record", b"kept")
        )
        endpoint.kill()
        endpoint.start()
        shell = Shell(endpoint)
        iterator = shell.aws(
            "get-shard-iterator",
            *("--stream-name", "orders", "--shard-id", SHARD, "--shard-iterator-type", "AT_SEQUENCE_NUMBER"),
            *("--starting-sequence-number", one["SequenceNumber"]),
        )
        (record,) = shell.aws("get-records", "--shard-iterator", iterator["ShardIterator"])["Records"]
        assert base64.b64decode(record["Data"]) == b"kept"
