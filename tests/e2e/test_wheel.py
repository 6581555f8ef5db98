"""What a user installs: the wheel of kflow, and a plugin from its own wheel, in an environment of their own."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.e2e.environment import ROOT, Environment, run

pytestmark = pytest.mark.e2e

HANDLER = """
from kflow import Record, on_stream

@on_stream("orders")
def bill(record: Record) -> None:
    print("billed", record.partition_key)
"""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "venv")


def test_the_wheel_of_kflow_runs_the_demo(tmp_path: Path, environment: Environment) -> None:
    wheel = environment.build(ROOT)
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"kflow/py.typed", "kflow/_functions/delays/app.py", "kflow/_functions/archive/app.py"} <= names
    assert "kflow/_functions/delays/flights-2013-01.csv.gz" in names
    assert [name for name in names if "__pycache__" in name] == []

    environment.install(wheel)
    assert run(environment.scripts / "kflow", "--version", cwd=tmp_path) == "kflow 0.1.0\n"
    assert run(environment.scripts / "kflow-streams", "--version", cwd=tmp_path) == "kflow 0.1.0\n"
    summary = json.loads(run(environment.scripts / "kflow", "demo", "--json", cwd=tmp_path).splitlines()[-1])
    assert summary["records"] == 27004
    assert summary["shards"] == 4
    assert summary["handlers"]["delays"]["processed"] == 27004
    assert summary["handlers"]["delays"]["parked"] == 1
    assert summary["handlers"]["archive"]["processed"] == 27005
    assert summary["handlers"]["archive"]["parked"] == 0


def test_a_plugin_from_its_wheel_is_found_and_writes_a_line_a_batch(tmp_path: Path, environment: Environment) -> None:
    environment.see(ROOT)
    environment.install(environment.build(ROOT / "plugins" / "jsonl"))
    python = environment.scripts / "python"
    project = tmp_path / "project"
    (project / "functions").mkdir(parents=True)
    (project / "functions" / "app.py").write_text(HANDLER)
    (project / "kflow.toml").write_text("")

    assert json.loads(run(python, "-m", "kflow", "plugins", "--json", cwd=project)) == [
        {
            "name": "jsonl",
            "origin": "kflow-jsonl 0.1.0",
            "hooks": ["batch_done", "runtime_started", "runtime_stopping", "shards_changed"],
        }
    ]

    run(python, "-m", "kflow", "streams", "create", "orders", "--shards", "1", cwd=project)
    run(python, "-m", "kflow", "put", "orders", "one", "two", "three", cwd=project)
    run(python, "-m", "kflow", "run", "--drain", "--timeout", "60", cwd=project)
    lines = [json.loads(line) for line in (project / ".kflow" / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["succeeded"] for line in lines) == 3
    assert {(line["function"], line["stream"], line["result"]) for line in lines} == {("bill", "orders", "ok")}
