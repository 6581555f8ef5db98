"""A data folder that was copied while a runtime ran on it: what the copy says of processes is no truth about it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project, project

WAITS = """
    import pathlib, time
    from kflow import on_stream
    @on_stream("orders", timeout=60)
    def bill(event, context):
        note(began=1)
        while not pathlib.Path(__file__).with_name("go").exists():
            time.sleep(0.005)
        note(ended=1)
"""
OTHER = """
from kflow import Batch, on_stream
@on_stream("orders")
def audit(batch: Batch) -> None:
    pass
"""


@pytest.fixture(params=["short", "long"])
def original(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    # A long path has its socket elsewhere, by a name that is written in the folder.
    folder = tmp_path if request.param == "short" else tmp_path / ("long" * 28)
    folder.mkdir(exist_ok=True)
    yield from project(folder)


@pytest.fixture
def copy(original: Project) -> Path:
    """A copy of the folder, made while a handler runs."""
    original.run("streams", "create", "orders")
    original.handler(WAITS)
    original.start()
    original.run("put", "orders", "one")
    original.wait_for(original.seen, "the handler to run")
    made = original.folder / "copy"
    shutil.copytree(original.data_dir, made, ignore=shutil.ignore_patterns("*.sock"))
    return made


def records(original: Project, path: Path) -> int:
    shown = original.run("tail", "orders", "--no-follow", "--from", "trim_horizon", "--json", "--data-dir", str(path))
    return len(shown.stdout.splitlines())


def test_a_copy_has_no_runtime_and_its_puts_stay_in_it(original: Project, copy: Path) -> None:
    assert "none runs" in original.run("doctor", "--data-dir", str(copy), check=None, seconds=20).stdout
    original.run("put", "orders", "two", "--data-dir", str(copy))
    assert (records(original, copy), records(original, original.data_dir)) == (2, 1)

    assert "nothing runs" in original.run("stop", "--data-dir", str(copy), check=None, seconds=20).stdout
    assert original.processes[0].poll() is None
    assert len(original.seen(began=1)) == 1


def test_a_runtime_on_a_copy_leaves_the_workers_of_the_original_alone(original: Project, copy: Path) -> None:
    (original.folder / "other.py").write_text(OTHER)
    original.run("run", "other.py", "--drain", "--data-dir", str(copy))
    (original.folder / "functions" / "go").touch()
    original.wait_for(lambda: any("ended" in note for note in original.seen()), "the handler to end")
    assert [key for note in original.seen() for key in note if key in ("began", "ended")] == ["began", "ended"]
    assert original.stop(original.processes[0]) == 130
