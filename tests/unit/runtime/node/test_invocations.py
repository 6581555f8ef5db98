"""Invocations under way: what who waits for them is told where they get no place."""

from __future__ import annotations

from kflow.errors import KflowError
from kflow.lambda_.errors import ResourceNotFound
from kflow.lambda_.fleet import Interrupted, Reply, Request
from kflow.runtime.node.invocations import Invocations

ARN = "arn:aws:lambda:us-east-1:123456789012:function:bill"


def refused(why: str | None) -> Reply | KflowError:
    """How one that waits is answered when it gets no place."""
    told: list[Reply | KflowError] = []
    invocations = Invocations()
    job = invocations.begin(Request(request_id=bytes(16), payload=b"{}", arn=ARN), told.append)
    invocations.refuse(job.number, why)
    invocations.refuse(job.number, why)
    (answer,) = told
    return answer


def test_who_waits_for_a_function_that_was_deleted_is_told_that_there_is_none() -> None:
    answer = refused(None)
    assert isinstance(answer, ResourceNotFound)
    assert str(answer) == f"Function not found: {ARN}"


def test_who_waits_when_the_runtime_stops_is_told_so() -> None:
    answer = refused("the runtime stops: invoke it again")
    assert isinstance(answer, Interrupted)
    assert str(answer) == "the runtime stops: invoke it again"
