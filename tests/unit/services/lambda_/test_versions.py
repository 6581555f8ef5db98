"""Versions, aliases and what is kept by qualifier, in AWS's words."""

from __future__ import annotations

import pytest

from kflow.aws.calls import Place
from kflow.errors import ValidationFailed
from kflow.lambda_.errors import InvalidParameterValue, PreconditionFailed, ResourceConflict, ResourceNotFound
from tests.lambdaing import ARN, World, zipped


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "data")
    made.create()
    return made


def refused(world, kind, operation, /, **parameters):
    with pytest.raises(kind) as caught:
        world.call(operation, FunctionName="f", **parameters)
    return str(caught.value)


def publish(world, **parameters):
    return world.call("PublishVersion", FunctionName="f", **parameters)


def change(world):
    """So that the next version is another one."""
    timeout = world.call("GetFunctionConfiguration", FunctionName="f")["Timeout"] + 1
    world.call("UpdateFunctionConfiguration", FunctionName="f", Timeout=timeout)


# ---------------------------------------------------------------------- versions


def test_a_version_is_what_latest_was_and_stays_so(world):
    made = publish(world, Description="first")
    assert (made["Version"], made["FunctionArn"], made["Description"]) == ("1", f"{ARN}:f:1", "first")
    assert made["State"] == "Pending"
    change(world)
    found = world.call("GetFunctionConfiguration", FunctionName="f", Qualifier="1")
    assert (found["Timeout"], found["State"], found["FunctionArn"]) == (3, "Active", f"{ARN}:f:1")
    assert world.fleet.published["f:1"].timeout_s == 3
    assert world.fleet.published["f"].timeout_s == 4
    assert world.fleet.published["f:1"].handler.package.version == "1"


def test_nothing_new_is_published_where_nothing_has_changed(world):
    first = publish(world)
    world.fleet.told.clear()
    again = publish(world, Description="another")
    assert (again["Version"], again["RevisionId"]) == ("1", first["RevisionId"])
    assert world.fleet.told == []
    change(world)
    assert publish(world)["Version"] == "2"


def test_numbers_are_never_used_again(world):
    publish(world)
    change(world)
    publish(world)
    world.call("DeleteFunction", FunctionName="f", Qualifier="2")
    world.start()
    change(world)
    assert publish(world)["Version"] == "3"


def test_numbers_are_never_used_again_by_a_function_of_the_same_name(world):
    publish(world)
    change(world)
    publish(world)
    world.call("DeleteFunction", FunctionName="f")
    world.create()
    assert publish(world)["Version"] == "3"
    world.call("DeleteFunction", FunctionName="f")
    world.start()
    assert world.create("f", Publish=True)["Version"] == "4"
    elsewhere = Place("123456789012", "eu-west-1")
    assert world.create("f", elsewhere, Publish=True)["Version"] == "1"
    world.call("DeleteFunction", elsewhere, FunctionName="f")
    world.start()
    assert world.create("f", elsewhere, Publish=True)["Version"] == "2"


def test_numbers_are_kept_of_the_last_names_that_had_versions(world, monkeypatch):
    monkeypatch.setattr("kflow.lambda_.control.numbers.MOST", 2)
    publish(world)
    world.create("bare")
    for name in ("a", "b"):
        world.create(name, Publish=True)
    for name in ("f", "bare", "a", "b"):
        world.call("DeleteFunction", FunctionName=name)
    assert sorted(each.name for each in (world.path / "lambda/numbers").glob("*.json")) == ["a.json", "b.json"]
    assert [world.create(name, Publish=True)["Version"] for name in ("f", "a", "b")] == ["1", "2", "2"]


def test_numbers_begin_at_1_again_where_all_is_emptied(world):
    publish(world)
    world.create("g", Publish=True)
    world.call("DeleteFunction", FunctionName="g")
    over = []
    world.functions.clear(lambda: over.append(1))
    world.host.run()
    assert over == [1]
    assert list((world.path / "lambda/numbers").iterdir()) == []
    assert [world.create(name, Publish=True)["Version"] for name in ("f", "g")] == ["1", "1"]


def test_who_publishes_other_code_than_they_think_is_refused(world):
    sha = world.call("GetFunctionConfiguration", FunctionName="f")["CodeSha256"]
    assert refused(world, InvalidParameterValue, "PublishVersion", CodeSha256="x") == (
        f"CodeSHA256 (x) is different from current CodeSHA256 in $LATEST ({sha}). "
        "Please try again with the CodeSHA256 in $LATEST."
    )
    assert refused(world, PreconditionFailed, "PublishVersion", RevisionId="x") == (
        "The RevisionId provided does not match the latest RevisionId. "
        "Call the GetFunction/GetAlias API to retrieve the latest RevisionId"
    )
    assert publish(world, CodeSha256=sha)["Version"] == "1"


def test_versions_are_listed_from_the_oldest_in_pages(world):
    for _ in range(11):
        publish(world)
        change(world)
    first = world.call("ListVersionsByFunction", FunctionName="f", MaxItems=10)
    second = world.call("ListVersionsByFunction", FunctionName="f", MaxItems=10, Marker=first["NextMarker"])
    found = [each["Version"] for page in (first, second) for each in page["Versions"]]
    assert found == ["$LATEST", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]
    assert first["Versions"][0]["FunctionArn"] == f"{ARN}:f:$LATEST"
    assert "NextMarker" not in second


def test_an_environment_ends_only_where_its_version_means_something_else(world):
    publish(world)
    world.fleet.told.clear()
    change(world)
    world.call("TagResource", Resource=f"{ARN}:f", Tags={"a": "b"})
    assert world.fleet.told == ["publish f"]


# ---------------------------------------------------------------------- aliases


def test_an_alias_names_a_version_and_moves(world):
    publish(world)
    change(world)
    publish(world)
    made = world.call("CreateAlias", FunctionName="f", Name="live", FunctionVersion="1", Description="d")
    revision = made.pop("RevisionId")
    assert made == {"AliasArn": f"{ARN}:f:live", "Name": "live", "FunctionVersion": "1", "Description": "d"}
    assert world.fleet.published["f:live"].handler.package.version == "1"
    moved = world.call("UpdateAlias", FunctionName="f", Name="live", FunctionVersion="2", RevisionId=revision)
    assert (moved["FunctionVersion"], moved["Description"]) == ("2", "d")
    assert world.fleet.published["f:live"].handler.package.version == "2"
    assert world.fleet.published["f:live"].timeout_s == 4
    found = world.call("GetFunctionConfiguration", FunctionName="f:live")
    assert (found["FunctionArn"], found["Version"]) == (f"{ARN}:f:live", "2")
    assert refused(world, PreconditionFailed, "UpdateAlias", Name="live", RevisionId=revision)
    world.call("DeleteAlias", FunctionName="f", Name="live")
    assert "f:live" not in world.fleet.published
    assert world.call("DeleteAlias", FunctionName="f", Name="live") == {}


def test_an_alias_of_latest_follows_it(world):
    world.call("CreateAlias", FunctionName="f", Name="dev", FunctionVersion="$LATEST")
    change(world)
    assert world.fleet.published["f:dev"].timeout_s == 4


def test_weights_send_a_part_elsewhere(world):
    publish(world)
    change(world)
    publish(world)
    world.call(
        "CreateAlias",
        FunctionName="f",
        Name="live",
        FunctionVersion="1",
        RoutingConfig={"AdditionalVersionWeights": {"2": 0.25}},
    )
    world.start()
    target = world.functions.target(world.functions.home, "f:live")
    assert (target.version, target.key, target.weights, target.arn) == ("1", "f:live", {"2": 0.25}, f"{ARN}:f:live")
    found = world.call("GetAlias", FunctionName="f", Name="live")
    assert found["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.25}}
    for version, weights, text in (
        (
            "1",
            {"1": 0.5},
            "Invalid function version 1. Function version 1 is already included in routing configuration.",
        ),
        ("1", {"2": 0.1, "3": 0.1}, "Number of items in AdditionalVersionWeights cannot be greater than 1"),
        ("$LATEST", {"2": 0.1}, "$LATEST is not supported for an alias pointing to more than 1 version"),
    ):
        given = {"FunctionVersion": version, "RoutingConfig": {"AdditionalVersionWeights": weights}}
        assert refused(world, InvalidParameterValue, "UpdateAlias", Name="live", **given) == text
    assert refused(
        world, ValidationFailed, "UpdateAlias", Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": 1.5}}
    ) == (
        "1 validation error detected: Value '{2=1.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy "
        "constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0, "
        "Member must have value greater than or equal to 0.0]"
    )
    assert refused(
        world, ResourceNotFound, "UpdateAlias", Name="live", RoutingConfig={"AdditionalVersionWeights": {"9": 0.1}}
    ) == f"Function not found: {ARN}:f:9"  # fmt: skip
    cleared = world.call("UpdateAlias", FunctionName="f", Name="live", RoutingConfig={"AdditionalVersionWeights": {}})
    assert "RoutingConfig" not in cleared


def test_what_is_wrong_with_an_alias_is_said_in_aws_words(world):
    publish(world)
    world.call("CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    assert (
        refused(world, ResourceConflict, "CreateAlias", Name="live", FunctionVersion="1")
        == f"Alias already exists: {ARN}:f:live"
    )
    assert (
        refused(world, ResourceNotFound, "CreateAlias", Name="next", FunctionVersion="7")
        == f"Function not found: {ARN}:f:7"
    )
    assert refused(world, ResourceNotFound, "GetAlias", Name="nope") == f"Cannot find alias arn: {ARN}:f:nope"
    assert refused(world, ResourceNotFound, "UpdateAlias", Name="nope") == f"Alias not found: {ARN}:f:nope"
    with pytest.raises(ValidationFailed):
        world.call("CreateAlias", FunctionName="f", Name="12", FunctionVersion="1")


def test_aliases_are_listed_by_name_and_by_version(world):
    publish(world)
    for name, version in (("b", "1"), ("a", "1"), ("c", "$LATEST")):
        world.call("CreateAlias", FunctionName="f", Name=name, FunctionVersion=version)
    assert [each["Name"] for each in world.call("ListAliases", FunctionName="f")["Aliases"]] == ["a", "b", "c"]
    found = world.call("ListAliases", FunctionName="f", FunctionVersion="1", MaxItems=1)
    assert [each["Name"] for each in found["Aliases"]] == ["a"]
    found = world.call("ListAliases", FunctionName="f", FunctionVersion="1", Marker=found["NextMarker"])
    assert [each["Name"] for each in found["Aliases"]] == ["b"]


# ---------------------------------------------------------------------- runtimes


def test_when_a_runtime_is_updated_is_kept(world):
    assert world.call("GetRuntimeManagementConfig", FunctionName="f") == {
        "FunctionArn": f"{ARN}:f",
        "UpdateRuntimeOn": "Auto",
    }
    version = f"arn:aws:lambda:us-east-1::runtime:{'a' * 64}"
    world.call("PutRuntimeManagementConfig", FunctionName="f", UpdateRuntimeOn="Manual", RuntimeVersionArn=version)
    world.start()
    assert world.call("GetRuntimeManagementConfig", FunctionName="f") == {
        "FunctionArn": f"{ARN}:f",
        "UpdateRuntimeOn": "Manual",
        "RuntimeVersionArn": version,
    }
    assert (
        refused(world, InvalidParameterValue, "PutRuntimeManagementConfig", UpdateRuntimeOn="Manual")
        == "If the UpdateRuntimeOn mode is set to 'Manual', RuntimeVersionArn must be provided"
    )


def test_an_update_that_publishes_answers_with_the_version(world):
    made = world.call("UpdateFunctionCode", FunctionName="f", ZipFile=zipped({"a": "b"}), Publish=True)
    assert (made["Version"], made["FunctionArn"]) == ("1", f"{ARN}:f:1")
