from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sqsing import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("kflow.desk.perf_counter", lambda: 0.0)  # the disk is quick, whatever else this machine does
    made = World(tmp_path)
    yield made
    made.stop()
