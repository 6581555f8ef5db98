"""What happens in a simulation: options and moves, made from a seed; data, so that a failing one can be cut down."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

import msgspec

from kflow.declarations import MappingOptions

FILTER: Final = '{"data": {"wanted": [true]}}'
"""What the filtered simulations let pass."""

MOVES: Final = {
    "put": 40,
    "work": 50,
    "wait": 12,
    "wake": 4,
    "stale": 2,
    "sync": 4,
    "expire": 1,
    "kill worker": 4,
    "kill node": 2,
    "fuse worker": 4,
    "fuse node": 2,
    "restart": 1,
    "power": 1,
    "skew": 2,
    "full": 1,
    "sync fails": 1,
    "reshard": 2,
}
"""What may happen, and how often in a hundred or so."""

FAULTS: Final = frozenset(MOVES) - {"put", "work", "wait", "sync", "reshard"}
_SWITCHES: Final = ("power", "expire", "reshard")
"""Moves that only some simulations have: without them more must hold."""


class Move(msgspec.Struct, frozen=True):
    """One thing that happens.

    Attributes:
        kind: a key of `MOVES`.
        seed: decides what is left open, for this move alone: others stay as they are when it is left out.
        size: how much: records, steps, milliseconds.
    """

    kind: str
    seed: int = 0
    size: int = 0

    def __repr__(self) -> str:
        return f"Move({self.kind!r}, {self.seed}, {self.size})"


class SimOptions(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The setting of a simulation.

    Attributes:
        mapping: options of the event source mapping, the same for all functions.
        shards: of the stream, at its beginning.
        functions: how many read it.
        max_workers: places.
        fsync: the data folder's policy.
        segment_bytes: when segments roll.
        keys: how many partition keys.
        failing: of 100 invocations, how many do not just succeed.
        poison: one in so many records fails always; 0 for none.
    """

    mapping: MappingOptions = MappingOptions(batch_size=10)
    shards: int = 1
    functions: int = 1
    max_workers: int = 2
    fsync: str = "interval"
    segment_bytes: int = 20_000
    keys: int = 5
    failing: int = 20
    poison: int = 0

    def __repr__(self) -> str:
        return _call("SimOptions", self)


class Script(msgspec.Struct, frozen=True):
    """A whole simulation: the same script, the same trace."""

    options: SimOptions = SimOptions()
    moves: tuple[Move, ...] = ()


def _call(name: str, struct: msgspec.Struct) -> str:
    """The expression that makes a struct, defaults left out."""
    plain = type(struct)()
    changed = [
        f"{field}={_call('MappingOptions', value) if isinstance(value, MappingOptions) else repr(value)}"
        for field in struct.__struct_fields__
        if (value := getattr(struct, field)) != getattr(plain, field)
    ]
    return f"{name}({', '.join(changed)})"


def script(seed: int, *, moves: int = 60) -> Script:
    """The script of a seed.

    Args:
        seed: any number.
        moves: about how many things happen.
    """
    random = Random(seed)  # noqa: S311  # repeatable, no secret
    options = _options(random)
    weights = dict(MOVES)
    for kind in _SWITCHES:
        if random.random() < 0.6:
            del weights[kind]
    if random.random() < 0.15:
        for kind in FAULTS & set(weights):
            del weights[kind]
    if options.fsync == "none":
        weights.pop("power", None)
    kinds, chances = list(weights), list(weights.values())
    count = random.randint(moves // 2, moves * 3 // 2)
    chosen = random.choices(kinds, chances, k=count)
    sizes = _put_sizes(options.mapping.batch_size)
    return Script(options, tuple(Move(kind, random.randrange(1 << 32), _size(kind, random, sizes)) for kind in chosen))


def _options(random: Random) -> SimOptions:
    tumbling = random.choice((0, 0, 0, 0, 5))
    factor = 1 if tumbling else random.choice((1, 1, 1, 2, 3, 10))
    mapping = MappingOptions(
        batch_size=random.choice((1, 3, 10, 30, 100, 100, 300, 1_000)),
        maximum_batching_window_in_seconds=random.choice((0, 0, 0, 1, 5)),
        maximum_retry_attempts=random.choice((-1, -1, 0, 1, 2)),
        maximum_record_age_in_seconds=random.choice((-1, -1, -1, 60)),
        bisect_batch_on_function_error=random.random() < 0.35,
        report_batch_item_failures=random.random() < 0.35,
        parallelization_factor=factor,
        tumbling_window_in_seconds=tumbling,
        filters=(FILTER,) if random.random() < 0.2 else (),
        on_failure="drop" if random.random() < 0.15 else None,
    )
    return SimOptions(
        mapping=mapping,
        shards=random.choice((1, 1, 2, 4)),
        functions=random.choice((1, 1, 2)),
        max_workers=random.choice((1, 2, 2, 4)),
        fsync=random.choice(("none", "interval", "interval", "always")),
        segment_bytes=random.choice((2_000, 20_000, 20_000, 1 << 20)),
        keys=random.choice((1, 5, 20)),
        failing=random.choice((0, 10, 20, 50)),
        poison=random.choice((0, 0, 50, 300)) if mapping.maximum_retry_attempts >= 0 else 0,
    )


def _put_sizes(batch_size: int) -> tuple[int, ...]:
    """How many records are put at once: from one to what fills some batches.

    A lane that is forty batches behind meets all that one does that is five hundred behind.
    """
    largest = min(40 * batch_size, max(500, 2 * batch_size))
    return (1, 3, 10, largest // 4, largest // 2, largest)


def _size(kind: str, random: Random, put_sizes: tuple[int, ...]) -> int:
    if kind == "put":
        return random.choice(put_sizes)
    if kind == "work":
        return random.choice((1, 5, 20, 60))
    if kind in {"wait", "skew"}:
        return random.choice((10, 100, 1_000, 5_000, 30_000, 70_000))
    return random.randint(0, 8)


def simpler(whole: Script) -> Iterator[Script]:
    """Scripts that are a little simpler, the boldest first: for whoever looks for the least one that still fails."""
    moves = whole.moves
    size = len(moves) // 2
    while size:
        for start in range(0, len(moves), size):
            yield Script(whole.options, moves[:start] + moves[start + size :])
        size //= 2
    yield from (Script(options, moves) for options in _plainer(whole.options))
    for at, move in enumerate(moves):
        for smaller in {1, move.size // 2} - {move.size}:
            if smaller < move.size:
                changed = Move(move.kind, move.seed, smaller)
                yield Script(whole.options, (*moves[:at], changed, *moves[at + 1 :]))


def _plainer(options: SimOptions) -> Iterator[SimOptions]:
    plain, plain_mapping = SimOptions(), MappingOptions(batch_size=10)
    replace = msgspec.structs.replace
    for field in options.__struct_fields__:
        if field != "mapping" and getattr(options, field) != getattr(plain, field):
            yield replace(options, **{field: getattr(plain, field)})
    for field in options.mapping.__struct_fields__:
        if getattr(options.mapping, field) != getattr(plain_mapping, field):
            yield replace(options, mapping=replace(options.mapping, **{field: getattr(plain_mapping, field)}))
