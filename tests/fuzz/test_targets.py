"""The fuzzer's targets, without the fuzzer: on the inputs it begins with, and on some that differ a little."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest

from tests.fuzz.targets import TARGETS, Complaints


@pytest.fixture
def complaints() -> Iterator[None]:
    handler = Complaints()
    logging.getLogger("kflow").addHandler(handler)
    yield
    logging.getLogger("kflow").removeHandler(handler)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_seeds_and_for_what_is_like_them(name, complaints):
    target = TARGETS[name]
    seeds = list(target.seeds())
    assert seeds
    dice = random.Random(5)
    for _ in range(2):
        for seed in seeds:
            target.check(seed)
            for _ in range(max(1, 100 // len(seeds))):
                target.check(changed(seed, dice))


def changed(seed: bytes, dice: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        data[at : at + dice.randint(0, 2)] = dice.randbytes(dice.randint(0, 2))
    return bytes(data)
