"""Which way a request goes."""

from __future__ import annotations

import pytest

from kflow.errors import UsageError
from kflow.runtime.forwarding.routes import Routes, Way
from kflow.settings.services import NOWHERE, Route

SPOKEN = ("kinesis", "sqs", "cloudwatch")
MOTO = Route("moto")


def test_what_nobody_named_goes_the_default_way() -> None:
    routes = Routes({"default": "moto", "s3": "off"}, SPOKEN)
    assert routes.of("iam", "") == Way(MOTO, "iam")
    assert routes.of("s3", "").route == NOWHERE
    assert Routes({"s3": "moto"}, SPOKEN).of("iam", "").route == NOWHERE


def test_a_service_is_found_by_the_name_it_is_signed_for() -> None:
    routes = Routes({"stepfunctions": "moto"}, SPOKEN)
    assert routes.of("states", "") == Way(MOTO, "stepfunctions", ("stepfunctions",))
    assert routes.of("stepfunctions", "").route == NOWHERE


def test_services_that_are_signed_alike_are_told_apart_by_their_targets() -> None:
    routes = Routes({"dynamodb": "moto", "dynamodbstreams": "http://h"}, SPOKEN)
    assert routes.of("dynamodb", "DynamoDB_20120810").route == MOTO
    assert routes.of("dynamodb", "DynamoDBStreams_20120810").route == Route("url", "http://h")


def test_services_that_cannot_be_told_apart_go_one_way() -> None:
    assert Routes({"ses": "moto", "sesv2": "moto"}, SPOKEN).of("ses", "").named == ("ses", "sesv2")
    with pytest.raises(UsageError) as refused:
        Routes({"ses": "moto", "sesv2": "off"}, SPOKEN)
    assert str(refused.value) == (
        "services.ses and services.sesv2 must be the same: requests of both are signed for ses, "
        "and cannot be told apart"
    )


def test_a_call_that_nobody_signed_is_told_by_its_target() -> None:
    routes = Routes({"cognito-idp": "moto"}, SPOKEN)
    assert routes.of("", "AWSCognitoIdentityProviderService").route == MOTO
    assert routes.of("", "").route == NOWHERE
    assert Routes({"default": "moto"}, SPOKEN).of("", "Some_2020").route == MOTO
    assert Routes({"default": "moto"}, SPOKEN).of("", "").route == NOWHERE


def test_what_kflow_speaks_is_taken_only_where_it_is_named() -> None:
    routes = Routes({"default": "moto", "cloudwatch": "http://h", "sqs": "off"}, SPOKEN)
    assert routes.taken == ("cloudwatch",)
    assert routes.takes == {"monitoring", "GraniteServiceVersion20100801"}


@pytest.mark.parametrize(
    ("table", "is_empty"), [({}, True), ({"default": "off", "s3": "off"}, True), ({"s3": "moto"}, False)]
)
def test_a_table_may_let_nothing_go_anywhere(table: dict[str, str], is_empty: bool) -> None:
    assert Routes(table, SPOKEN).is_empty is is_empty
