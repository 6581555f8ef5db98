"""Plans of splits, merges and scalings: AWS's ranges, numbers and refusals."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from kflow.broker.hashkeys import HASH_KEY_END, even_ranges, middle
from kflow.broker.reshardplan import Plan, merge, parsed, scale, split
from kflow.broker.sequence import CLOSING_COUNTER, number, parse
from kflow.broker.streammap import ShardInfo, StreamMap, StreamMode
from kflow.errors import InvalidArgument, LimitExceeded, ResourceNotFound, ValidationFailed

ACCOUNT = "123456789012"
REGION = "us-east-1"
NOW_MS = 1_700_000_100_500


def stream(shards: int = 1, mode: StreamMode = StreamMode.PROVISIONED) -> StreamMap:
    return StreamMap(
        name="orders",
        id=7,
        created_s=1_700_000_000,
        mode=mode,
        shards=tuple(
            ShardInfo(index=index, start=start, end=end, created_s=1_700_000_000)
            for index, (start, end) in enumerate(even_ranges(shards))
        ),
    )


def done(plan: Plan) -> StreamMap:
    return plan.published(NOW_MS // 1000 + 1, NOW_MS)


def ranges(of: StreamMap) -> list[tuple[int, int]]:
    return [(shard.start, shard.end) for shard in of.open_shards]


def test_a_split_makes_the_lower_child_first_and_closes_the_parent() -> None:
    plan = split(stream(), 0, "1000", account=ACCOUNT, region=REGION)
    new = done(plan)

    assert plan.closing == (0,)
    assert plan.opening == (1, 2)
    assert [(s.index, s.start, s.end, s.parents) for s in new.shards] == [
        (0, 0, HASH_KEY_END, ()),
        (1, 0, 999, (0,)),
        (2, 1000, HASH_KEY_END, (0,)),
    ]
    assert new.generation == 2


def test_the_closing_number_and_the_childs_creation_are_those_of_aws() -> None:
    new = done(split(stream(), 0, None, account=ACCOUNT, region=REGION))

    assert new.shards[0].closed == number(1_700_000_000, 0, CLOSING_COUNTER, NOW_MS)
    assert parse(new.shards[0].closed).arrival_s == 1_700_000_100
    assert [shard.created_s for shard in new.shards[1:]] == [1_700_000_101] * 2
    for child in new.shards[1:]:
        assert number(child.created_s, child.index, 0, child.created_s * 1000) > new.shards[0].closed


@pytest.mark.parametrize("at", ["0", "1", str(HASH_KEY_END), str(HASH_KEY_END + 1)])
def test_a_split_outside_of_the_range_is_refused_in_awss_words(at: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        split(stream(), 0, at, account=ACCOUNT, region=REGION)
    assert str(refused.value) == (
        f"NewStartingHashKey {at} used in SplitShard() on shard shardId-000000000000 in stream orders under account "
        "123456789012 is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's "
        "EndingHashKey 340282366920938463463374607431768211455."
    )


@pytest.mark.parametrize("at", ["2", str(HASH_KEY_END - 1)])
def test_the_outermost_splits_that_aws_takes_are_taken(at: str) -> None:
    assert done(split(stream(), 0, at, account=ACCOUNT, region=REGION)).shards[2].start == int(at)


@pytest.mark.parametrize("at", ["", "01", "-1", "x", "1" * 40, "٣"])
def test_a_hash_key_that_breaks_the_pattern_is_no_valid_parameter(at: str) -> None:
    with pytest.raises(ValidationFailed, match=r"at 'newStartingHashKey' failed to satisfy constraint: .*pattern"):
        split(stream(), 0, at, account=ACCOUNT, region=REGION)


def test_a_shard_that_is_not_there_is_named_canonically() -> None:
    with pytest.raises(ResourceNotFound) as refused:
        split(stream(), 5, "17", account=ACCOUNT, region=REGION)
    text = "Could not find shard shardId-000000000005 in stream orders under account 123456789012."
    assert str(refused.value) == text
    with pytest.raises(ResourceNotFound) as refused:
        merge(stream(2), 0, 5, account=ACCOUNT)
    assert str(refused.value) == text


@pytest.mark.parametrize(("text", "index"), [("shardId-0", 0), ("x-1", 1), ("-2", 2), ("3", 3)])
def test_shard_ids_are_read_as_leniently_as_aws_reads_them(text: str, index: int) -> None:
    assert parsed(text, "orders", ACCOUNT) == index


@pytest.mark.parametrize("text", ["2147483648", "2.14E4", "ABKLFD8"])
def test_what_is_no_shard_id_could_not_be_found_as_given(text: str) -> None:
    with pytest.raises(ResourceNotFound) as refused:
        parsed(text, "orders", ACCOUNT)
    assert str(refused.value) == f"Could not find shard {text} in stream orders under account {ACCOUNT}."


def test_a_closed_shard_is_neither_split_nor_merged() -> None:
    once = done(split(stream(2), 0, None, account=ACCOUNT, region=REGION))
    with pytest.raises(InvalidArgument, match=r"shardId-000000000000 .* is closed"):
        split(once, 0, None, account=ACCOUNT, region=REGION)
    with pytest.raises(InvalidArgument, match="not an adjacent pair of shards eligible for merging"):
        merge(once, 0, 1, account=ACCOUNT)


def test_a_merge_has_both_parents_and_the_union_of_their_ranges() -> None:
    new = done(merge(stream(3), 1, 2, account=ACCOUNT))
    child = new.shards[3]
    assert child.parents == (1, 2)
    assert (child.start, child.end) == (even_ranges(3)[1][0], HASH_KEY_END)
    assert [shard.is_open for shard in new.shards] == [True, False, False, True]


@pytest.mark.parametrize("pair", [(1, 0), (0, 2), (0, 0)])
def test_only_neighbours_in_order_are_merged(pair: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        merge(stream(3), *pair, account=ACCOUNT)
    assert str(refused.value) == (
        f"Shards shardId-00000000000{pair[0]} and shardId-00000000000{pair[1]} in stream orders under account "
        "123456789012 are not an adjacent pair of shards eligible for merging"
    )


def test_shards_beyond_the_quota_are_refused() -> None:
    for refused in (
        lambda: split(stream(1000), 0, None, account=ACCOUNT, region=REGION),
        lambda: scale(stream(1000), 1001, account=ACCOUNT, region=REGION),
    ):
        with pytest.raises(LimitExceeded, match=r"for the account: 1000. Limit: 1000. .*request: 1"):
            refused()


def test_the_quota_is_looked_at_before_the_hash_key() -> None:
    with pytest.raises(LimitExceeded):
        split(stream(1000), 0, "1", account=ACCOUNT, region=REGION)


def test_a_stream_on_demand_is_not_resharded_by_hand() -> None:
    found = stream(2, StreamMode.ON_DEMAND)
    text = "Request is invalid. Stream orders under account 123456789012 is in On-Demand mode."
    for refused in (
        lambda: split(found, 0, None, account=ACCOUNT, region=REGION),
        lambda: merge(found, 0, 1, account=ACCOUNT),
        lambda: scale(found, 3, account=ACCOUNT, region=REGION),
    ):
        with pytest.raises(ValidationFailed) as error:
            refused()
        assert str(error.value) == text


@pytest.mark.parametrize(("current", "target", "how"), [(2, 5, "up over double"), (5, 2, "down below half")])
def test_scaling_is_bounded_by_double_and_half(current: int, target: int, how: str) -> None:
    with pytest.raises(LimitExceeded) as refused:
        scale(stream(current), target, account=ACCOUNT, region=REGION)
    assert str(refused.value) == (
        f"UpdateShardCount cannot scale {how} your current open shard count. "
        f"Current open shard count: {current} Target shard count: {target}"
    )


def test_scaling_to_what_is_there_or_to_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="has 3 open shards already"):
        scale(stream(3), 3, account=ACCOUNT, region=REGION)
    with pytest.raises(ValidationFailed, match="'0' at 'targetShardCount'"):
        scale(stream(1), 0, account=ACCOUNT, region=REGION)


def test_four_shards_become_three_by_the_steps_of_aws() -> None:
    """Source: recorded: AWS splits shards 1 and 2 at the thirds, then merges neighbours."""
    plan = scale(stream(4), 3, account=ACCOUNT, region=REGION)
    new = done(plan)

    assert [(birth.index, birth.parents, birth.round) for birth in plan.births] == [
        (4, (1,), 0),
        (5, (1,), 0),
        (6, (2,), 0),
        (7, (2,), 0),
        (8, (0, 4), 1),
        (9, (5, 6), 1),
        (10, (7, 3), 1),
    ]
    assert plan.closing == (0, 1, 2, 3)
    assert plan.opening == (8, 9, 10)
    assert ranges(new) == even_ranges(3)
    assert [shard.is_open for shard in new.shards] == [False] * 8 + [True] * 3


@pytest.mark.parametrize(("current", "target"), [(1, 2), (2, 3), (3, 2), (4, 8), (7, 5), (500, 1000), (1000, 500)])
def test_every_target_has_the_ranges_of_a_new_stream(current: int, target: int) -> None:
    assert ranges(done(scale(stream(current), target, account=ACCOUNT, region=REGION))) == even_ranges(target)


@pytest.mark.parametrize("seed", range(20))
def test_ranges_cover_every_hash_key_once_and_numbers_rise_through_any_changes(seed: int) -> None:
    chance = random.Random(seed)
    found = stream(chance.randint(1, 4))
    second = 1_700_000_200
    for _ in range(30):
        shards = found.open_shards
        kind = chance.choice(("split", "merge", "scale"))
        if kind == "split":
            chosen = chance.choice(shards)
            cut = chance.randint(chosen.start + 2, chosen.end - 1)
            plan = split(found, chosen.index, str(cut), account=ACCOUNT, region=REGION)
        elif kind == "merge" and len(shards) > 1:
            at = chance.randrange(len(shards) - 1)
            plan = merge(found, shards[at].index, shards[at + 1].index, account=ACCOUNT)
        else:
            target = chance.choice([n for n in range((len(shards) + 1) // 2, 2 * len(shards) + 1) if n != len(shards)])
            plan = scale(found, target, account=ACCOUNT, region=REGION)
        found = plan.published(second + 1, second * 1000)
        second += 1 + plan.rounds

        kept = ranges(found)
        assert kept[0][0] == 0
        assert kept[-1][1] == HASH_KEY_END
        assert all(end + 1 == start for (_, end), (start, _) in itertools.pairwise(kept))
        if kind == "scale":
            assert kept == even_ranges(len(kept))
    for child in found.shards:
        for parent in (found.shards[index] for index in child.parents):
            assert parent.index < child.index
            assert parent.closed is not None
            assert number(child.created_s, child.index, 0, 0) > parent.closed
            assert parent.start <= child.end
            assert child.start <= parent.end


def test_a_scaling_of_shards_that_are_too_narrow_for_a_split_by_hand_is_complete() -> None:
    narrow = msgspec.structs.replace(
        stream(),
        shards=(
            ShardInfo(index=0, start=0, end=(1 << 127) - 2, created_s=1),
            ShardInfo(index=1, start=(1 << 127) - 1, end=1 << 127, created_s=1),
            ShardInfo(index=2, start=(1 << 127) + 1, end=HASH_KEY_END, created_s=1),
        ),
    )
    assert ranges(done(scale(narrow, 2, account=ACCOUNT, region=REGION))) == even_ranges(2)


@pytest.mark.parametrize(("start", "end", "cut"), [(0, HASH_KEY_END, 1 << 127), (0, 3, 2), (10, 14, 12)])
def test_the_middle_of_a_range_is_where_its_upper_half_begins(start: int, end: int, cut: int) -> None:
    assert middle(start, end) == cut
