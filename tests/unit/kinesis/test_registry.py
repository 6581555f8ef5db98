"""The registry: finding, learning and forgetting streams, and what is kept beside their maps."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kflow.aws.calls import Place
from kflow.broker import attributes
from kflow.errors import InvalidArgument, ResourceNotFound
from tests.controlling import ACCOUNT, ARN, HOME, Desk

IRELAND = Place(ACCOUNT, "eu-west-1")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_stream_of_an_older_folder_is_active_and_has_nothing(desk: Desk) -> None:
    made = desk.log.create_stream("orders", 1)
    assert sorted(each.name for each in desk.folder.stream_dir(made).iterdir()) == ["0", "map.json", "map.json.twin"]
    desk.registry.learn(made)
    stream = desk.registry.find(HOME, "orders")
    assert stream.status(0) == "ACTIVE"
    assert (stream.attributes, stream.created_ms, stream.arn) == (attributes.DEFAULTS, 1_700_000_000_000, ARN)


def test_who_asks_in_the_wrong_place_is_told_to_whoever_listens(desk: Desk) -> None:
    desk.place = IRELAND
    desk.stream()
    missed: list[tuple[Place, str]] = []
    desk.registry.missed = lambda place, name: missed.append((place, name))
    with pytest.raises(ResourceNotFound):
        desk.registry.find(HOME, "orders")
    assert missed == [(HOME, "orders")]
    assert desk.registry.elsewhere("orders", HOME) == [IRELAND]
    assert desk.registry.elsewhere("orders", IRELAND) == []


def test_a_map_that_is_published_is_the_streams_and_one_that_is_deleted_ends_it(desk: Desk) -> None:
    stream = desk.stream()
    told: list[bool] = []
    desk.registry.watch(lambda each: told.append(each.is_gone))
    newer = msgspec.structs.replace(stream.map, generation=9)
    desk.registry.moved(newer)
    assert stream.map is newer
    assert desk.registry.by_id(newer.id) is stream
    desk.registry.moved(msgspec.structs.replace(newer, deleted=True))
    assert (stream.is_gone, told) == (True, [False, True])
    assert desk.registry.by_id(newer.id) is None
    assert not stream.serves(desk.clock.epoch_ms)
    with pytest.raises(ResourceNotFound):
        desk.registry.find(HOME, "orders")


def test_a_stream_that_was_emptied_keeps_all_but_its_records(desk: Desk) -> None:
    stream = desk.stream(Tags={"a": "b"})
    new = desk.log.reset_stream("orders")
    desk.registry.learn(new)
    desk.registry.forget(stream.id)
    found = desk.registry.find(HOME, "orders")
    assert (found.id, found.attributes.tags, found.created_ms) == (new.id, {"a": "b"}, new.created_s * 1000)
    desk.restart()
    again = desk.registry.find(HOME, "orders")
    assert (again.id, again.attributes, again.created_ms) == (new.id, found.attributes, found.created_ms)


def test_a_stream_that_is_made_anew_by_hand_has_nothing_of_the_old_one(desk: Desk) -> None:
    stream = desk.stream(Tags={"a": "b"})
    desk.log.delete_stream("orders")
    desk.registry.forget(stream.id)
    desk.registry.learn(desk.log.create_stream("orders", 1))
    assert desk.registry.find(HOME, "orders").attributes == attributes.DEFAULTS


def test_a_change_of_a_stream_that_went_meanwhile_is_refused_as_not_found(desk: Desk) -> None:
    stream = desk.stream()
    refusals: list[object] = []
    desk.registry.change(stream, refusals.append, tags={"a": "b"})
    desk.log.delete_stream("orders")
    desk.registry.forget(stream.id)
    desk.host.work()
    assert str(refusals[0]) == "Stream orders under account 123456789012 not found."


def test_other_settings_of_account_and_region_take_home_streams_along(desk: Desk) -> None:
    desk.stream()
    desk.place = IRELAND
    desk.stream("abroad")
    desk.log.close()
    desk.folder.configure(region="eu-west-1")
    desk.restart()
    assert [stream.name for stream in desk.registry.streams(IRELAND)] == ["abroad", "orders"]
    assert desk.registry.find(IRELAND, "orders").arn == ARN.replace("us-east-1", "eu-west-1")


@pytest.mark.parametrize("text", ["orders", "arn:aws:s3:::orders", f"{ARN}/consumer/fast:1", f"{ARN}/x"])
def test_what_is_no_arn_of_a_stream_is_refused(desk: Desk, text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not the ARN of a stream"):
        desk.registry.by_arn(text)


@pytest.mark.parametrize("text", [ARN, f"{ARN}/consumer/fast", "fast"])
def test_what_is_no_arn_of_a_consumer_is_refused(desk: Desk, text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not the ARN of a consumer"):
        desk.registry.by_consumer_arn(text, 0)
