"""`kflow env`, and the flags of what opens the endpoint."""

from __future__ import annotations

import io
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kflow.cli.arguments import settings_of
from kflow.cli.main import main
from kflow.cli.run import COMMAND as RUN
from kflow.cli.serve import COMMAND as SERVE
from kflow.cli.terminal import Terminal
from kflow.errors import UsageError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `kflow` in an empty project; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    for name in ("KFLOW_DATA_DIR", "KFLOW_PORT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    (tmp_path / "kflow.toml").touch()

    def call(*argv: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = main(argv, terminal=Terminal(out, err, stdin=io.StringIO(), environ={}))
        return code, out.getvalue(), err.getvalue()

    return call


def test_env_names_the_port_that_a_runtime_would_get_where_none_runs(run: Run, tmp_path: Path) -> None:
    code, out, err = run("env")
    assert (code, err) == (
        0,
        f"nothing runs on {tmp_path / '.kflow'}: `kflow serve` or `kflow run` starts it\n",
    )
    first, *exports = out.splitlines()
    assert first.startswith("unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN ")
    assert exports == [
        "export AWS_ENDPOINT_URL=http://127.0.0.1:4566",
        "export AWS_REGION=us-east-1",
        "export AWS_DEFAULT_REGION=us-east-1",
        "export AWS_ACCESS_KEY_ID=AKIAKFLOWLOCALONLY00",
        "export AWS_SECRET_ACCESS_KEY=kflow-local-only-not-a-secret",
        "export AWS_CONFIG_FILE=/dev/null",
        "export AWS_SHARED_CREDENTIALS_FILE=/dev/null",
        "export AWS_EC2_METADATA_DISABLED=true",
    ]
    assert not (tmp_path / ".kflow").exists()


def test_env_follows_the_settings(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kflow.toml").write_text(
        'port = 5000\nregion = "eu-west-1"\nauth = "strict"\ntls = true\n[access_keys]\nAKIAONE = "it\'s one"\n'
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.amazonaws.com")
    answer = json.loads(run("env", "--json")[1])
    assert answer["set"]["AWS_ENDPOINT_URL"] == "https://127.0.0.1:5000"
    assert answer["set"]["AWS_REGION"] == "eu-west-1"
    assert answer["set"]["AWS_ACCESS_KEY_ID"] == "AKIAONE"
    assert answer["set"]["AWS_CA_BUNDLE"] == str(tmp_path / ".kflow" / "tls" / "localhost.pem")
    assert answer["set"]["NODE_EXTRA_CA_CERTS"] == answer["set"]["AWS_CA_BUNDLE"]
    assert "AWS_ENDPOINT_URL_S3" in answer["unset"]
    assert "AWS_CA_BUNDLE" not in answer["unset"]
    assert f"export AWS_SECRET_ACCESS_KEY={shlex.quote(chr(39).join(['it', 's one']))}" in run("env")[1].splitlines()


def test_env_does_not_guess_a_port_that_nobody_knows(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kflow.toml").write_text("port = 0\n")
    assert run("env") == (
        2,
        "",
        "error: nothing runs, and with port 0 nobody knows where it will: start `kflow serve` first\n",
    )


@pytest.mark.parametrize("command", [RUN, SERVE], ids=["run", "serve"])
def test_flags_become_settings(run: Run, command: object) -> None:
    parser = command.parser("kflow")  # type: ignore[attr-defined]
    words = "--port 0 --bind localhost --tls --allow-reset --enforce-limits --transition-ms 0 --fault-seed 7"
    faults = ["--fault", "kinesis.*: 5% InternalFailure, 10ms", "--fault", "kinesis.PutRecords: throttle"]
    settings = settings_of(parser.parse_all([*words.split(), *faults]))
    assert (settings.port, settings.bind, settings.tls, settings.allow_reset) == (0, "localhost", True, True)
    assert (settings.enforce_limits, settings.transition_ms, settings.fault_seed) == (True, 0, 7)
    assert settings.faults == ("kinesis.*: 5% InternalFailure, 10ms", "kinesis.PutRecords: throttle")
    assert settings.given("port")
    assert not settings_of(parser.parse_all(["--no-tls"])).tls


def test_secrets_have_no_flag(run: Run) -> None:
    with pytest.raises(UsageError, match="unknown option --access-keys"):
        SERVE.parser("kflow serve").parse_all(["--access-keys", "A=b"])


def test_faults_of_a_variable_are_parted_by_semicolons(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFLOW_FAULTS", "kinesis.*: 5% InternalFailure, 10ms; kinesis.PutRecords: throttle")
    settings = settings_of(SERVE.parser("kflow serve").parse_all([]))
    assert settings.faults == ("kinesis.*: 5% InternalFailure, 10ms", "kinesis.PutRecords: throttle")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who holds a port")
def test_doctor_says_who_holds_the_port(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "kflow.toml").write_text(f"port = {port}\n")
        code, out, _ = run("doctor", "--json")
    found = {each["what"]: each for each in json.loads(out)}["endpoint"]
    assert (code, found["state"]) == (1, "wrong")
    assert found["text"].startswith(f"port {port} is held by process {os.getpid()} (")


def test_doctor_names_any_port_where_any_will_do(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kflow.toml").write_text("port = 0\n")
    found = {each["what"]: each for each in json.loads(run("doctor", "--json")[1])}["endpoint"]
    assert (found["state"], found["text"]) == ("ok", "any port")
