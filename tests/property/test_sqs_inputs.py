"""Whatever an operation of SQS is given, it answers, and never by a failure of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.aws.shapes import ListOf, MapOf, Shape, Structure
from kflow.errors import AwsError
from tests.sqsing import World, model

TEXTS = st.sampled_from(
    [
        "",
        "jobs",
        "jobs.fifo",
        "http://x/123456789012/jobs",
        "arn:aws:sqs:us-east-1:123456789012:jobs",
        "arn:aws:sqs:us-east-1:123456789012:dead",
        '{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:123456789012:dead","maxReceiveCount":1}',
        '{"redrivePermission":"byQueue","sourceQueueArns":[1]}',
        "true",
        "String",
        "Number.x",
        "1",
        "\x00",
        "\ud800",
        "All",
        "/",
        "x" * 300,
    ]
) | st.text(max_size=5)
KEYS = st.sampled_from(
    [
        "VisibilityTimeout",
        "RedrivePolicy",
        "RedriveAllowPolicy",
        "Policy",
        "FifoQueue",
        "DelaySeconds",
        "AWSTraceHeader",
        "KmsMasterKeyId",
        "a",
    ]
)


def values(shape: Shape) -> st.SearchStrategy[Any]:
    """Values of a shape."""
    if isinstance(shape, Structure):
        members = {name: values(member.shape) for name, member in shape.members.items()}
        if "QueueUrl" in members:
            members["QueueUrl"] = st.sampled_from(["jobs", "jobs.fifo", "dead", "nix"])
        return st.fixed_dictionaries({}, optional=members)
    if isinstance(shape, ListOf):
        return st.lists(values(shape.element.shape), max_size=3)
    if isinstance(shape, MapOf):
        return st.dictionaries(KEYS, values(shape.value.shape), max_size=3)
    if shape.kind in {"integer", "long"}:
        return st.sampled_from([-1, 0, 1, 10, 43_200, 2**31 - 1])
    if shape.kind == "blob":
        return st.binary(max_size=3)
    return TEXTS


OPERATIONS = [name for name in model().operation_names if name not in {"DeleteQueue", "PurgeQueue"}]
CALLS = st.sampled_from(OPERATIONS).flatmap(
    lambda name: st.tuples(st.just(name), values(model().operation(name).input))  # type: ignore[union-attr, arg-type]
)


@settings(max_examples=150, deadline=None)
@given(calls=st.lists(CALLS, min_size=1, max_size=10))
def test_every_call_is_answered(calls: list[tuple[str, dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory(prefix="kflow-sqs-") as path:
        world = World(Path(path))
        for name in ("jobs", "dead", "jobs.fifo"):
            world.create(name)
        for operation, parameters in calls:
            begun = world.begin(operation, **parameters)
            world.host.advance(21_000)
            (result,) = begun.results
            if isinstance(result, Exception):
                assert isinstance(result, AwsError), f"{operation} {parameters}"
                assert result.http_status < 500, f"{operation} {parameters}"
        world.stop()
