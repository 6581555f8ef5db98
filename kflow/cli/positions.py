"""Places in a stream as people write them: `latest`, `trim_horizon`, a time, a sequence number."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

from kflow.broker.sequence import Parsed, parse, shard_id, shard_index
from kflow.cli.arguments import Arguments, Parser
from kflow.errors import UsageError
from kflow.records import Position

FORMS = "latest, trim_horizon, a time such as 2026-01-31T12:00:00Z (local where it names no zone), or a sequence number"
_NUMBER_DIGITS = 50
"""Sequence numbers have 56 digits; anything this long and all digits was meant as one."""


class Start(NamedTuple):
    """A parsed place; at most one of the numbers is set, and neither for the two words."""

    word: str = ""
    epoch_ms: int | None = None
    number: Parsed | None = None


class Seeker(Protocol):
    """What a place is resolved with: a reader of one shard."""

    @property
    def tail(self) -> int:
        """Logical offset past the last record."""
        ...

    @property
    def horizon(self) -> int:
        """Logical offset of the first record that is kept."""
        ...

    def seek_counter(self, counter: int) -> Position:
        """The first record with this counter or a higher one."""
        ...

    def seek_time(self, epoch_ms: int) -> Position:
        """The first record that arrived then or later."""
        ...


def parse_start(text: str) -> Start:
    """Understand a place.

    Raises:
        UsageError: it is none; names the forms.
    """
    word = text.lower().replace("-", "_")
    if word in ("latest", "trim_horizon"):
        return Start(word)
    if text.isdigit() and len(text) >= _NUMBER_DIGITS:
        try:
            return Start(number=parse(int(text)))
        except ValueError as error:
            raise UsageError(f"{error}: copy one from `kflow tail --json`") from error
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no place in a stream: {FORMS}") from error
    return Start(epoch_ms=int(moment.timestamp() * 1000))


def parse_shard(text: str | None, start: Start) -> int | None:
    """The index of the one shard that is meant; None for all. A sequence number means its own shard.

    Raises:
        UsageError: the text names no shard, or another one than the sequence number.
    """
    named = start.number.shard_index if start.number is not None else None
    if text is None:
        return named
    try:
        index = shard_index(text)
    except ValueError as error:
        raise UsageError(f"--shard must be a number such as 0, or an id such as {shard_id(0)}, not {text!r}") from error
    if named not in (None, index):
        raise UsageError(f"that sequence number is of shard {named}, not of shard {index}")
    return index


def most_of(arguments: Arguments) -> int | None:
    """How many records `--count` allows; None for no end.

    Raises:
        UsageError: it allows none.
    """
    most: int | None = arguments.count
    if most is not None and most < 1:
        raise UsageError(f"--count must be at least 1, not {most}")
    return most


def add_choice_flags(parser: Parser) -> None:
    """`--shard`, `--count`."""
    parser.add_argument("--shard", metavar="S", help="one shard: its number or id")
    parser.add_argument("--count", type=int, metavar="N", help="stop after N records")


def resolve(start: Start, reader: Seeker, *, after: bool = False) -> Position:
    """The position in one shard.

    Args:
        start: the place.
        reader: of the shard.
        after: whether a sequence number means the record behind it.
    """
    if start.number is not None:
        return reader.seek_counter(start.number.counter + (1 if after else 0))
    if start.epoch_ms is not None:
        return reader.seek_time(start.epoch_ms)
    return Position(reader.tail if start.word == "latest" else reader.horizon, 0)
