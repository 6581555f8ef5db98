"""Hash keys and ranges."""

from __future__ import annotations

import itertools

import pytest

from kflow.broker.hashkeys import HASH_KEY_END, LANES, digest, even_ranges


def test_a_hash_key_is_the_md5_of_the_key_as_utf8() -> None:
    assert digest("a").hex() == "0cc175b9c0f1b6a831c399e269772661"
    assert digest("ä").hex() == "8419b71c87a225a2c70b50486fbee545"


def test_three_shards_have_the_ranges_that_aws_gives_them() -> None:
    assert even_ranges(3) == [
        (0, 113427455640312821154458202477256070484),
        (113427455640312821154458202477256070485, 226854911280625642308916404954512140969),
        (226854911280625642308916404954512140970, 340282366920938463463374607431768211455),
    ]


@pytest.mark.parametrize("count", [1, 2, 7, 999, 1000])
def test_ranges_cover_every_hash_key_once(count: int) -> None:
    ranges = even_ranges(count)
    assert len(ranges) == count
    assert ranges[0][0] == 0
    assert ranges[-1][1] == HASH_KEY_END
    assert all(end + 1 == start for (_, end), (start, _) in itertools.pairwise(ranges))


@pytest.mark.parametrize("factor", range(1, 11))
def test_lanes_of_every_factor_follow_from_the_stored_residue(factor: int) -> None:
    assert LANES % factor == 0
