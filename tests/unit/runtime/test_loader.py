"""What finding the handlers tells people."""

from __future__ import annotations

from pathlib import Path

import pytest

from kflow.runtime import loader


def test_filters_that_aws_may_refuse_are_warned_of_with_their_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text(
        "from kflow import on_stream\n\n"
        '@on_stream("orders", filters=[{"data": {"a": ["x"]}}, {"partitionKey": ["a"]}])\n'
        "def bill(event, context):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    (warning,) = loader.load("app.py").warnings
    assert warning == "app.py:3: filters[1]: partitionKey: AWS's documentation supports data alone for Kinesis"
