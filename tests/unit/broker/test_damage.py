"""The list of lost ranges, and what readers make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kflow.broker import checked, damage
from kflow.broker.damage import LostRange
from kflow.broker.files import FILES
from kflow.errors import Damaged

FIRST = LostRange(100, 200, 5, 9, 4, "damage", 1)
SECOND = LostRange(200, 350, 9, 10, 1, "damage", 2)
POWER = LostRange(1000, 1000 + 2**40, 50, 70 + 2**40, 20, "power loss", 3)


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_a_shard_without_a_list_has_lost_nothing(tmp_path: Path) -> None:
    assert damage.read(str(tmp_path), FILES) == ()
    assert damage.is_intact(str(tmp_path), FILES)


def test_ranges_are_kept_in_their_order(tmp_path: Path) -> None:
    for entry in (POWER, FIRST, SECOND):
        damage.note(str(tmp_path), FILES, entry)
    assert damage.read(str(tmp_path), FILES) == (FIRST, SECOND, POWER)


def test_a_range_that_is_noted_again_is_replaced(tmp_path: Path) -> None:
    damage.note(str(tmp_path), FILES, POWER)
    again = LostRange(1000, 2000 + 2**40, 50, 90 + 2**40, 20, "power loss", 4)
    damage.note(str(tmp_path), FILES, again)
    assert damage.read(str(tmp_path), FILES) == (again,)


def test_every_flipped_byte_of_the_list_is_noticed_and_its_copy_is_used(tmp_path: Path) -> None:
    damage.note(str(tmp_path), FILES, FIRST)
    path = tmp_path / "damage.json"
    for at in range(path.stat().st_size - 1):  # the last one is the line end, which says nothing
        flip(path, at)
        assert damage.read(str(tmp_path), FILES) == (FIRST,)
        assert not damage.is_intact(str(tmp_path), FILES)
        flip(path, at)
    assert damage.is_intact(str(tmp_path), FILES)


def test_a_list_whose_copy_is_damaged_too_is_an_error_and_never_empty(tmp_path: Path) -> None:
    damage.note(str(tmp_path), FILES, FIRST)
    flip(tmp_path / "damage.json", 30)
    flip(tmp_path / "damage.json.twin", 30)
    with pytest.raises(Damaged, match="kflow doctor --repair"):
        damage.read(str(tmp_path), FILES)
    with pytest.raises(Damaged):
        damage.note(str(tmp_path), FILES, SECOND)


def test_the_range_of_an_offset_is_the_last_of_those_that_follow_each_other() -> None:
    entries = (FIRST, SECOND, POWER)
    assert damage.holding(entries, 99) is None
    assert damage.holding(entries, 100) == damage.holding(entries, 199) == damage.holding(entries, 349) == SECOND
    assert damage.holding(entries, 350) is None
    assert damage.holding(entries, 1000) == POWER


@pytest.mark.parametrize(
    ("first", "stop", "count"),
    [
        (5, 9, 4),
        (1, 50, 49),
        (50, 70 + 2**40, 20),
        (1, 71 + 2**40, 70),
        (60, 65, 5),
        (60, 2**39, 10),
        (80, 2**39, 0),
        (70 + 2**40, 75 + 2**40, 5),
        (9, 5, 0),
    ],
)
def test_counters_that_power_loss_left_out_were_never_issued(first: int, stop: int, count: int) -> None:
    assert damage.issued((FIRST, SECOND, POWER), first, stop) == count


def test_a_sealed_object_is_still_json_and_carries_its_checksum() -> None:
    assert checked.seal(b'{"a":1}') == b'{"crc":"0e7c35e7","a":1}'
    assert checked.unseal(b'{"crc":"0e7c35e7","a":1}') == b'{"a":1}'
    assert checked.unseal(b'{"crc":"0e7c35e7","a":2}') is None
    assert checked.unseal(b'{"a":1}') is None
