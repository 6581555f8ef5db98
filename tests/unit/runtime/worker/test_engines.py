"""What a worker keeps between grants: a bounded number of engines, and few that hold records."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kflow.broker import streammap
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.broker.writing import writing
from kflow.declarations import Handler, HandlerForm, MappingOptions, StreamTrigger
from kflow.lambda_.lanes import SharedSource
from kflow.lambda_.shapes import shape_for
from kflow.runtime import descriptors, messages
from kflow.runtime.consumers import beginning
from kflow.runtime.consumers.beginning import Begin
from kflow.runtime.worker.engines import WARM_SHARDS, Engines
from tests.specs import worker_spec

SHARDS = 40


class Environment:
    """As far as engines need one."""

    def guard(self, fds: Any) -> None: ...

    def shape(self, stream: Any, shard: int) -> Any:
        return shape_for(HandlerForm.EVENT, stream=stream, shard=shard, arn="arn", region="r", role="role")


def engines(path: Path, *, factor: int) -> Engines:
    folder = DataFolder.open(path, create=True)
    with writing(folder) as log:
        stream = log.create_stream("orders", SHARDS)
    trigger = StreamTrigger(stream="orders", options=MappingOptions(parallelization_factor=factor))
    handler = Handler(
        name="bill",
        file="app.py",
        line=1,
        root=".",
        module="app",
        qualname="bill",
        form=HandlerForm.EVENT,
        triggers=(trigger,),
    )
    beginning.make_slots(folder, Begin(handler, 0, stream)).close()
    spec = worker_spec(handler, data_dir=str(path), maps=(streammap.encode(stream),), region="r", account="1")
    environment: Any = Environment()
    made = Engines(spec, folder, ParkedStore(folder.path, folder.files, folder.fsync), environment, lambda _: None)
    made._most = 10
    return made


@pytest.fixture(params=[1, 5])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Engines:
    return engines(tmp_path / "data", factor=request.param)


def test_the_same_engine_is_there_again_as_long_as_it_is_kept(made: Engines) -> None:
    shard = made.shard(0, 7)
    engine = made.lane(shard, 0)
    made.returned(shard, holds=False)

    again = made.shard(0, 7)

    assert again is shard
    assert made.lane(again, 0) is engine


def test_shards_that_were_not_used_for_longest_are_dropped(made: Engines) -> None:
    first = made.shard(0, 0)
    for index in range(SHARDS):
        made.returned(made.shard(0, index), holds=False)

    assert made.shard(0, 0) is not first
    factor = made._spec.handler.triggers[0].options.parallelization_factor
    assert len(made._shards) == 10 // factor


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors cannot be counted")
def test_descriptors_do_not_grow_with_the_shards(made: Engines) -> None:
    for index in range(12):
        made.returned(made.shard(0, index), holds=False)
    before = len(os.listdir("/proc/self/fd"))

    for index in range(SHARDS):
        shard = made.shard(0, index)
        made.lane(shard, 0)
        made.returned(shard, holds=False)

    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_few_shards_are_kept_with_records_in_memory(made: Engines) -> None:
    made._most = 1_000
    for index in range(10):
        made.returned(made.shard(0, index), holds=True)

    assert list(made._shards) == [(0, index) for index in range(10 - WARM_SHARDS, 10)]


def test_what_lanes_shared_is_forgotten_when_all_is_read(tmp_path: Path) -> None:
    made = engines(tmp_path / "data", factor=2)
    shard = made.shard(0, 0)
    assert isinstance(shard.source, SharedSource)
    with writing(made._folder) as log:
        keys = [f"k{number}" for number in range(400)]
        log.append(made.maps[0], Encoder(made.maps[0]).encode_many(keys, [b"x"] * 400))
    assert shard.source.read(0)
    assert shard.source._blocks

    made.returned(shard, holds=False)

    assert not shard.source._blocks


@pytest.mark.parametrize(("limit", "shards"), [(256, 64), (1024, 128), (4096, 896), (1 << 20, 4096)])
def test_shards_kept_open_for_appending_follow_the_descriptors_there_are(limit: int, shards: int) -> None:
    assert descriptors.open_shards(limit) == shards


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300));"
        "from kflow.runtime.descriptors import kept_engines, raise_limit;"
        "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE), kept_engines())"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout

    assert said.split() == ["300", "300", "300", "64"]


def test_nothing_is_kept_of_a_trigger_that_is_another_one_now(made: Engines) -> None:
    first = made.shard(0, 7)
    engine = made.lane(first, 0)
    spec = made._spec
    other = msgspec.structs.replace(spec.handler.triggers[0].options, batch_size=7)
    changed = msgspec.structs.replace(spec.handler.triggers[0], options=other, uuid="u")
    message = messages.Trigger(0, changed, spec.maps[0], "arn:source")

    made.reads(message.added_to(spec), 0)

    again = made.shard(0, 7)
    assert again is not first
    assert made.lane(again, 0) is not engine
    assert made._spec.handler.triggers[0].uuid == "u"
    assert (made._spec.sources, len(made.maps)) == (("arn:source",), 1)


def test_a_trigger_that_comes_while_a_worker_runs_is_its_last_one(made: Engines) -> None:
    kept = made.shard(0, 7)
    spec = made._spec
    message = messages.Trigger(1, spec.handler.triggers[0], spec.maps[0], "")

    made.reads(message.added_to(spec), 1)

    assert made.shard(0, 7) is kept
    assert (len(made.maps), len(made._spec.handler.triggers), made._spec.sources) == (2, 2, ("", ""))
