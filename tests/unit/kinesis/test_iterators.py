import base64

import pytest

from kflow.errors import ExpiredIterator, InvalidArgument
from kflow.kinesis import iterators
from kflow.kinesis.iterators import Place, Start
from kflow.kinesis.seals import Seal
from kflow.records import Position
from tests.recordsdesk import Desk

SEAL = Seal(b"a folder")
PLACE = Place(2**64 - 1, "orders", 7, Position(2**63, 2**31))


def test_a_token_says_what_was_put_into_it():
    assert iterators.decode(SEAL, iterators.encode(SEAL, PLACE, 1000), 1000) == PLACE


def test_a_token_of_the_longest_name_has_at_most_512_characters_and_begins_as_on_aws():
    token = iterators.encode(SEAL, PLACE._replace(name="n" * 128), 1000)
    assert len(token) == 256
    assert base64.b64decode(token)[:8] == b"\0\0\0\0\0\0\0\1"


def test_a_changed_token_is_none():
    token = iterators.encode(SEAL, PLACE, 1000)
    for at in range(0, len(token) - 2, 7):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(InvalidArgument):
            iterators.decode(SEAL, changed, 1000)


def test_a_token_of_another_kind_or_folder_is_none():
    for token in (SEAL.close(b"shards", b"x" * 60), iterators.encode(Seal(b"another"), PLACE, 1000), ""):
        with pytest.raises(InvalidArgument):
            iterators.decode(SEAL, token, 1000)


def test_a_token_lives_for_five_minutes_and_tolerates_quotes():
    token = iterators.encode(SEAL, PLACE, 1_421_889_722_000)
    assert iterators.decode(SEAL, f'"{token}"', 1_421_890_022_000) == PLACE
    with pytest.raises(ExpiredIterator) as raised:
        iterators.decode(SEAL, token, 1_421_890_022_001)
    assert str(raised.value) == (
        "Iterator expired. The iterator was created at time Thu Jan 22 01:22:02 UTC 2015 while right now it is "
        "Thu Jan 22 01:27:02 UTC 2015 which is further in the future than the tolerated delay of 300000 milliseconds."
    )


def test_a_clock_that_goes_back_expires_nothing():
    token = iterators.encode(SEAL, PLACE, 1_000_000)
    assert iterators.decode(SEAL, token, 0) == PLACE
    with pytest.raises(ExpiredIterator):
        iterators.decode(SEAL, token, 1_300_001)


@pytest.fixture
def stored(tmp_path):
    """A shard with two records of one second and a third of the next, and a reader of it."""
    desk = Desk(tmp_path / "data")
    stream = desk.create()
    for _ in range(2):
        desk.call("PutRecord", StreamName="orders", Data=b"x", PartitionKey="k")
    desk.clock.advance(1000)
    desk.call("PutRecord", StreamName="orders", Data=b"x", PartitionKey="k")
    page = desk.parts.reading.read(stream.map, 0, Position(0, 0), print)
    if page is None:
        desk.host.run()
    (reader,) = desk.parts.reading._readers.values()
    return reader, desk.clock.epoch_ms // 1000


@pytest.mark.parametrize(
    ("kind", "counter", "later_s", "record"),
    [
        ("AT_SEQUENCE_NUMBER", 3, 0, 3),
        ("AT_SEQUENCE_NUMBER", 3, -1, 3),
        ("AT_SEQUENCE_NUMBER", 3, 1, 4),
        ("AFTER_SEQUENCE_NUMBER", 3, 0, 4),
        ("AFTER_SEQUENCE_NUMBER", 3, -1, 3),
        ("AFTER_SEQUENCE_NUMBER", 3, 1, 4),
        ("AT_SEQUENCE_NUMBER", 4, 0, 4),
        ("AFTER_SEQUENCE_NUMBER", 0, -100, 1),
        ("AT_SEQUENCE_NUMBER", 2, -1, 2),
        ("AT_SEQUENCE_NUMBER", 2, 0, 3),
    ],
)
def test_numbers_are_compared_as_numbers_whether_a_record_has_them_or_not(stored, kind, counter, later_s, record):
    reader, now_s = stored
    start = Start(kind, counter=counter, arrival_s=now_s + later_s)
    position = start.look(reader)
    found = reader.read(position.offset)
    assert (found[0].first_counter + position.index if found else 4) == record
    assert start.glance(reader) in (None, position)


def test_only_the_tip_is_known_without_a_file(stored):
    reader, now_s = stored
    assert Start("LATEST").glance(reader) == Position(reader.tail, 0)
    assert Start("TRIM_HORIZON").glance(None) == Position(0, 0)
    assert Start("LATEST").glance(None) is None
    assert Start("AT_TIMESTAMP", epoch_ms=1).glance(reader) is None
    assert Start("AFTER_SEQUENCE_NUMBER", counter=3, arrival_s=now_s).glance(reader) == Position(reader.tail, 0)
    assert Start("AT_SEQUENCE_NUMBER", counter=3, arrival_s=now_s).glance(reader) is None
