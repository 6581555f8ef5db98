"""moto, as the runtime starts it: real boto3 clients of services that kflow does not speak, by the endpoint alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import tools
from tests.deadline import eventually
from tests.served import Served, served

FIVE_MIB = 5 << 20


class Moto:
    """An endpoint whose other services are moto's."""

    def __init__(self, endpoint: Served) -> None:
        self.endpoint = endpoint

    def client(self, service: str) -> Any:
        return self.endpoint.client(service=service, region="eu-west-1")

    @property
    def url(self) -> str | None:
        """Where it answers by now, by what people are told."""
        found = [text.split()[3].rstrip(";") for text in self.endpoint.notices() if text.startswith("moto answers at")]
        return found[-1] if found else None

    @property
    def children(self) -> list[int]:
        """Its processes (Linux)."""
        mine = str(self.endpoint.process.pid)
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:  # it ended meanwhile
                continue
            if b"kflow.runtime.forwarding.moto_child" in words and words[-2].decode() == mine:
                found.append(int(path.parent.name))
        return found


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    place = tools.place_of(tools.MOTO)
    folder = tmp_path_factory.mktemp("moto")
    (packages,) = place.glob("lib/python3*/site-packages")
    # behind everything of this environment's own, so that kflow keeps its botocore
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.path.append({str(packages)!r})\n")
    with served(folder, PYTHONPATH=str(folder), KFLOW_SERVICES__DEFAULT="moto") as endpoint:
        made = Moto(endpoint)
        assert made.children == [], "it is started with the first call, not before"
        yield made


def test_things_of_five_mebibytes_are_kept_in_s3(it: Moto) -> None:
    client = it.client("s3")
    client.create_bucket(Bucket="photos", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    body = os.urandom(FIVE_MIB)
    client.put_object(Bucket="photos", Key="a/b c+d", Body=body, Metadata={"color": "red"})
    found = client.get_object(Bucket="photos", Key="a/b c+d")
    assert (found["ContentLength"], found["Metadata"], found["Body"].read() == body) == (
        FIVE_MIB,
        {"color": "red"},
        True,
    )
    assert client.head_object(Bucket="photos", Key="a/b c+d")["ContentLength"] == FIVE_MIB
    assert [each["Key"] for each in client.list_objects_v2(Bucket="photos")["Contents"]] == ["a/b c+d"]
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket="photos", Key="none")
    client.close()


def test_every_protocol_goes_through(it: Moto) -> None:
    table = it.client("dynamodb")
    table.create_table(
        TableName="orders",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    table.put_item(TableName="orders", Item={"id": {"S": "1"}})
    assert table.scan(TableName="orders")["Items"] == [{"id": {"S": "1"}}]
    assert table.describe_table(TableName="orders")["Table"]["TableArn"] == (
        "arn:aws:dynamodb:eu-west-1:123456789012:table/orders"
    )
    with pytest.raises(table.exceptions.ResourceNotFoundException):
        table.scan(TableName="none")
    assert it.client("iam").list_users()["Users"] == []
    assert it.client("ec2").describe_instances()["Reservations"] == []
    assert it.client("apigateway").get_rest_apis()["items"] == []
    assert it.client("route53").list_hosted_zones()["HostedZones"] == []
    assert it.client("cognito-idp").list_user_pools(MaxResults=1)["UserPools"] == []


def test_what_kflow_speaks_stays_kflows(it: Moto) -> None:
    client = it.client("kinesis")
    client.create_stream(StreamName="orders", ShardCount=1)
    assert client.list_streams()["StreamNames"] == ["orders"]
    client.close()


def test_a_moto_that_died_is_started_anew(it: Moto) -> None:
    client = it.client("iam")
    client.create_user(UserName="ann")
    before = it.url
    (child,) = it.children
    os.kill(child, signal.SIGKILL)
    eventually(lambda: any("moto ended" in text for text in it.endpoint.notices()), what="its end to be noticed")
    assert client.list_users()["Users"] == []
    assert it.url != before
    client.close()


def test_it_ends_with_the_runtime(it: Moto) -> None:
    client = it.client("iam")
    client.list_users()
    client.close()
    (child,) = it.children
    assert it.endpoint.stop() in {0, 130}
    eventually(lambda: not Path(f"/proc/{child}").exists(), what="moto to end")
    it.endpoint.start()
    client = it.client("iam")
    client.list_users()
    client.close()
    (child,) = it.children
    it.endpoint.kill()
    eventually(lambda: not Path(f"/proc/{child}").exists(), what="moto to end with a runtime that was killed")
