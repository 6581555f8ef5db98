"""What a split, a merge or a scaling closes and makes. Pure: a map in, a plan or AWS's refusal out, no file touched.

A scaling is splits and merges in rounds. All of it is one plan and becomes one new map: shards that only exist between
two rounds are made closed and empty. So no crash finds a stream half scaled.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from kflow import limits
from kflow.broker.hashkeys import even_ranges, middle
from kflow.broker.sequence import CLOSING_COUNTER, number, shard_id, shard_index
from kflow.broker.streammap import ShardInfo, StreamMap, StreamMode
from kflow.broker.streams import constraint
from kflow.errors import InvalidArgument, LimitExceeded, ResourceNotFound, ValidationFailed

_HASH_KEY_PATTERN: Final = r"0|([1-9]\d{0,38})"
_LIMITS_PAGE: Final = "http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html"


class Birth(NamedTuple):
    """One shard to be made.

    Attributes:
        index: of the shard.
        start: first hash key of its range.
        end: last hash key of its range.
        parents: the shards it is made from; the second one is the adjacent parent of a merge.
        round: 0 where all its parents are there today, else one more than the latest of its parents.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    start: int
    end: int
    parents: tuple[int, ...]
    round: int


class Plan(NamedTuple):
    """A change of a stream's shards.

    Attributes:
        stream: the map it was made for; it fits no other.
        births: the shards to be made, parents before children.
    """

    stream: StreamMap
    births: tuple[Birth, ...]

    @property
    def closing(self) -> tuple[int, ...]:
        """Indexes of the shards that are open now and will be closed, in order."""
        known = len(self.stream.shards)
        return tuple(sorted({parent for birth in self.births for parent in birth.parents if parent < known}))

    @property
    def opening(self) -> tuple[int, ...]:
        """Indexes of the shards that will be made and stay open, in order."""
        spent = {parent for birth in self.births for parent in birth.parents}
        return tuple(birth.index for birth in self.births if birth.index not in spent)

    @property
    def rounds(self) -> int:
        """How many seconds of creation it takes: children are created later than their parents."""
        return 1 + max(birth.round for birth in self.births)

    def published(self, created_s: int, close_ms: int) -> StreamMap:
        """The map once it is carried out.

        Args:
            created_s: creation of the first round's shards, seconds since the epoch; each round has the next second.
            close_ms: when today's shards are closed, milliseconds since the epoch.

        Source: recorded: closing numbers, and a child's creation after its parents' close (sequence numbers of AWS).
        """
        spent = {parent for birth in self.births for parent in birth.parents}
        shards = [
            msgspec.structs.replace(shard, closed=number(shard.created_s, shard.index, CLOSING_COUNTER, close_ms))
            if shard.index in spent
            else shard
            for shard in self.stream.shards
        ]
        for index, start, end, parents, nth in self.births:
            born_s = created_s + nth
            closed = number(born_s, index, CLOSING_COUNTER, born_s * 1000) if index in spent else None
            shards.append(
                ShardInfo(index=index, start=start, end=end, parents=parents, created_s=born_s, closed=closed)
            )
        return msgspec.structs.replace(self.stream, generation=self.stream.generation + 1, shards=tuple(shards))


def parsed(text: str, name: str, account: str) -> int:
    """The index that a request's shard id names; to be called before the stream is looked up, as AWS does.

    Raises:
        ResourceNotFound: it is no shard id.

    Source: recorded: SplitShard and MergeShards look at the form first.
    """
    try:
        return shard_index(text)
    except ValueError as error:
        raise ResourceNotFound(f"Could not find shard {text} in stream {name} under account {account}.") from error


def split(stream: StreamMap, shard: int, at: str | None, *, account: str, region: str) -> Plan:
    """Plan to split one shard in two.

    Args:
        stream: its map.
        shard: index of the shard.
        at: first hash key of the upper child, decimal; None for the middle.
        account: for texts.
        region: for texts.

    Raises:
        ValidationFailed, ResourceNotFound, LimitExceeded, InvalidArgument: as AWS refuses it, in this order.

    Source: documented: SplitShard; recorded: order and texts of the checks.
    """
    if at is not None and not re.fullmatch(_HASH_KEY_PATTERN, at, re.ASCII):
        raise constraint(at, "newStartingHashKey", f"satisfy regular expression pattern: {_HASH_KEY_PATTERN}")
    _refuse_on_demand(stream, account)
    parent = _existing(stream, shard, account)
    _check_quota(stream, 1, account, region)
    if not parent.is_open:  # chosen: AWS's text is not known
        raise InvalidArgument(
            f"Shard {shard_id(shard)} in stream {stream.name} under account {account} is closed: it has been split or "
            "merged before."
        )
    cut = middle(parent.start, parent.end) if at is None else int(at)
    if not parent.start + 1 < cut < parent.end:
        raise InvalidArgument(
            f"NewStartingHashKey {cut} used in SplitShard() on shard {shard_id(shard)} in stream {stream.name} under "
            f"account {account} is not both greater than one plus the shard's StartingHashKey {parent.start} and less "
            f"than the shard's EndingHashKey {parent.end}."
        )
    first = len(stream.shards)
    return Plan(
        stream,
        (
            Birth(first, parent.start, cut - 1, (shard,), 0),
            Birth(first + 1, cut, parent.end, (shard,), 0),
        ),
    )


def merge(stream: StreamMap, shard: int, adjacent: int, *, account: str) -> Plan:
    """Plan to merge two neighbours, the lower one first.

    Raises:
        ValidationFailed, ResourceNotFound, InvalidArgument: as AWS refuses it.

    Source: documented: MergeShards; recorded: the order of the two matters.
    """
    _refuse_on_demand(stream, account)
    lower, upper = _existing(stream, shard, account), _existing(stream, adjacent, account)
    if lower.end + 1 != upper.start or not lower.is_open or not upper.is_open:
        raise InvalidArgument(
            f"Shards {shard_id(shard)} and {shard_id(adjacent)} in stream {stream.name} under account {account} are "
            "not an adjacent pair of shards eligible for merging"
        )
    return Plan(stream, (Birth(len(stream.shards), lower.start, upper.end, (shard, adjacent), 0),))


def scale(stream: StreamMap, target: int, *, account: str, region: str) -> Plan:
    """Plan to have `target` open shards with even ranges: split where a boundary falls inside, then merge neighbours.

    Raises:
        ValidationFailed, LimitExceeded, InvalidArgument: as AWS refuses it.

    Source: documented: UpdateShardCount, texts and bounds; recorded: even ranges for every target; chosen: the class of
    the error for a bound, the order of merges within a range, and that the number of calls a day is not limited.
    """
    if target < 1:
        raise constraint(str(target), "targetShardCount", "have value greater than or equal to 1")
    _refuse_on_demand(stream, account)
    current = len(stream.open_shards)
    if target == current:  # chosen: AWS's text is not known
        raise InvalidArgument(f"Stream {stream.name} under account {account} has {current} open shards already.")
    for exceeds, how in ((target > 2 * current, "up over double"), (2 * target < current, "down below half")):
        if exceeds:
            raise LimitExceeded(
                f"UpdateShardCount cannot scale {how} your current open shard count. "
                f"Current open shard count: {current} Target shard count: {target}"
            )
    _check_quota(stream, target - current, account, region)
    births = _Births(stream)
    boundaries = [start for start, _ in even_ranges(target)][1:]
    births.split(boundaries)
    births.merge(boundaries)
    return Plan(stream, tuple(births.made))


Planner = Callable[[StreamMap], Plan]


def planner(place: tuple[str, str], kind: str, name: str, arguments: Mapping[str, Any]) -> Planner:
    """What makes the plan of a request; the form of shard ids is checked here, before the stream is looked up.

    Args:
        place: account and region that refusals name.
        kind: `split`, `merge` or `scale`.
        name: of the stream.
        arguments: `shard` and `at` (decimal text, None for the middle); `shard` and `adjacent`; `shards`.

    Raises:
        ResourceNotFound: no shard id has this form.
    """
    account, region = place
    if kind == "scale":
        return lambda stream: scale(stream, arguments["shards"], account=account, region=region)
    shard = parsed(arguments["shard"], name, account)
    if kind == "merge":
        adjacent = parsed(arguments["adjacent"], name, account)
        return lambda stream: merge(stream, shard, adjacent, account=account)
    return lambda stream: split(stream, shard, arguments.get("at"), account=account, region=region)


class _Piece(NamedTuple):
    """A shard that is open at some moment of a plan; `round` is when it is there."""

    index: int  # type: ignore[assignment]  # as in `Birth`
    start: int
    end: int
    round: int


class _Births:
    """The open shards while a scaling is planned, in the order of their ranges, and what was made so far."""

    def __init__(self, stream: StreamMap) -> None:
        self.made: list[Birth] = []
        self._next = len(stream.shards)
        self._open = [_Piece(shard.index, shard.start, shard.end, -1) for shard in stream.open_shards]

    def split(self, boundaries: list[int]) -> None:
        """Split until no open shard has a boundary inside; one with several is cut at the middle one first."""
        pending, whole = self._open, []
        while pending:
            parts: list[_Piece] = []
            for piece in pending:
                inside = boundaries[bisect_right(boundaries, piece.start) : bisect_right(boundaries, piece.end)]
                if not inside:
                    whole.append(piece)
                    continue
                cut = inside[len(inside) // 2]
                parts += (self._birth(piece.start, cut - 1, piece), self._birth(cut, piece.end, piece))
            pending = parts
        self._open = sorted(whole, key=lambda piece: piece.start)

    def merge(self, boundaries: list[int]) -> None:
        """Merge neighbours within one target range, left to right, until each range is one shard."""
        while True:
            merged: list[_Piece] = []
            waiting: _Piece | None = None  # the left one of a pair that may be found
            for piece in self._open:
                if waiting is None:
                    waiting = piece
                elif bisect_right(boundaries, waiting.start) == bisect_right(boundaries, piece.start):
                    merged.append(self._birth(waiting.start, piece.end, waiting, piece))
                    waiting = None
                else:
                    merged.append(waiting)
                    waiting = piece
            if waiting is not None:
                merged.append(waiting)
            if len(merged) == len(self._open):
                return
            self._open = merged

    def _birth(self, start: int, end: int, *parents: _Piece) -> _Piece:
        piece = _Piece(self._next, start, end, 1 + max(parent.round for parent in parents))
        self._next += 1
        self.made.append(Birth(piece.index, start, end, tuple(parent.index for parent in parents), piece.round))
        return piece


def _existing(stream: StreamMap, index: int, account: str) -> ShardInfo:
    if index >= len(stream.shards):
        raise ResourceNotFound(
            f"Could not find shard {shard_id(index)} in stream {stream.name} under account {account}."
        )
    return stream.shards[index]


def _refuse_on_demand(stream: StreamMap, account: str) -> None:
    if stream.mode is StreamMode.ON_DEMAND:
        raise ValidationFailed(
            f"Request is invalid. Stream {stream.name} under account {account} is in On-Demand mode."
        )


def _check_quota(stream: StreamMap, more: int, account: str, region: str) -> None:
    """chosen: the quota is kflow's, for each stream by itself; the text is AWS's."""
    current, limit = len(stream.open_shards), limits.SHARDS_PER_STREAM
    if current + more > limit:
        raise LimitExceeded(
            f"This request would exceed the shard limit for the account {account} in {region}. Current shard count for "
            f"the account: {current}. Limit: {limit}. Number of additional shards that would have resulted from this "
            f"request: {more}. Refer to the AWS Service Limits page ({_LIMITS_PAGE}) for current limits and how to "
            "request higher limits."
        )
