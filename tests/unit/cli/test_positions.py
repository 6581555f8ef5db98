"""Places in a stream as people write them."""

from __future__ import annotations

import pytest

from kflow.broker.sequence import number
from kflow.cli.positions import Start, parse_shard, parse_start, resolve
from kflow.errors import UsageError
from kflow.records import Position

NUMBER = number(1_700_000_000, 3, 42, 1_700_000_001_000)


class FakeReader:
    """A shard of which only the ends and the two seeks matter."""

    tail = 900
    horizon = 100

    def seek_counter(self, counter: int) -> Position:
        return Position(counter, 1)

    def seek_time(self, epoch_ms: int) -> Position:
        return Position(epoch_ms, 2)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("latest", Position(900, 0)),
        ("LATEST", Position(900, 0)),
        ("trim_horizon", Position(100, 0)),
        ("trim-horizon", Position(100, 0)),
        ("2023-11-14T22:13:20Z", Position(1_700_000_000_000, 2)),
        ("2023-11-14T23:13:20+01:00", Position(1_700_000_000_000, 2)),
        (str(NUMBER), Position(42, 1)),
    ],
)
def test_a_place_becomes_a_position(text: str, position: Position) -> None:
    assert resolve(parse_start(text), FakeReader()) == position


@pytest.mark.parametrize("text", ["yesterday", "12", ""])
def test_what_is_no_place_names_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match="is no place in a stream: latest, trim_horizon, a time such as"):
        parse_start(text)


def test_a_number_that_is_no_sequence_number_is_refused() -> None:
    with pytest.raises(UsageError, match="is not a sequence number: copy one from `kflow tail --json`"):
        parse_start("1" * 56)


def test_a_sequence_number_means_its_own_shard() -> None:
    start = parse_start(str(NUMBER))
    assert parse_shard(None, start) == 3
    assert parse_shard("3", start) == 3
    with pytest.raises(UsageError, match="that sequence number is of shard 3, not of shard 1"):
        parse_shard("1", start)


def test_a_shard_is_named_by_number_or_id() -> None:
    assert parse_shard(None, Start("latest")) is None
    assert parse_shard("2", Start("latest")) == 2
    assert parse_shard("shardId-000000000002", Start("latest")) == 2
    with pytest.raises(UsageError, match="--shard must be a number such as 0, or an id such as shardId-000000000000"):
        parse_shard("two", Start("latest"))
