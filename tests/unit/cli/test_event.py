"""`kflow event`: sample events, and what is refused; `kflow invoke` where nothing runs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kflow.broker.folder import DataFolder
from kflow.cli.main import main
from kflow.cli.terminal import Terminal

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KFLOW_DATA_DIR", raising=False)
    (tmp_path / "kflow.toml").write_text('region = "eu-west-1"\n')

    def call(*argv: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        out, err = io.StringIO(), io.StringIO()
        code = main(argv, terminal=Terminal(out, err, stdin=io.StringIO(), environ={}))
        return code, out.getvalue(), err.getvalue()

    return call


def test_an_event_has_the_data_that_was_given(run: Run) -> None:
    code, out, err = run("event", "kinesis", "one", "two")

    assert (code, err) == (0, "")
    records = json.loads(out)["Records"]
    assert [base64.b64decode(each["kinesis"]["data"]) for each in records] == [b"one", b"two"]
    assert records[0]["eventSourceARN"] == "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"


def test_an_event_is_on_one_line_for_programs(run: Run) -> None:
    code, out, _ = run("event", "sqs", "one", "--json")

    assert (code, out.count("\n")) == (0, 1)
    assert json.loads(out)["Records"][0]["body"] == "one"


def test_data_is_repeated_or_read_from_standard_input(run: Run) -> None:
    repeated = json.loads(run("event", "sqs", "a", "b", "--count", "3", "--name", "mail")[1])["Records"]
    read = json.loads(run("event", "sqs", "-", stdin="x\ny\n")[1])["Records"]

    assert [each["body"] for each in repeated] == ["a", "b", "a"]
    assert repeated[0]["eventSourceARN"] == "arn:aws:sqs:eu-west-1:123456789012:mail"
    assert [each["body"] for each in read] == ["x", "y"]


def test_what_cannot_be_made_is_refused(run: Run) -> None:
    assert run("event", "kinesi") == (
        2,
        "",
        (
            "error: no event `kinesi`; did you mean `kinesis`?; there are kinesis, kinesis-window, sqs, sqs-fifo, "
            "firehose, firehose-kinesis, sns, s3, eventbridge, cloudwatch-logs\n"
        ),
    )
    assert run("event", "sqs", "--count", "0") == (2, "", "error: --count must be at least 1, not 0\n")
    assert run("event", "sqs", "-") == (
        2,
        "",
        "error: standard input has no line: each is the data of a record\n",
    )


def test_an_invocation_needs_a_runtime_and_an_event(run: Run, tmp_path: Path) -> None:
    DataFolder.open(tmp_path / ".kflow", create=True)
    (tmp_path / "e.json").write_text("{}")

    code, _, err = run("invoke", "f")
    assert code == 2
    assert "start the runtime with `kflow run`" in err
    assert run("invoke", "f", "{") == (2, "", "error: EVENT is no JSON: Input data was truncated\n")
    assert "; for the content of the file say @e.json" in run("invoke", "f", "e.json")[2]
    assert run("invoke", "f", "@no.json") == (2, "", "error: cannot read no.json: No such file or directory\n")
    assert run("invoke", "f", "-", stdin="x")[2].startswith("error: standard input is no JSON: ")
