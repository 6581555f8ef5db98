"""What a node needs before it can run: its number, above that of every node before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kflow.broker.folder import DataFolder
from kflow.runtime.starting import Epochs


def test_each_node_has_a_higher_number_and_knows_how_the_last_one_ended(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path, create=True)
    first = Epochs(folder)
    assert (first.epoch, first.previous_clean) == (1, True)
    second = Epochs(folder)
    assert (second.epoch, second.previous_clean) == (2, False)
    second.ended()
    assert (Epochs(folder).epoch, Epochs(folder).previous_clean) == (3, False)


@pytest.mark.parametrize("content", [b"", b"garbage", b'{"epoch":"two"}', b'{"epoch":-3,"clean":true}'])
def test_a_damaged_number_is_replaced_by_one_that_no_node_had(tmp_path: Path, content: bytes) -> None:
    folder = DataFolder.open(tmp_path, create=True)
    Epochs(folder).ended()
    (tmp_path / "epoch.json").write_bytes(content)
    after = Epochs(folder)
    assert after.epoch > 1_000_000_000
    assert not after.previous_clean
    assert Epochs(folder).epoch == after.epoch + 1
