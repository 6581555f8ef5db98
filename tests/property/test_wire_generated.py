"""Every operation of the model with inputs made from it, right and wrong, in both encodings: what AWS might answer.

Never a fault of ours, never nothing: an error is one that the model lists, in the form of AWS's texts; a success is of
the output's shape, and botocore can read it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.controlling import model
from tests.generating import (
    CBOR,
    JSON,
    Mistake,
    World,
    body_of,
    fitting,
    judge,
    mistakes,
    requests,
    resolve,
    skewed,
    world,
)


@contextlib.contextmanager
def fresh() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        made = world(Path(folder) / "data")
        try:
            yield made
        finally:
            made.end()


def play(made: World, calls: list[tuple[str, object, str]]) -> list[str]:
    codes = []
    for name, value, content_type in calls:
        operation = model().operation(name)
        body = body_of(operation, resolve(value, made.known), content_type)
        codes.append(judge(name, made.ask(name, body, content_type), content_type))
        made.host.advance(1)
    return codes


@given(st.lists(requests(fitting), min_size=1, max_size=12))
@settings(max_examples=60)
def test_calls_that_keep_to_the_model_are_answered_as_the_model_says(calls):
    with fresh() as made:
        codes = play(made, calls)
    assert "SerializationException" not in codes


@given(st.lists(requests(skewed), min_size=1, max_size=12))
@settings(max_examples=60)
@example([("ListStreams", None, JSON)])
def test_calls_that_keep_to_it_here_and_there_are_refused_in_words_of_aws(calls):
    with fresh() as made:
        play(made, calls)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = world(tmp_path_factory.mktemp("world") / "data")
    yield made
    made.end()


TOO_MANY_FOR_CBOR = {("CreateChannel", "s3TablesDestinationConfiguration.s3TablesConfigurationList less")}
"""More items than a body of CBOR may have: it is refused before anybody counts the list."""


@pytest.mark.parametrize("name", model().operation_names)
@pytest.mark.parametrize("content_type", [JSON, CBOR])
def test_each_mistake_by_itself_is_told_in_the_very_words_of_aws(furnished, name, content_type):
    tried = 0
    for mistake in MISTAKES.get(name, ()):
        if content_type == CBOR and (name, mistake.what) in TOO_MANY_FOR_CBOR:
            continue
        body = body_of(model().operation(name), mistake.value, content_type)
        answer = furnished.ask(name, body, content_type)
        assert judge(name, answer, content_type) == mistake.code, mistake.what
        error = json.loads(answer.body) if content_type == JSON else cbor2.loads(answer.body)
        assert error.get("message", error.get("Message")) == mistake.text, mistake.what
        tried += 1
    assert tried or not model().operation(name).input.members


def by_operation() -> dict[str, list[Mistake]]:
    found: dict[str, list[Mistake]] = {}
    for each in mistakes():
        found.setdefault(each.operation, []).append(each)
    return found


MISTAKES = by_operation()


def spoilt(body: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Here and there something else, more, or less."""
    for at, count, piece in changes:
        start = at % (len(body) + 1)
        body = body[:start] + piece + body[start + count :]
    return body


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 5000),
        st.integers(0, 3),
        st.one_of(
            st.binary(max_size=3), st.sampled_from([b'"', b"}", b"[", b"null", b"\\u0000", b"\xff", b"\xbf", b"1e999"])
        ),
    ),
    min_size=1,
    max_size=4,
)


@given(requests(fitting), CHANGES)
@settings(max_examples=400)
def test_bodies_spoilt_byte_by_byte_are_read_or_refused(furnished, call, changes):
    name, value, content_type = call
    if name in WAITS:
        return
    body = spoilt(body_of(model().operation(name), resolve(value, furnished.known), content_type), changes)
    if not body:
        return
    answer = furnished.ask(name, body, content_type)
    if (
        answer.status == 400
        and json.dumps({"__type": "SerializationException"}).encode().replace(b" ", b"") == answer.body
    ):
        return
    judge(name, answer, content_type)


WAITS = {"ReceiveQueueRecords", "ReceiveDeadLetterQueueRecords", "DeleteStream", "DeleteQueue"}
"""They take time of the world that all examples share, or take things from it."""


@given(st.sampled_from(["iterator", "shards", "streams", "receipt", "queues"]), st.integers(0, 1 << 16), st.booleans())
@settings(max_examples=300)
def test_a_token_with_one_bit_flipped_is_refused(furnished, kind, bit, is_cbor):
    import base64

    known = furnished.known
    raw = bytearray(base64.b64decode(known.get(kind, known["streams"])))
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    token = base64.b64encode(raw).decode()
    name, value, code = {
        "iterator": ("GetRecords", {"ShardIterator": token}, "InvalidArgumentException"),
        "shards": ("ListShards", {"NextToken": token}, "InvalidArgumentException"),
        "streams": ("ListStreams", {"NextToken": token}, "InvalidArgumentException"),
        "queues": ("ListQueues", {"NextToken": token}, "InvalidArgumentException"),
        "receipt": (
            "AcknowledgeQueueRecords",
            {"QueueARN": known["queue"], "Entries": [{"ReceiptHandle": token}]},
            "",
        ),
    }[kind]
    content_type = CBOR if is_cbor else JSON
    answer = furnished.ask(name, body_of(model().operation(name), value, content_type), content_type)
    assert judge(name, answer, content_type) == code
    if kind == "receipt":
        said = cbor2.loads(answer.body) if is_cbor else json.loads(answer.body)
        assert said["Successful"] == []
        assert said["Failed"][0]["ErrorCode"] == "InvalidArgumentException"
