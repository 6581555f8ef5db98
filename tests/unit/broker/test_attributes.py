"""What is kept of a stream beside its map: on the disk as it is in memory, damaged as its twin."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kflow.broker import attributes
from kflow.broker.attributes import Attributes, Consumer, Pending
from kflow.broker.files import FILES
from kflow.errors import StorageError
from tests.storing import FaultyFiles

EVERYTHING = Attributes(
    created_ms=1_700_000_000_123,
    active_ms=1_700_000_000_623,
    updated_ms=1_700_000_001_000,
    pending=Pending(kind="split", due_ms=1_700_000_002_000, arguments={"shard": "shardId-000000000000", "at": "5"}),
    tags={"größe": "長さ"},
    policy='{"Version": "2012-10-17"}',
    key_id="alias/aws/kinesis",
    metrics=("IncomingBytes",),
    consumers=(Consumer(name="fast", created_s=1_700_000_000, active_ms=1, gone_ms=2, tags={"a": "b"}, policy="{}"),),
    seconds={"slow": 1_700_000_000},
    warm_mibps=10,
    warm_before_mibps=4,
    distribution="AUTO",
    modes_ms=(1,),
    scalings_ms=(2, 3),
    keys_ms=(4,),
)


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    attributes.store(tmp_path, EVERYTHING, FILES, sync=False)
    assert attributes.load(tmp_path, FILES) == EVERYTHING


def test_nothing_is_all_defaults(tmp_path: Path) -> None:
    assert attributes.load(tmp_path, FILES) == Attributes()


def test_defaults_are_left_out_of_the_text() -> None:
    assert attributes.encode(Attributes(tags={"a": "b"})) == (
        b'{"crc":"2a92fdfe","version":1,"attributes":{"tags":{"a":"b"}}}\n'
    )


def test_any_flipped_byte_is_noticed_and_the_twin_is_what_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attributes.store(tmp_path, EVERYTHING, FILES, sync=False)
    path = tmp_path / "attributes.json"
    text = path.read_bytes()
    for place in range(len(text) - 1):
        path.write_bytes(text[:place] + bytes([text[place] ^ 0x11]) + text[place + 1 :])
        assert attributes.load(tmp_path, FILES) == EVERYTHING
    assert "attributes of a stream not believed" in caplog.text


def test_without_a_sound_copy_the_stream_has_nothing(tmp_path: Path) -> None:
    for name in ("attributes.json", "attributes.json.twin"):
        (tmp_path / name).write_bytes(b"{}")
    assert attributes.load(tmp_path, FILES) == Attributes()


def test_a_file_of_a_later_version_is_not_guessed_at() -> None:
    text = attributes.encode(Attributes())
    from kflow.broker import checked

    with pytest.raises(ValueError, match="version 2"):
        attributes.decode(checked.seal(b'{"version":2,"attributes":{}}'))
    assert attributes.decode(text) == Attributes()


def test_what_cannot_be_read_or_written_says_so(tmp_path: Path) -> None:
    files = FaultyFiles()
    attributes.store(tmp_path, EVERYTHING, files, sync=False)
    files.errors = {"open": errno.EIO, "replace": errno.EIO}
    with pytest.raises(StorageError, match="read"):
        attributes.load(tmp_path, files)
    with pytest.raises(StorageError, match="write"):
        attributes.store(tmp_path, EVERYTHING, files, sync=False)


@pytest.mark.parametrize(
    ("until_ms", "now_ms", "expected"),
    [(0, 1000, False), (1000, 999, True), (1000, 1000, False), (601_000, 1000, True), (601_001, 1000, False)],
)
def test_a_state_lasts_until_its_time_and_never_longer_than_states_last(
    until_ms: int, now_ms: int, expected: bool
) -> None:
    assert attributes.lasts(until_ms, now_ms) is expected
