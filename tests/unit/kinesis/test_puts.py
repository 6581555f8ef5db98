"""The engine of puts: slices, shards that change meanwhile, order."""

import msgspec
import pytest

from kflow.errors import InternalError, ResourceNotFound, StaleMap
from kflow.kinesis.putcalls import Entries
from kflow.kinesis.puts import Puts
from kflow.kinesis.throttle import ShardLimits
from tests.recordsdesk import Desk


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "data")


def entries(*datas, key="k"):
    return Entries([key] * len(datas), datas, None, sum(map(len, datas)) + len(datas) * len(key))


def records(desk, shard):
    return [record["Data"] for record in desk.drain(desk.iterator(shard=str(shard)))]


def test_a_call_goes_on_with_the_shards_that_replace_its_own(desk):
    stream = desk.create()
    puts, told = Puts(desk.host), []
    desk.host.held = True
    assert puts.put(stream, entries(b"1", b"2"), told.append) is None
    new = desk.split(stream)
    desk.learn(new)
    desk.host.release()
    desk.host.run()
    (outcome,) = told
    assert outcome.errors == {}
    assert len(set(outcome.shards)) == 1
    assert records(desk, 0) == []
    assert records(desk, outcome.shards[0][-1]) == [b"1", b"2"]


def test_calls_keep_their_order_where_shards_change_under_them(desk):
    stream = desk.create()
    puts, told = Puts(desk.host), []
    desk.host.held = True
    for number in range(3):
        puts.put(stream, entries(b"%d" % number), told.append)
    desk.learn(desk.split(stream))
    desk.host.later.reverse()  # whatever is told first
    puts.put(stream, entries(b"3"), told.append)
    desk.host.release()
    puts.put(stream, entries(b"4"), told.append)
    desk.host.run()
    assert len(told) == 5
    assert not any(outcome.errors for outcome in told)
    (shard,) = {outcome.shards[0][-1] for outcome in told}
    assert records(desk, shard) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_small_call_waits_behind_the_slices_of_a_large_one(desk):
    stream = desk.create()
    puts, told = Puts(desk.host), []
    large = [bytes([number]) * 100_000 for number in range(10)]
    assert puts.put(stream, entries(*large), lambda outcome: told.append("large")) is None
    assert puts.put(stream, entries(b"small"), lambda outcome: told.append("small")) is None
    desk.host.run()
    assert told == ["large", "small"]
    assert records(desk, 0) == [*large, b"small"]
    assert puts.put(stream, entries(b"at once"), told.append) is not None


def test_a_call_that_turns_stale_between_its_slices_keeps_its_order(desk):
    stream = desk.create()
    puts, told = Puts(desk.host), []
    large = [bytes([number]) * 100_000 for number in range(10)]
    desk.host.held = True
    puts.put(stream, entries(*large), told.append)
    desk.learn(desk.split(stream))
    desk.host.release()
    desk.host.run()
    (outcome,) = told
    assert outcome.errors == {}
    assert records(desk, outcome.shards[0][-1]) == large


def test_a_map_that_nobody_has_told_of_is_waited_for(desk):
    stream = desk.create()
    puts, told = Puts(desk.host), []
    new = desk.split(stream)
    desk.host.maps[stream.id] = new  # the node knows, the registry does not yet
    assert puts.put(stream, entries(b"1"), told.append) is None
    desk.registry.learn(new)
    desk.host.run()
    assert told[0].errors == {}


def test_a_map_that_never_comes_is_an_error_of_ours(desk):
    stream = desk.create()
    puts, told = Puts(desk.host), []
    desk.host.refusal = StaleMap("changed")
    puts.put(stream, entries(b"1"), told.append)
    puts.put(stream, entries(b"2"), told.append)
    desk.host.run()
    assert [type(outcome.errors[0]) for outcome in told] == [InternalError, InternalError]
    desk.host.refusal = None
    assert puts.put(stream, entries(b"3"), told.append) is not None


def test_a_stream_that_goes_meanwhile_refuses_all_that_waits(desk):
    stream = desk.create()
    puts, told = Puts(desk.host), []
    desk.host.held = True
    puts.put(stream, entries(b"1"), told.append)
    desk.delete(stream)
    desk.host.release()
    desk.host.run()
    assert isinstance(told[0].errors[0], ResourceNotFound)


def test_limits_are_not_asked_again_for_records_that_are_routed_anew(desk):
    stream = desk.create()
    throttle, told = ShardLimits(), []
    puts = Puts(desk.host, throttle)
    desk.host.held = True
    puts.put(stream, entries(*[b"x"] * 500), told.append)
    desk.learn(desk.split(stream))
    desk.host.release()
    desk.host.run()
    assert told[0].errors == {}
    puts.put(stream, entries(*[b"x"] * 500), told.append)
    desk.host.run()
    assert told[1].errors == {}


def test_a_stream_that_takes_larger_records_now_is_encoded_for_anew(desk):
    stream = desk.create()
    puts = Puts(desk.host)
    puts.put(stream, entries(b"1"), print)
    desk.learn(msgspec.structs.replace(stream.map, max_record_bytes=4 << 20))
    told = []
    puts.put(stream, entries(b"x" * (3 << 20)), told.append)
    desk.host.run()
    assert told[0].errors == {}


def test_streams_that_nobody_puts_to_are_let_go_of_unless_something_is_under_way(desk):
    puts, told = Puts(desk.host), []
    streams = [desk.create(f"stream{number}") for number in range(70)]
    desk.host.held = True
    puts.put(streams[0], entries(b"0"), told.append)
    desk.host.held = False
    for stream in streams[1:]:
        puts.put(stream, entries(b"x"), told.append)
    assert len(puts._writers) == 17
    desk.host.release()
    assert told[0].errors == {}
