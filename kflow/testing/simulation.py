"""`simulate(seed)`: the core under crashes, failures, delays and wrong clocks, in virtual time, checked at every step.

The engine, the lease table, the log, its readers, the slots and the parked store are the real ones; disk, clock,
processes and messages are simulated, in one thread, so that a seed gives the same run each time. What fails is cut down
to the fewest moves that still fail, and printed as a test that can be pasted.

    simulate(4711)                          # raises SimulationFailed, which prints a test
    simulate(Script(SimOptions(), (Move("put", 1, 5), Move("work", 2, 20))))
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from kflow import limits
from kflow.testing.ending import finish
from kflow.testing.script import Move, Script, SimOptions, script, simpler
from kflow.testing.truth import Violation
from kflow.testing.world import World

__all__ = ["Move", "Report", "Script", "SimOptions", "SimulationFailed", "Violation", "script", "simulate"]

_SHOWN_LINES = 40
_LONGEST_SEARCH = 400


class Report(msgspec.Struct, frozen=True):
    """What a simulation came to.

    Attributes:
        appended: records in the log, less those lost with the power.
        delivered: records given to functions, again and again where that was due.
        invocations: how often functions ran.
        counts: how often each kind of thing happened.
        digest: of the trace: equal for equal runs.
        trace: what happened, in words.
    """

    appended: int
    delivered: int
    invocations: int
    counts: dict[str, int]
    digest: int
    trace: tuple[str, ...]


class SimulationFailed(AssertionError):
    """Something that must hold did not.

    Attributes:
        script: the least script that was found to fail.
    """

    def __init__(self, found: Script, error: BaseException, trace: list[str], origin: str) -> None:
        self.script = found
        shown = "\n".join(trace[-_SHOWN_LINES:])
        super().__init__(f"{origin}: {type(error).__name__}: {error}\n{shown}\n\n{as_test(found, error)}")


def simulate(what: int | Script, *, moves: int = 60, shrink: bool = True) -> Report:
    """Run a simulation.

    Args:
        what: a seed, or a script.
        moves: about how many things happen, for a seed.
        shrink: cut a failing script down before it is reported.

    Raises:
        SimulationFailed: something that must hold did not; its text is the end of the trace, and a test.
    """
    whole = script(what, moves=moves) if isinstance(what, int) else what
    world, error = _run(whole)
    if error is None:
        assert world is not None
        ledger = world.ledger
        digest = zlib.crc32("\n".join(world.trace).encode())
        return Report(
            world.truth.appended, ledger.delivered, ledger.invocations, dict(world.counts), digest, tuple(world.trace)
        )
    if shrink:
        whole, world, error = _shrunk(whole, world, error)
    origin = f"seed {what}" if isinstance(what, int) else "script"
    raise SimulationFailed(whole, error, [] if world is None else world.trace, origin) from error


def _run(whole: Script) -> tuple[World | None, BaseException | None]:
    """Run a script. Any error is a finding: of the core, or of the simulation itself."""
    before = _smaller_segments(whole.options.segment_bytes)
    world: World | None = None
    try:
        with _quiet():
            world = World(whole.options)
            for move in whole.moves:
                world.play(move)
            finish(world)
    except Exception as error:  # noqa: BLE001  # reported with the script that led to it
        return world, error
    finally:
        _smaller_segments(before)
    return world, None


def _shrunk(whole: Script, world: World | None, error: BaseException) -> tuple[Script, World | None, BaseException]:
    """The simplest script found that fails in the same way."""
    tries = 0
    found = True
    while found and tries < _LONGEST_SEARCH:
        found = False
        for candidate in simpler(whole):
            tries += 1
            other_world, other = _run(candidate)
            if other is not None and _kind(other) == _kind(error):
                whole, world, error, found = candidate, other_world, other, True
                break
            if tries >= _LONGEST_SEARCH:
                break
    return whole, world, error


def _kind(error: BaseException) -> str:
    """What is the same in errors of one cause: the words, less names and numbers."""
    return type(error).__name__ + re.sub(r"[\[{(].*?[\]})]|\w*\d\w*", "", str(error))[:60]


def as_test(found: Script, error: BaseException) -> str:
    """The text of a test that runs a script."""
    moves = "".join(f"        {move!r},\n" for move in found.moves)
    reason = str(error).replace('"', "'").splitlines()[0][:90]
    return (
        "def test_found_by_simulation() -> None:\n"
        f'    """{type(error).__name__}: {reason}"""\n'
        "    moves = (\n"
        f"{moves}"
        "    )\n"
        f"    simulate(Script({found.options!r}, moves))\n"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The log of a run that is meant to go wrong says nothing."""
    logger = logging.getLogger("kflow")
    before, level = logger.propagate, logger.level
    logger.propagate = False
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.propagate = before
        logger.setLevel(level)


def _smaller_segments(segment_bytes: int) -> int:
    """Have segments roll at this size. Returns the size before, to be set again."""
    before = limits.SEGMENT_BYTES
    limits.SEGMENT_BYTES = segment_bytes  # type: ignore[misc]  # the log asks for it each time
    return before
