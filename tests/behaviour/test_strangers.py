"""Services that the endpoint does not speak: their clients are told so, in the form that each of them reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.served import Served, served

CALLS: dict[str, Callable[[Any], Any]] = {
    "s3": lambda client: client.list_buckets(),
    "dynamodb": lambda client: client.list_tables(),
    "iam": lambda client: client.list_users(),
    "ec2": lambda client: client.describe_instances(),
    "apigateway": lambda client: client.get_rest_apis(),
    "route53": lambda client: client.list_hosted_zones(),
    "events": lambda client: client.list_rules(),
    "firehose": lambda client: client.list_delivery_streams(),
}
"""By service: rest-xml, json, query, ec2, rest-json, rest-xml with its errors wrapped, json 1.1 twice."""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("endpoint")) as made:
        yield made


@pytest.mark.parametrize("service", CALLS)
def test_a_client_of_a_service_that_is_not_here_reads_what_is_wrong(endpoint: Served, service: str) -> None:
    client = endpoint.client(service=service)
    try:
        with pytest.raises(ClientError) as refused:
            CALLS[service](client)
    finally:
        client.close()
    error = refused.value.response["Error"]
    assert error["Code"].startswith("NotImplemented")
    assert error["Message"].startswith(f"kflow has no {service}: this endpoint speaks kinesis, sqs, ")
    assert error["Message"].endswith(
        f" only; to pass its calls on, set {service} in [tool.kflow.services] to moto, http://HOST:PORT or aws:PROFILE"
    )
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_people_are_told_once_of_each(endpoint: Served) -> None:
    client = endpoint.client(service="kms")
    for _ in range(2):
        with pytest.raises(ClientError):
            client.list_keys()
    client.close()
    assert sum("a call of kms came to the endpoint" in text for text in endpoint.notices()) == 1
