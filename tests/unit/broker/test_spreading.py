"""Records that go to the shards in turn, and answers by column."""

import pytest

from kflow.broker.encode import Encoder
from kflow.broker.sequence import parse
from kflow.errors import InvalidArgument, ValidationFailed
from tests.storing import Store, read_all


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data", shards=3)


def append(store, parts):
    return store.log.append(store.stream, parts)


def test_records_go_to_the_shards_in_turn_from_any_of_them(store):
    datas = [b"%d" % number for number in range(7)]
    parts = store.encoder.encode_spread([""] * 7, datas, 4)
    assert [(part.shard, list(part.indexes)) for part in parts] == [(1, [0, 3, 6]), (2, [1, 4]), (0, [2, 5])]
    append(store, parts)
    assert [data for _, data in read_all(store.folder, store.stream)] == [b"2", b"5", b"0", b"3", b"6", b"1", b"4"]


def test_keys_are_kept_where_there_are_some_and_have_their_lane(store):
    keys = ["", "key", "", "ä" * 256]
    append(store, store.encoder.encode_spread(keys, [b"x"] * 4, 0))
    assert sorted(key for key, _ in read_all(store.folder, store.stream)) == ["", "", "key", "ä" * 256]
    (part,) = store.encoder.encode_many(["key", "key"], [b"x", b"x"])
    by_key = part.body[10:14]
    spread = store.encoder.encode_spread(["key"], [b"x"], 0)[0]
    assert spread.body[5:7] == by_key[:2]


def test_constraints_hold(store):
    with pytest.raises(ValidationFailed, match="256"):
        store.encoder.encode_spread(["k" * 257], [b""], 0)
    with pytest.raises(ValidationFailed, match="1048576"):
        store.encoder.encode_spread([""], [b"x" * ((1 << 20) + 1)], 0)
    with pytest.raises(InvalidArgument, match="too large"):
        store.encoder.encode_spread(["k"], [b"x" * (1 << 20)], 0)


def test_columns_say_what_placed_says(store):
    keys = [str(number) for number in range(20)]
    parts = store.encoder.encode_many(keys, [b"x"] * 20)
    answers = append(store, parts)
    numbers, ids = store.encoder.columns(20, parts, answers)
    placed = store.encoder.placed(20, parts, answers)
    assert numbers == [str(place.sequence_number) for place in placed]
    assert ids == [place.shard_id for place in placed]


def test_columns_of_one_part_and_of_records_that_are_in_none(tmp_path):
    store = Store(tmp_path / "one")
    encoder = Encoder(store.stream)
    parts = encoder.encode_many(["k", "k"], [b"1", b"2"])
    answers = append(store, parts)
    numbers, ids = encoder.columns(2, parts, answers)
    assert [parse(int(text)).counter for text in numbers] == [1, 2]
    assert ids == ["shardId-000000000000"] * 2
    assert encoder.columns(3, [parts[0]._replace(indexes=[2, 0])], answers) == (
        [numbers[1], "", numbers[0]],
        [ids[0], "", ids[0]],
    )
