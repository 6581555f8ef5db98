"""Streams of other accounts and regions in one folder, and settings of streams that change."""

from __future__ import annotations

from pathlib import Path

import pytest

from kflow.broker import catalogue, streammap
from kflow.broker.attributes import Attributes
from kflow.broker.attributes import load as attributes_of
from kflow.broker.encode import Encoder
from kflow.broker.streammap import StreamMode
from kflow.errors import InvalidArgument, ResourceInUse, ResourceNotFound, StaleMap
from tests.storing import Store


def test_a_name_may_be_there_once_in_each_place(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=2)
    abroad = store.log.create_stream("orders", 1, region="eu-west-1")
    theirs = store.log.create_stream("orders", 1, account="111122223333")
    with pytest.raises(ResourceInUse, match="under account 111122223333 already exists"):
        store.log.create_stream("orders", 1, account="111122223333")
    with pytest.raises(ResourceInUse, match="under account 123456789012 already exists"):
        store.log.create_stream("orders", 1)
    assert store.folder.map("orders") == store.stream
    assert store.folder.maps() == [store.stream]
    assert store.folder.live_maps() == [store.stream, abroad, theirs]
    assert store.folder.place_of(abroad) == ("123456789012", "eu-west-1")
    assert store.folder.place_of(theirs) == ("111122223333", "us-east-1")
    assert len({each.created_s for each in store.folder.live_maps()}) == 3


def test_a_stream_elsewhere_is_no_home_stream(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.log.create_stream("abroad", 1, region="eu-west-1")
    with pytest.raises(ResourceNotFound, match="Stream abroad under account 123456789012 not found"):
        store.folder.map("abroad")


def test_all_places_are_recovered_retained_and_catalogued(tmp_path: Path) -> None:
    store = Store(tmp_path)
    abroad = store.log.create_stream("orders", 1, region="eu-west-1")
    store.log.append(abroad, Encoder(abroad).encode_many(["k"], [b"x"]))
    store.reopen()
    store.log.recover_all(threads=1)
    assert store.folder.map_by_id(abroad.id) == abroad
    assert catalogue.difference(tmp_path, store.folder.live_maps()) == ""
    assert catalogue.recall(tmp_path, abroad.id) == abroad
    store.clock.advance(90_000_000)
    store.log.retain(store.clock.now())
    store.clock.advance(4_000_000)
    assert store.log.retain(store.clock.now()) > 0


def test_a_map_of_the_home_place_is_the_text_it_always_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    text = streammap.encode(store.stream)
    assert b"account" not in text
    assert b"region" not in text
    assert streammap.decode(text) == store.stream


def test_settings_change_and_who_routes_by_the_old_map_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"before")
    new = store.log.alter_stream(store.stream, retention_hours=48, max_record_bytes=2 << 20, mode=StreamMode.ON_DEMAND)
    assert (new.generation, new.retention_hours, new.max_record_bytes, new.mode) == (2, 48, 2 << 20, "ON_DEMAND")
    assert new.shards == store.stream.shards
    assert store.folder.map("orders") == new
    store.log.begin_turn()
    with pytest.raises(StaleMap):
        store.log.append(store.stream, Encoder(store.stream).encode_many(["k"], [b"x"]))
    store.stream, store.encoder = new, Encoder(new)
    store.put(b"x" * (1 << 20), b"after")
    assert [len(each) for each in store.datas()] == [6, 1 << 20, 5]


def test_settings_out_of_range_change_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(InvalidArgument, match="is too short"):
        store.log.alter_stream(store.stream, retention_hours=23)
    assert store.folder.map("orders") == store.stream


def test_what_is_kept_beside_the_map_is_there_as_soon_as_the_stream_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = Attributes(active_ms=5, tags={"a": "b"})
    made = store.log.create_stream("new", 1, attributes=kept, mode=StreamMode.ON_DEMAND)
    assert made.mode is StreamMode.ON_DEMAND
    assert attributes_of(store.folder.stream_dir(made), store.folder.files) == kept


def test_a_reset_keeps_mode_place_and_what_lies_beside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = Attributes(created_ms=5, tags={"a": "b"})
    old = store.log.create_stream("new", 3, attributes=kept, mode=StreamMode.ON_DEMAND, region="eu-west-1")
    new = store.log.reset(old)
    assert (new.mode, new.region, len(new.shards)) == ("ON_DEMAND", "eu-west-1", 3)
    assert new.id != old.id
    assert attributes_of(store.folder.stream_dir(new), store.folder.files) == Attributes(tags={"a": "b"})
    assert store.folder.live_maps() == [new, store.stream]


def test_a_catalogue_of_the_first_version_still_gives_a_map_back(tmp_path: Path) -> None:
    import sqlite3

    store = Store(tmp_path, shards=2)
    (tmp_path / "catalogue.db").unlink()
    stream = store.stream
    with sqlite3.connect(tmp_path / "catalogue.db") as old:
        old.execute(
            "CREATE TABLE streams (name TEXT PRIMARY KEY, id TEXT NOT NULL, created_s INTEGER NOT NULL, generation "
            "INTEGER NOT NULL, mode TEXT NOT NULL, retention_hours INTEGER NOT NULL, max_record_bytes INTEGER NOT "
            "NULL, open_shards INTEGER NOT NULL) WITHOUT ROWID"
        )
        old.execute(
            "CREATE TABLE shards (stream TEXT NOT NULL, shard_index INTEGER NOT NULL, shard_id TEXT NOT NULL, "
            "starting_hash_key TEXT NOT NULL, ending_hash_key TEXT NOT NULL, parents TEXT NOT NULL, created_s INTEGER "
            "NOT NULL, ending_sequence_number TEXT, PRIMARY KEY (stream, shard_index)) WITHOUT ROWID"
        )
        row = ("orders", f"{stream.id:016x}", stream.created_s, 1, "PROVISIONED", 24, 1 << 20, 2)
        old.execute("INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        for shard in stream.shards:
            old.execute(
                "INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                ("orders", shard.index, "x", str(shard.start), str(shard.end), "", shard.created_s, None),
            )
    old.close()
    assert catalogue.recall(tmp_path, stream.id) == stream
