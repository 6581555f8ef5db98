"""The core under everything at once, in virtual time: seeds in the suite, ten thousand of them with `--full`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from kflow.broker.files import Files
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.declarations import MappingOptions
from kflow.lambda_ import entering, mapping, settle
from kflow.lambda_.responses import Verdict
from kflow.runtime.plan.leases import LeaseTable
from kflow.runtime.plan.lineage import Lineage
from kflow.testing.process import ProcessFiles
from kflow.testing.simulation import Move, Script, SimOptions, SimulationFailed, script, simulate

SEEDS = 300
FULL = 10_000
CHUNK = 10


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "first_seed" in metafunc.fixturenames:
        count = FULL if metafunc.config.getoption("--full") else SEEDS
        metafunc.parametrize("first_seed", range(0, count, CHUNK))


def test_nothing_is_lost_doubled_or_out_of_order(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + CHUNK):
        simulate(seed)


# ---------------------------------------------------------------- one seed, one trace


def test_a_seed_gives_the_same_run_each_time() -> None:
    one, two = simulate(7), simulate(7)
    assert one.trace == two.trace
    assert one == two


def test_a_seed_gives_the_same_run_in_another_process() -> None:
    code = "from kflow.testing.simulation import simulate; print(simulate(11).digest)"
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        digests.add(done.stdout)
    assert digests == {f"{simulate(11).digest}\n"}


def test_a_script_is_written_as_the_expression_that_makes_it() -> None:
    for seed in range(50):
        whole = script(seed)
        names = {"SimOptions": SimOptions, "MappingOptions": MappingOptions, "Move": Move}
        assert eval(repr(whole.options), names) == whole.options
        assert tuple(eval(repr(move), names) for move in whole.moves) == whole.moves


def test_seeds_play_every_move_and_every_option() -> None:
    scripts = [script(seed) for seed in range(SEEDS)]
    assert {move.kind for each in scripts for move in each.moves} >= {"power", "fuse node", "reshard", "expire", "skew"}
    mappings = [each.options.mapping for each in scripts]
    plain = MappingOptions(batch_size=10)
    untouched = {"starting_position", "starting_position_ms"}
    for field in set(plain.__struct_fields__) - untouched:
        assert any(getattr(each, field) != getattr(plain, field) for each in mappings), field


# ---------------------------------------------------------------- found by seeds


def test_with_always_nothing_that_was_not_acknowledged_overtakes_what_is_sent_again() -> None:
    moves = (
        Move("put", 3280387012, 1),
        Move("wait", 1095513148, 0),
        Move("put", 1930549411, 25),
        Move("put", 2798570523, 1),
        Move("power", 3387541014, 0),
    )
    simulate(Script(SimOptions(fsync="always"), moves))


def test_nor_where_power_is_lost_before_a_shard_was_synced_for_the_first_time() -> None:
    moves = (
        Move("put", 3596902313, 6),
        Move("put", 1006443827, 1),
        Move("power", 2045921456, 0),
    )
    simulate(Script(SimOptions(shards=4, fsync="always"), moves))


def test_nor_where_the_file_is_missing_that_would_come_first() -> None:
    moves = (
        Move("put", 2410389830, 3),
        Move("put", 3200727216, 500),
        Move("power", 996185908, 0),
    )
    simulate(Script(SimOptions(shards=4, fsync="always", segment_bytes=2_000), moves))


def test_expired_records_do_not_come_back_where_power_took_what_lay_behind_them() -> None:
    moves = (
        Move("put", 2454155475, 1),
        Move("put", 1842064464, 1),
        Move("wait", 2482883256, 0),
        Move("sync fails", 885185152, 0),
        Move("put", 3493188185, 1),
        Move("put", 3537287287, 1),
        Move("put", 688180719, 1),
        Move("expire", 2236257879, 0),
        Move("power", 1407773507, 0),
    )
    simulate(Script(SimOptions(fsync="always"), moves))


def test_the_checkpoint_of_a_closed_shard_counts_that_a_worker_stored_as_it_died() -> None:
    moves = (
        Move("put", 1061748893, 1),
        Move("work", 3203857510, 5),
        Move("reshard", 3322715849, 0),
        Move("fuse worker", 505093534, 3),
    )
    options = MappingOptions(batch_size=10, maximum_batching_window_in_seconds=5)
    simulate(Script(SimOptions(mapping=options), moves))


def test_with_always_nothing_expires_past_what_may_be_read_where_a_sync_failed() -> None:
    moves = (
        Move("put", 2428030132, 100),
        Move("work", 320497076, 1),
        Move("sync fails", 395367801, 0),
        Move("put", 2646866190, 1),
        Move("expire", 3171710279, 0),
        Move("work", 3716850163, 1),
    )
    simulate(Script(SimOptions(fsync="always"), moves))


# ---------------------------------------------------------------- broken cores are caught


def fails_within(seeds: int, first: int) -> SimulationFailed:
    """The first failure of all seeds, from `first` on."""
    for seed in (*range(first, seeds), *range(first)):
        try:
            simulate(seed, shrink=False)
        except SimulationFailed as failure:
            return failure
    raise AssertionError(f"{seeds} seeds found nothing wrong")


def breaks_partial_responses(patch: pytest.MonkeyPatch) -> None:
    """One record too few counts as done."""
    judge = mapping.judge

    def broken(*args: Any, **named: Any) -> Verdict:
        verdict = judge(*args, **named)
        return verdict._replace(done=verdict.done - 1) if verdict.is_partial and verdict.done > 1 else verdict

    patch.setattr(mapping, "judge", broken)


def breaks_counting(patch: pytest.MonkeyPatch) -> None:
    """The death of a worker in an attempt is not counted."""
    patch.setattr(entering, "counted_death", lambda slot, grant: None)


def breaks_interruptions(patch: pytest.MonkeyPatch) -> None:
    """An attempt that nobody saw end is counted."""
    interrupted = entering.interrupted

    def broken(slot: Any, grant: Any) -> Any:
        kept = interrupted(slot, grant)
        return type(kept)(**{name: getattr(kept, name) for name in kept.__struct_fields__} | {"attempt": slot.attempt})

    patch.setattr(entering, "interrupted", broken)


def breaks_retries(patch: pytest.MonkeyPatch) -> None:
    """A batch is given up one attempt early."""
    patch.setattr(
        settle, "is_spent", lambda options, attempts: 0 <= options.maximum_retry_attempts <= attempts and attempts > 0
    )


def breaks_parking(patch: pytest.MonkeyPatch) -> None:
    """What is parked is not written."""
    patch.setattr(ParkedStore, "_write", lambda *args: None)


def breaks_wake_ups(patch: pytest.MonkeyPatch) -> None:
    """An append wakes nobody."""
    patch.setattr(LeaseTable, "news", lambda *args: False)


def breaks_generations(patch: pytest.MonkeyPatch) -> None:
    """A return of a generation that was given back counts."""
    returned = LeaseTable.returned

    def broken(self: LeaseTable, worker: int, message: Any, *rest: Any) -> bool:
        lease = self.places[worker].leases.get(message.lease)
        return returned(self, worker, message if lease is None else _with(message, generation=lease.generation), *rest)

    patch.setattr(LeaseTable, "returned", broken)


def breaks_lineage(patch: pytest.MonkeyPatch) -> None:
    """Children do not wait for their parents."""
    patch.setattr(Lineage, "must_wait", lambda self, lease: False)


def breaks_resending(patch: pytest.MonkeyPatch) -> None:
    """A block that was stored before the node died is not found."""
    patch.setattr(Log, "find", lambda *args: None)


def breaks_syncs(patch: pytest.MonkeyPatch) -> None:
    """A sync does nothing."""
    patch.setattr(ProcessFiles, "fdatasync", lambda self, fd: None)
    patch.setattr(ProcessFiles, "fsync", lambda self, fd: None)
    assert issubclass(ProcessFiles, Files)


def _with(message: Any, **changes: Any) -> Any:
    return type(message)(**{name: getattr(message, name) for name in message.__struct_fields__} | changes)


@pytest.mark.parametrize(
    ("breaks", "says", "first"),  # the search begins where a seed is known to catch it
    [
        (breaks_partial_responses, "records where", 0),
        (breaks_counting, "made attempt", 0),
        (breaks_interruptions, "made attempt", 0),
        (breaks_retries, "gives up", 0),
        (breaks_parking, "does not hold it", 0),
        (breaks_wake_ups, "sleeps|waits for news", 0),
        (breaks_generations, "twice at the same time|after its checkpoint|went back", 100),
        (breaks_lineage, "before .* has settled everything", 0),
        (breaks_resending, "stored twice|acknowledged twice", 0),
        (breaks_syncs, "with the power", 0),
    ],
)
def test_a_broken_core_is_caught(
    monkeypatch: pytest.MonkeyPatch, breaks: Callable[[pytest.MonkeyPatch], None], says: str, first: int
) -> None:
    breaks(monkeypatch)
    assert re.search(says, str(fails_within(SEEDS, first)))


def test_a_failure_is_cut_down_to_a_test_that_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks_wake_ups(monkeypatch)
    with pytest.raises(SimulationFailed) as raised:
        simulate(0)
    assert len(raised.value.script.moves) <= 3
    text = str(raised.value)
    code = text[text.index("def test_found_by_simulation") :]
    names: dict[str, Any] = {
        "Move": Move,
        "Script": Script,
        "SimOptions": SimOptions,
        "MappingOptions": MappingOptions,
        "simulate": simulate,
    }
    exec(code, names)
    with pytest.raises(SimulationFailed):
        names["test_found_by_simulation"]()
    monkeypatch.undo()
    names["test_found_by_simulation"]()
