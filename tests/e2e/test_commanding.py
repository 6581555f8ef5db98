"""Commands that are forked, as most tests run them, beside the same ones as a shell starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import commanding
from tests.deadline import eventually
from tests.project import KFLOW, Project


def by_a_shell(made: Project, words: list[str], given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KFLOW, *words],
        cwd=made.folder,
        env=made.environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def made(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("words", "given", "code"),
    [
        ("--version", "", 0),
        ("streams create orders --shards 2", "", 0),
        ("streams list --json", "", 2),
        ("put nowhere", "one\n", 2),
        ("nonsense", "", 2),
        ("", "", 2),
    ],
)
def test_a_forked_command_ends_as_one_that_a_shell_starts(made: Project, words: str, given: str, code: int) -> None:
    real = by_a_shell(made, words.split(), given)
    if words.startswith("streams create"):
        made.run("streams", "delete", "orders", "--yes")
    forked = commanding.run(words.split(), cwd=made.folder, env=made.environment, given=given)
    assert (real.returncode, real.stdout, real.stderr) == (forked.returncode, forked.stdout, forked.stderr)
    assert forked.returncode == code


def test_what_is_given_is_put(made: Project) -> None:
    made.run("streams", "create", "orders")
    words = ["put", "orders", "--format", "text"]
    done = commanding.run(words, cwd=made.folder, env=made.environment, given="one\ntwo\n")
    assert done.returncode == 0, done.stderr
    lines = made.run("tail", "orders", "--from", "trim_horizon", "--no-follow", "--json").stdout.splitlines()
    assert [json.loads(line)["data"] for line in lines] == ["one", "two"]


def test_a_command_that_goes_on_is_killed_at_its_deadline(made: Project) -> None:
    made.run("streams", "create", "orders")
    with pytest.raises(subprocess.TimeoutExpired):
        commanding.run(["tail", "orders"], cwd=made.folder, env=made.environment, seconds=1)


def test_signals_reach_what_was_started_and_its_end_is_told(made: Project) -> None:
    output = made.folder / "output"
    first = commanding.start(["serve"], cwd=made.folder, env=made.environment, output=output)
    try:
        eventually(lambda: "ready" in output.read_text(), seconds=60)
        assert first.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(0)
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130
    finally:
        first.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)
    second = commanding.start(["serve"], cwd=made.folder, env=made.environment, output=output)
    second.kill()
    assert second.wait(60) == -signal.SIGKILL
    assert second.poll() == -signal.SIGKILL
