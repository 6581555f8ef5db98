"""AWS STS on the endpoint, by boto3."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.served import Served, served

ROLE = "arn:aws:iam::222233334444:role/teams/reader"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("sts"), "--allow-reset") as place:
        yield place


def refusal(call: Any, **parameters: Any) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response
    return error["Error"]["Code"], error["Error"]["Message"], error["ResponseMetadata"]["HTTPStatusCode"]


def assumed(place: Served, credentials: dict[str, Any], service: str) -> Any:
    return place.client(
        service=service,
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
    )


@pytest.mark.parametrize(
    ("access_key", "account", "user_id", "arn"),
    [
        ("test", "123456789012", "test", "arn:aws:iam::123456789012:user/test"),
        ("111122223333", "111122223333", "111122223333", "arn:aws:iam::111122223333:root"),
    ],
)
def test_a_caller_is_told_who_it_is(endpoint: Served, access_key: str, account: str, user_id: str, arn: str) -> None:
    answer = endpoint.client(service="sts", access_key=access_key).get_caller_identity()
    assert (answer["Account"], answer["UserId"], answer["Arn"]) == (account, user_id, arn)


def test_who_assumes_a_role_acts_in_its_account(endpoint: Served) -> None:
    sts = endpoint.client(service="sts")
    before = dt.datetime.now(dt.UTC)
    answer = sts.assume_role(RoleArn=ROLE, RoleSessionName="me@work", SourceIdentity="someone")
    credentials, user = answer["Credentials"], answer["AssumedRoleUser"]
    assert user["Arn"] == "arn:aws:sts::222233334444:assumed-role/reader/me@work"
    assert re.fullmatch(r"AROA[A-Z2-7]{17}:me@work", user["AssumedRoleId"])
    assert answer["SourceIdentity"] == "someone"
    assert dt.timedelta(seconds=3590) < credentials["Expiration"] - before < dt.timedelta(seconds=3660)
    told = assumed(endpoint, credentials, "sts").get_caller_identity()
    assert (told["Account"], told["UserId"], told["Arn"]) == ("222233334444", user["AssumedRoleId"], user["Arn"])
    kinesis = assumed(endpoint, credentials, "kinesis")
    kinesis.create_stream(StreamName="theirs", ShardCount=1)
    arn = kinesis.describe_stream_summary(StreamName="theirs")["StreamDescriptionSummary"]["StreamARN"]
    assert arn == "arn:aws:kinesis:us-east-1:222233334444:stream/theirs"
    assert endpoint.client(access_key="222233334444").list_streams()["StreamNames"] == ["theirs"]
    assert endpoint.client().list_streams()["StreamNames"] == []


@pytest.mark.parametrize(
    ("parameters", "code", "text"),
    [
        ({"RoleArn": "arn:aws:iam::22:role/reader"}, "ValidationError", "arn:aws:iam::22:role/reader is invalid"),
        ({"RoleArn": "arn:aws:iam::222233334444:user/x"}, "ValidationError", "user/x is invalid"),
        ({"RoleSessionName": "a b"}, "ValidationError", "at 'roleSessionName' failed to satisfy constraint"),
        ({"DurationSeconds": 60}, "ValidationError", "at 'durationSeconds' failed to satisfy constraint"),
        ({"DurationSeconds": 43_201}, "ValidationError", "at 'durationSeconds' failed to satisfy constraint"),
        ({"Policy": "{"}, "MalformedPolicyDocument", "Syntax errors in policy."),
    ],
)
def test_what_cannot_be_assumed_is_refused(endpoint: Served, parameters: dict[str, Any], code: str, text: str) -> None:
    sts = endpoint.client(service="sts", config=_unchecked())
    found = refusal(sts.assume_role, **{"RoleArn": ROLE, "RoleSessionName": "me", **parameters})
    assert (found[0], found[2]) == (code, 400)
    assert text in found[1]


def _unchecked() -> Any:
    from botocore.config import Config

    return Config(parameter_validation=False, retries={"total_max_attempts": 1}, proxies={})


def test_a_role_that_a_role_assumes_lasts_an_hour_at_most(endpoint: Served) -> None:
    first = endpoint.client(service="sts").assume_role(RoleArn=ROLE, RoleSessionName="one")["Credentials"]
    sts = assumed(endpoint, first, "sts")
    assert sts.assume_role(RoleArn=ROLE, RoleSessionName="two", DurationSeconds=3600)["Credentials"]
    found = refusal(sts.assume_role, RoleArn=ROLE, RoleSessionName="two", DurationSeconds=3601)
    assert found[0] == "ValidationError"
    assert "role chaining" in found[1]


def test_what_is_not_performed_and_what_there_is_not_is_said(endpoint: Served) -> None:
    found = refusal(endpoint.client(service="sts").get_session_token)
    assert "kflow does not perform sts.GetSessionToken" in found[1]
    status, body = endpoint.get("/?Action=GetNothing&Version=2011-06-15")
    assert status == 400
    assert b"<Code>InvalidAction</Code>" in body
    status, body = endpoint.get("/?Action=GetCallerIdentity&Version=2011-06-15")
    assert status == 200
    assert b"<Arn>arn:aws:iam::123456789012:root</Arn>" in body


def test_strict_authentication_knows_the_keys_that_were_given_out_also_after_a_kill(tmp_path: Path) -> None:
    with served(tmp_path, KFLOW_AUTH="strict", KFLOW_ACCESS_KEYS__MINE="secret") as place:
        sts = place.client(service="sts", access_key="MINE", secret="secret")
        credentials = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
        place.kill()
        place.start()
        told = assumed(place, credentials, "sts").get_caller_identity()
        assert told["Arn"] == "arn:aws:sts::222233334444:assumed-role/reader/me"
        assert assumed(place, credentials, "kinesis").list_streams()["StreamNames"] == []
        stolen = {**credentials, "SecretAccessKey": "guessed"}
        assert refusal(assumed(place, stolen, "sts").get_caller_identity)[0] == "SignatureDoesNotMatch"
        without = {**credentials, "SessionToken": "another"}
        assert refusal(assumed(place, without, "sts").get_caller_identity)[:2] == (
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        )


def test_a_reset_forgets_what_was_given_out(tmp_path: Path) -> None:
    with served(tmp_path, "--allow-reset") as place:
        sts = place.client(service="sts")
        credentials = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
        assert place.get("/_kflow/reset", method="POST")[0] == 200
        told = assumed(place, credentials, "sts").get_caller_identity()
        assert told["Account"] == "222233334444"
        assert told["Arn"].startswith("arn:aws:iam::222233334444:user/ASIAKFLOW")
