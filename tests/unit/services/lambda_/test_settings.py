"""What may be set on a function beside its code: concurrency, events, permissions, URLs, tags; and the account."""

from __future__ import annotations

import json

import pytest

from kflow.aws.calls import Place
from kflow.errors import ValidationFailed
from kflow.lambda_.errors import (
    InvalidParameterValue,
    PolicyLengthExceeded,
    PreconditionFailed,
    ProvisionedConcurrencyNotFound,
    ResourceConflict,
    ResourceNotFound,
)
from tests.lambdaing import ARN, World

OTHER = Place("111122223333", "eu-west-1")
QUEUE = "arn:aws:sqs:us-east-1:123456789012:q"


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "data", transition_s=0.5)
    made.create(Publish=True)
    made.host.advance(500)
    return made


def refused(world, kind, operation, /, **parameters):
    with pytest.raises(kind) as caught:
        world.call(operation, **{"FunctionName": "f", **parameters})
    return str(caught.value)


# ---------------------------------------------------------------------- concurrency


def test_reserved_concurrency_holds_and_outlives_the_runtime(world):
    put = world.call("PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=0)
    assert put == {"ReservedConcurrentExecutions": 0}
    assert world.fleet.limits == {"f": 0}
    assert world.call("GetFunctionConcurrency", FunctionName="f") == {"ReservedConcurrentExecutions": 0}
    assert world.call("GetFunction", FunctionName="f")["Concurrency"] == {"ReservedConcurrentExecutions": 0}
    world.start()
    assert world.fleet.limits == {"f": 0}
    assert world.call("DeleteFunctionConcurrency", FunctionName="f") == {}
    assert world.fleet.limits == {}
    assert world.call("GetFunctionConcurrency", FunctionName="f") == {}


def test_a_hundred_are_left_for_the_others(world):
    world.create("g")
    world.call("PutFunctionConcurrency", FunctionName="g", ReservedConcurrentExecutions=600)
    world.call("PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=300)
    assert refused(world, InvalidParameterValue, "PutFunctionConcurrency", ReservedConcurrentExecutions=301) == (
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below "
        "its minimum value of [100]."
    )
    limit = world.call("GetAccountSettings")["AccountLimit"]
    assert (limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]) == (1000, 100)


def test_concurrency_is_of_a_function_not_of_a_version(world):
    assert refused(
        world, InvalidParameterValue, "PutFunctionConcurrency", FunctionName="f:1", ReservedConcurrentExecutions=1
    ).startswith("This operation is permitted on Lambda functions only.")


def test_provisioned_concurrency_is_kept_and_becomes_ready(world):
    put = world.call(
        "PutProvisionedConcurrencyConfig", FunctionName="f", Qualifier="1", ProvisionedConcurrentExecutions=2
    )
    assert put.pop("LastModified").startswith("2023-11-14T22:13:20.")
    assert put == {
        "RequestedProvisionedConcurrentExecutions": 2,
        "AvailableProvisionedConcurrentExecutions": 0,
        "AllocatedProvisionedConcurrentExecutions": 0,
        "Status": "IN_PROGRESS",
    }
    world.host.advance(500)
    found = world.call("GetProvisionedConcurrencyConfig", FunctionName="f", Qualifier="1")
    assert (found["Status"], found["AvailableProvisionedConcurrentExecutions"]) == ("READY", 2)
    (listed,) = world.call("ListProvisionedConcurrencyConfigs", FunctionName="f")["ProvisionedConcurrencyConfigs"]
    assert listed["FunctionArn"] == f"{ARN}:f:1"
    assert refused(world, InvalidParameterValue, "PutFunctionConcurrency", ReservedConcurrentExecutions=1) == (
        " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2]."
    )
    world.call("DeleteProvisionedConcurrencyConfig", FunctionName="f", Qualifier="1")
    assert (
        refused(world, ProvisionedConcurrencyNotFound, "GetProvisionedConcurrencyConfig", Qualifier="1")
        == "No Provisioned Concurrency Config found for this function"
    )


def test_what_is_wrong_with_provisioned_concurrency_is_said_in_aws_words(world):
    given = {"ProvisionedConcurrentExecutions": 2}
    operation = "PutProvisionedConcurrencyConfig"
    world.call("CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    assert refused(world, InvalidParameterValue, operation, Qualifier="$LATEST", **given) == (
        "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    )
    assert refused(world, ResourceNotFound, operation, Qualifier="9", **given) == f"Function not found: {ARN}:f:9"
    world.call("PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=1)
    assert refused(world, InvalidParameterValue, operation, Qualifier="1", **given) == (
        "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
    )
    world.call("DeleteFunctionConcurrency", FunctionName="f")
    world.call(operation, FunctionName="f", Qualifier="1", **given)
    assert refused(world, ResourceConflict, operation, Qualifier="live", **given) == (
        "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
    )


# ---------------------------------------------------------------------- events


def test_how_events_are_retried_is_replaced_by_put_and_merged_by_update(world):
    put = world.call(
        "PutFunctionEventInvokeConfig",
        FunctionName="f",
        MaximumRetryAttempts=0,
        MaximumEventAgeInSeconds=60,
        DestinationConfig={"OnFailure": {"Destination": QUEUE}},
    )
    del put["LastModified"]
    assert put == {
        "FunctionArn": f"{ARN}:f:$LATEST",
        "MaximumRetryAttempts": 0,
        "MaximumEventAgeInSeconds": 60,
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}},
    }
    updated = world.call("UpdateFunctionEventInvokeConfig", FunctionName="f", MaximumRetryAttempts=1)
    assert (updated["MaximumRetryAttempts"], updated["MaximumEventAgeInSeconds"]) == (1, 60)
    world.start()
    replaced = world.call("PutFunctionEventInvokeConfig", FunctionName="f", MaximumRetryAttempts=2)
    assert "MaximumEventAgeInSeconds" not in replaced
    assert replaced["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}}
    world.call("PutFunctionEventInvokeConfig", FunctionName="f", Qualifier="1", MaximumRetryAttempts=2)
    found = world.call("ListFunctionEventInvokeConfigs", FunctionName="f")["FunctionEventInvokeConfigs"]
    assert [each["FunctionArn"] for each in found] == [f"{ARN}:f:$LATEST", f"{ARN}:f:1"]
    world.call("DeleteFunctionEventInvokeConfig", FunctionName="f")
    for operation in ("GetFunctionEventInvokeConfig", "DeleteFunctionEventInvokeConfig"):
        assert (
            refused(world, ResourceNotFound, operation)
            == f"The function {ARN}:f:$LATEST doesn't have an EventInvokeConfig"
        )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "You must specify at least one of error handling or destination setting."),
        (
            {"DestinationConfig": {"OnSuccess": {"Destination": f"{ARN}:f"}}},
            "You can't specify the function as a destination for itself.",
        ),
        (
            {"DestinationConfig": {"OnSuccess": {"Destination": "arn:aws:s3:::b"}}},
            "The destination ARN arn:aws:s3:::b is invalid.",
        ),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": f"{QUEUE}.fifo"}}},
            f"The destination ARN {QUEUE}.fifo is invalid: FIFO is not supported for OnFailure.",
        ),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:events:us-east-1:123456789012:event-bus/b"}}},
            (
                "The destination ARN arn:aws:events:us-east-1:123456789012:event-bus/b is not supported here: kflow "
                "has no event buses; use a queue, a topic, a function, or for failures a bucket."
            ),
        ),
    ],
)
def test_what_is_wrong_with_destinations_is_said(world, given, text):
    assert refused(world, InvalidParameterValue, "PutFunctionEventInvokeConfig", **given) == text


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("MaximumRetryAttempts", -1, "greater than or equal to 0"),
        ("MaximumRetryAttempts", 3, "less than or equal to 2"),
        ("MaximumEventAgeInSeconds", 59, "greater than or equal to 60"),
        ("MaximumEventAgeInSeconds", 21_601, "less than or equal to 21600"),
    ],
)
def test_retries_and_ages_of_events_have_the_ranges_of_the_model(world, name, value, rule):
    shown = name[0].lower() + name[1:]
    assert refused(world, ValidationFailed, "PutFunctionEventInvokeConfig", **{name: value}) == (
        f"1 validation error detected: Value '{value}' at '{shown}' failed to satisfy constraint: "
        f"Member must have value {rule}"
    )


def test_failures_may_go_to_a_bucket(world):
    given = {"OnFailure": {"Destination": "arn:aws:s3:::bucket"}}
    world.call("PutFunctionEventInvokeConfig", FunctionName="f", DestinationConfig=given)
    kept = world.call("GetFunctionEventInvokeConfig", FunctionName="f")["DestinationConfig"]
    assert kept == {"OnSuccess": {}, "OnFailure": {"Destination": "arn:aws:s3:::bucket"}}


# ---------------------------------------------------------------------- permissions


def test_permissions_are_statements_of_a_policy(world):
    added = world.call(
        "AddPermission",
        FunctionName="f",
        StatementId="s3",
        Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com",
        SourceArn="arn:aws:s3:::b",
        SourceAccount="123456789012",
    )
    statement = {
        "Sid": "s3",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "lambda:InvokeFunction",
        "Resource": f"{ARN}:f",
        "Condition": {
            "StringEquals": {"AWS:SourceAccount": "123456789012"},
            "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"},
        },
    }
    assert json.loads(added["Statement"]) == statement
    world.call("AddPermission", FunctionName="f", StatementId="acc", Action="lambda:*", Principal="111122223333")
    world.start()
    found = world.call("GetPolicy", FunctionName="f")
    policy = json.loads(found["Policy"])
    assert (policy["Version"], policy["Id"]) == ("2012-10-17", "default")
    assert policy["Statement"][0] == statement
    assert policy["Statement"][1]["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}
    world.call("RemovePermission", FunctionName="f", StatementId="s3", RevisionId=found["RevisionId"])
    world.call("RemovePermission", FunctionName="f", StatementId="acc")
    assert refused(world, ResourceNotFound, "GetPolicy") == "The resource you requested does not exist."


def test_what_is_wrong_with_permissions_is_said_in_aws_words(world):
    given = {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "*"}
    world.call("AddPermission", FunctionName="f", **given)
    assert refused(world, ResourceConflict, "AddPermission", **given) == (
        "The statement id (s) provided already exists. Please provide a new statement id, or remove the existing "
        "statement."
    )
    assert refused(world, InvalidParameterValue, "AddPermission", Qualifier="$LATEST", **given) == (
        "We currently do not support adding policies for $LATEST."
    )
    assert refused(world, ResourceNotFound, "RemovePermission", StatementId="t") == (
        "Statement t is not found in resource policy."
    )
    assert refused(world, ResourceNotFound, "RemovePermission", Qualifier="1", StatementId="t") == (
        "No policy is associated with the given resource."
    )
    assert refused(world, PreconditionFailed, "AddPermission", **{**given, "StatementId": "t"}, RevisionId="x") == (
        "The Revision Id provided does not match the latest Revision Id. "
        "Call the GetPolicy API to retrieve the latest Revision Id"
    )
    long = {**given, "SourceArn": f"arn:aws:s3:::{'b' * 9980}"}
    world.call("AddPermission", FunctionName="f", **{**long, "StatementId": "long"})
    with pytest.raises(PolicyLengthExceeded, match=r"is bigger than the limit \(20480\)"):
        world.call("AddPermission", FunctionName="f", **{**long, "StatementId": "longer"})


# ---------------------------------------------------------------------- URLs


def test_a_url_is_kept_and_shown_and_people_are_told_that_nobody_serves_it(world):
    made = world.call(
        "CreateFunctionUrlConfig", FunctionName="f", AuthType="NONE", Cors={"AllowOrigins": ["*"], "MaxAge": 60}
    )
    assert made["FunctionUrl"].startswith("https://")
    assert made["FunctionUrl"].endswith(".lambda-url.us-east-1.on.aws/")
    assert (made["AuthType"], made["InvokeMode"]) == ("NONE", "BUFFERED")
    assert made["Cors"] == {"AllowOrigins": ["*"], "MaxAge": 60}
    assert "nobody serves it" in world.host.notices[-1][1]
    updated = world.call("UpdateFunctionUrlConfig", FunctionName="f", AuthType="AWS_IAM")
    assert (updated["AuthType"], updated["FunctionUrl"]) == ("AWS_IAM", made["FunctionUrl"])
    world.start()
    assert world.call("GetFunctionUrlConfig", FunctionName="f")["Cors"] == {"AllowOrigins": ["*"], "MaxAge": 60}
    listed = world.call("ListFunctionUrlConfigs", FunctionName="f")["FunctionUrlConfigs"]
    assert [each["FunctionArn"] for each in listed] == [f"{ARN}:f"]
    assert refused(world, ResourceConflict, "CreateFunctionUrlConfig", AuthType="NONE") == (
        f"Failed to create function url config for [functionArn = {ARN}:f]. "
        "Error message:  FunctionUrlConfig exists for this Lambda function"
    )
    world.call("DeleteFunctionUrlConfig", FunctionName="f")
    for operation in ("GetFunctionUrlConfig", "DeleteFunctionUrlConfig", "UpdateFunctionUrlConfig"):
        assert refused(world, ResourceNotFound, operation) == "The resource you requested does not exist."


# ---------------------------------------------------------------------- tags, account and the rest


def test_tags_are_put_and_removed(world):
    world.call("TagResource", Resource=f"{ARN}:f", Tags={"a": "1", "b": "2"})
    world.call("UntagResource", Resource=f"{ARN}:f", TagKeys=["a", "zz"])
    world.start()
    assert world.call("ListTags", Resource=f"{ARN}:f") == {"Tags": {"b": "2"}}
    with pytest.raises(InvalidParameterValue) as caught:
        world.call("ListTags", Resource=f"{ARN}:f:1")
    assert str(caught.value) == (
        "Tags on function aliases and versions are not supported. "
        "Please specify either a function name or an unqualified function ARN."
    )
    with pytest.raises(InvalidParameterValue, match="Number of tags exceeds resource tag limit"):
        world.call("TagResource", Resource=f"{ARN}:f", Tags={f"k{number}": "" for number in range(50)})
    with pytest.raises(InvalidParameterValue, match="aws:"):
        world.call("TagResource", Resource=f"{ARN}:f", Tags={"aws:x": ""})


def test_the_account_says_what_it_uses(world):
    size = world.call("GetFunctionConfiguration", FunctionName="f")["CodeSize"]
    found = world.call("GetAccountSettings")
    assert found["AccountUsage"] == {"TotalCodeSize": 2 * size, "FunctionCount": 1}
    assert found["AccountLimit"]["CodeSizeUnzipped"] == 262_144_000
    assert world.call("GetAccountSettings", OTHER)["AccountUsage"] == {"TotalCodeSize": 0, "FunctionCount": 0}


def test_loops_are_terminated_unless_allowed(world):
    assert world.call("GetFunctionRecursionConfig", FunctionName="f") == {"RecursiveLoop": "Terminate"}
    world.call("PutFunctionRecursionConfig", FunctionName="f", RecursiveLoop="Allow")
    world.start()
    assert world.call("GetFunctionRecursionConfig", FunctionName="f") == {"RecursiveLoop": "Allow"}


def test_no_function_has_a_signature_config(world):
    assert world.call("GetFunctionCodeSigningConfig", FunctionName="f") == {"FunctionName": "f"}
    assert world.call("DeleteFunctionCodeSigningConfig", FunctionName="f") == {}
    assert world.call("ListCodeSigningConfigs") == {"CodeSigningConfigs": []}
    assert world.call("DeleteFunctionCodeSigningConfig", FunctionName="f") == {}
    with pytest.raises(Exception, match=r"kflow does not perform lambda.CreateCodeSigningConfig"):
        world.call(
            "CreateCodeSigningConfig",
            AllowedPublishers={
                "SigningProfileVersionArns": ["arn:aws:signer:us-east-1:123456789012:/signing-profiles/p/v"]
            },
        )
