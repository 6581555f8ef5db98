"""Settings as people are shown them."""

from __future__ import annotations

from pathlib import Path

from kflow.cli.config import _text
from kflow.settings import load


def test_tables_are_shown_with_their_values_but_for_secrets(tmp_path: Path) -> None:
    environ = {
        "KFLOW_SERVICES__S3": "moto",
        "KFLOW_SERVICES__DYNAMODB": "aws:dev",
        "KFLOW_ACCESS_KEYS__AKIA0": "zero",
        "KFLOW_ACCESS_KEYS__AKIA1": "one",
    }
    shown = {name: _text(value) for name, value, _ in load(tmp_path, environ=environ).rows()}
    assert shown["services"] == "dynamodb = aws:dev, s3 = moto"
    assert shown["access_keys"] == "AKIA0, AKIA1"


def test_a_table_with_nothing_in_it_says_so(tmp_path: Path) -> None:
    shown = {name: _text(value) for name, value, _ in load(tmp_path, environ={}).rows()}
    assert (shown["services"], shown["plugins"], shown["port"]) == ("none", "none", "4566")
