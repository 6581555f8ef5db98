"""Functions as resources on a node: what it makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kflow.declarations import QueueOptions
from kflow.lambda_.queue_mapping import QueueMapping
from kflow.runtime.functions.lambdas import Lambdas
from tests.lambdaing import ARN, World


def mapping(qualifier: str = "") -> QueueMapping:
    end = f":{qualifier}" if qualifier else ""
    queue = "arn:aws:sqs:us-east-1:123456789012:jobs"
    return QueueMapping(uuid="u", key=f"f{end}", function_arn=f"{ARN}:f{end}", queue_arn=queue, options=QueueOptions())


@pytest.mark.parametrize(("qualifier", "key"), [("", "f"), ("live", "f:2"), ("2", "f:2"), ("gone", "f:gone")])
def test_what_runs_for_a_queue_goes_by_the_weights_of_an_alias(tmp_path: Path, qualifier: str, key: str) -> None:
    world = World(tmp_path)
    world.create("f")
    for timeout in (4, 5):
        world.call("UpdateFunctionConfiguration", FunctionName="f", Timeout=timeout)
        world.host.advance(1)
        world.call("PublishVersion", FunctionName="f")
        world.host.advance(1)
    weights = {"AdditionalVersionWeights": {"2": 1.0}}
    world.call("CreateAlias", FunctionName="f", Name="live", FunctionVersion="1", RoutingConfig=weights)
    nothing: Any = None
    lambdas = Lambdas(nothing, nothing, nothing, nothing)
    lambdas._functions = world.functions

    assert lambdas.choose(mapping(qualifier)) == key
