"""The benches run at all: the cheapest one, by the command that people use. Its figures are never judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).with_name("run.py")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUN), *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_bench_prints_one_json_line_a_figure_with_exactly_the_agreed_keys() -> None:
    done = run("append", "--quick", "--json")

    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [figure["bench"] for figure in figures] == ["append 500 x 100 B", "append 500 x 1024 B", "append 1 x 100 B"]
    for figure in figures:
        assert set(figure) == {"bench", "value", "unit", "limit", "ratio", "must", "aim", "ok"}
        assert figure["value"] > 0
        assert figure["limit"] > 0
        assert abs(figure["ratio"] - figure["value"] / figure["limit"]) < 0.01 * figure["ratio"]


def test_an_unknown_bench_is_a_usage_error_that_names_the_benches_there_are() -> None:
    done = run("apend")

    assert done.returncode == 2
    assert "no bench is called apend; there are append, put, put-node" in done.stderr
