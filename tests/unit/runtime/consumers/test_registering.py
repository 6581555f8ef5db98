"""Consumers that handlers name: registered once, before the loop runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kflow.broker import attributes
from kflow.broker.attributes import Attributes, Consumer
from kflow.runtime.consumers.registering import consumer_arn
from tests.storing import Store

NOW = 1_700_000_000_999
ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders/consumer/fast:{}"


def register(store: Store, now_ms: int = NOW) -> tuple[str, bool]:
    return consumer_arn(store.folder, store.stream, "fast", region="eu-west-1", account="123456789012", now_ms=now_ms)


def kept(store: Store) -> Attributes:
    return attributes.load(store.folder.stream_dir(store.stream), store.files)


def keep(store: Store, content: Attributes) -> None:
    attributes.store(store.folder.stream_dir(store.stream), content, store.files, sync=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_consumer_that_is_missing_is_registered_and_active(store: Store) -> None:
    assert register(store) == (ARN.format(1_700_000_000), True)
    assert kept(store).consumers == (Consumer(name="fast", created_s=1_700_000_000, active_ms=0),)


def test_one_that_is_there_stays_who_it_is(store: Store) -> None:
    register(store)
    assert register(store, NOW + 60_000) == (ARN.format(1_700_000_000), False)
    assert len(kept(store).consumers) == 1


def test_what_else_is_kept_of_the_stream_stays(store: Store) -> None:
    other = Consumer(name="other", created_s=1, tags={"a": "b"})
    before = Attributes(tags={"team": "shop"}, key_id="alias/k", consumers=(other,))
    keep(store, before)
    register(store)
    new = Consumer(name="fast", created_s=1_700_000_000)
    assert kept(store) == msgspec.structs.replace(before, consumers=(other, new))


def test_one_on_its_way_out_is_replaced_by_another_with_a_later_second(store: Store) -> None:
    keep(store, Attributes(consumers=(Consumer(name="fast", created_s=1_700_000_000, gone_ms=NOW + 500),)))
    assert register(store) == (ARN.format(1_700_000_001), True)
    assert kept(store).consumers == (Consumer(name="fast", created_s=1_700_000_001),)


def test_one_registered_anew_in_the_second_of_its_predecessor_has_a_later_one(store: Store) -> None:
    keep(store, Attributes(seconds={"fast": 1_700_000_000}))
    assert register(store) == (ARN.format(1_700_000_001), True)
