"""What a worker parks names the mapping that gave it up."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kflow.broker import streammap
from kflow.broker.folder import DataFolder
from kflow.broker.parked import Origin, ParkedStore
from kflow.broker.streammap import StreamMap
from kflow.declarations import MappingOptions, Package, StreamTrigger, sourceless
from kflow.runtime.messages import WorkerSpec
from kflow.runtime.worker.parking import Parking, origin_of
from tests.parking import parked
from tests.specs import worker_spec

ORDERS = StreamMap(name="orders", id=7, created_s=1, generation=1)
CONSUMER = "arn:aws:kinesis:us-east-1:123456789012:stream/orders/consumer/audit:1573691880"


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder.open(tmp_path, create=True, fsync="none", region="us-east-1", account="123456789012")


def spec(
    name: str = "bill",
    *,
    on_failure: str | None = "sqs:dead",
    package: Package | None = None,
    uuid: str = "",
    source: str = "",
) -> WorkerSpec:
    trigger = StreamTrigger(stream="orders", options=MappingOptions(on_failure=on_failure), uuid=uuid)
    return worker_spec(
        sourceless(name, package, triggers=(trigger,)),
        maps=(streammap.encode(ORDERS),),
        sources=(source,) if source else (),
    )


def test_a_declared_mapping_is_of_this_place(folder: DataFolder) -> None:
    assert origin_of(spec(), 0, ORDERS, folder) == Origin(
        function_arn="arn:aws:lambda:us-east-1:123456789012:function:bill",
        stream_arn="arn:aws:kinesis:us-east-1:123456789012:stream/orders",
        mapping="c6c012ba-2901-5d27-bc33-1515c4300f8b",
        destination="sqs:dead",
    )


def test_a_function_of_a_package_has_its_own_place_and_version(folder: DataFolder) -> None:
    package = Package(
        function="bill",
        version="3",
        runtime="python3.12",
        entry="app.bill",
        code="",
        account="210987654321",
        region="eu-west-1",
    )
    elsewhere = msgspec.structs.replace(ORDERS, account="210987654321", region="eu-west-1")
    given = spec("bill@210987654321.eu-west-1:live", package=package, uuid="u-1", source=CONSUMER)
    assert origin_of(given, 0, elsewhere, folder) == Origin(
        function_arn="arn:aws:lambda:eu-west-1:210987654321:function:bill:live",
        stream_arn="arn:aws:kinesis:eu-west-1:210987654321:stream/orders",
        mapping="u-1",
        source_arn=CONSUMER,
        version="3",
        destination="sqs:dead",
    )


@pytest.mark.parametrize(("on_failure", "told"), [("sqs:dead", [1]), (None, [])])
def test_the_node_is_told_of_what_has_a_destination_once_it_is_kept(
    folder: DataFolder, on_failure: str | None, told: list[int]
) -> None:
    store = ParkedStore(folder.path, folder.files, "none")
    heard: list[int] = []

    def tell(number: int) -> None:
        assert store.show(number).is_unsent
        heard.append(number)

    origin = origin_of(spec(on_failure=on_failure), 0, ORDERS, folder)
    parking = Parking(store, origin, tell)
    number = parking.park(parked())
    assert heard == told
    assert store.show(number).origin == origin
    found = parking.find("bill", 7, 0, 1)
    assert found is not None
    assert found.number == number
