"""The demo, as a newcomer runs it: to its end, and killed in the middle."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.deadline import eventually

DEMO = [sys.executable, "-m", "kflow", "demo"]


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("KFLOW_", "AWS_"))}
    return {**clean, "NO_COLOR": "1"}


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*DEMO, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(done.stdout.splitlines()[-1])


def archived(folder: Path) -> list[bytes]:
    files = list((folder / ".kflow" / "demo").rglob("*.jsonl.gz")) + list(folder.rglob("archive/**/*.jsonl.gz"))
    return [line for path in set(files) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_the_demo_processes_every_flight_and_parks_the_one_broken_record(tmp_path: Path) -> None:
    result = last_line(demo(tmp_path, "--json"))

    assert result["records"] == 27004
    assert result["shards"] == 4
    assert result["seconds"] > 0
    assert result["records_per_second"] > 0
    assert result["handlers"]["delays"]["processed"] == 27004
    assert result["handlers"]["delays"]["parked"] == 1
    assert result["handlers"]["archive"] == {"processed": 27005, "redelivered": 0, "parked": 0}
    assert list(result) == ["records", "shards", "seconds", "records_per_second", "handlers"]
    lines = archived(tmp_path)
    assert len(lines) == 27005


def test_a_demo_killed_in_the_middle_goes_on_where_it_stopped_with_nothing_lost(tmp_path: Path) -> None:
    killed = subprocess.Popen(
        [*DEMO, "--rate", "20000"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    eventually(lambda: len(archived(tmp_path)) > 3000, seconds=60, what="the demo to be under way")
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    result = last_line(demo(tmp_path, "--json"))

    assert result["handlers"]["delays"]["processed"] == 27004
    assert result["handlers"]["delays"]["parked"] == 1
    assert result["handlers"]["archive"]["processed"] == 27005
    lines = archived(tmp_path)
    assert len(set(lines)) == 27005 == len(lines)


def test_a_finished_demo_starts_afresh_and_the_text_says_what_to_do_with_the_parked_record(tmp_path: Path) -> None:
    demo(tmp_path, "--json")

    again = demo(tmp_path, "--rate", "max")

    assert "kflow parked show 1" in again.stdout
    assert "27,004" in again.stdout
