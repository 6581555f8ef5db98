"""Layers: published, found, used by functions, and deleted."""

from __future__ import annotations

import hashlib
import json

import pytest

from kflow.lambda_.errors import InvalidParameterValue, ResourceNotFound
from tests.lambdaing import World, zipped

LAYER = "arn:aws:lambda:us-east-1:123456789012:layer:libs"
LIB = zipped({"python/lib.py": "x = 1\n"})
NOT_THERE = "The resource you requested does not exist."


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "data")


def publish(world, name="libs", content=LIB, **parameters):
    return world.call("PublishLayerVersion", LayerName=name, Content={"ZipFile": content}, **parameters)


def test_a_version_is_published_and_found_by_number_and_by_arn(world):
    made = publish(
        world, Description="d", LicenseInfo="MIT", CompatibleRuntimes=["python3.12"], CompatibleArchitectures=["arm64"]
    )
    digest = hashlib.sha256(LIB).hexdigest()
    assert made == {
        "Content": {
            "Location": f"http://localhost:4566/_kflow/lambda/code/{digest}.zip",
            "CodeSha256": made["Content"]["CodeSha256"],
            "CodeSize": len(LIB),
        },
        "LayerArn": LAYER,
        "LayerVersionArn": f"{LAYER}:1",
        "Description": "d",
        "CreatedDate": "2023-11-14T22:13:20.000+0000",
        "Version": 1,
        "CompatibleRuntimes": ["python3.12"],
        "LicenseInfo": "MIT",
        "CompatibleArchitectures": ["arm64"],
    }
    world.start()
    assert world.call("GetLayerVersion", LayerName="libs", VersionNumber=1) == made
    assert world.call("GetLayerVersion", LayerName=LAYER, VersionNumber=1) == made
    assert world.call("GetLayerVersionByArn", Arn=f"{LAYER}:1") == made


def test_what_is_not_there_is_not_found(world):
    publish(world)
    for operation, given in (
        ("GetLayerVersion", {"LayerName": "libs", "VersionNumber": 2}),
        ("GetLayerVersion", {"LayerName": "nope", "VersionNumber": 1}),
        ("GetLayerVersionByArn", {"Arn": f"{LAYER}:7"}),
    ):
        with pytest.raises(ResourceNotFound) as caught:
            world.call(operation, **given)
        assert str(caught.value) == NOT_THERE


def test_layers_are_listed_with_their_newest_version_that_suits(world):
    publish(world, CompatibleRuntimes=["python3.12"])
    publish(world, content=zipped({"a": "b"}), CompatibleRuntimes=["nodejs22.x"])
    publish(world, "other")
    found = world.call("ListLayers")["Layers"]
    assert [(each["LayerName"], each["LatestMatchingVersion"]["Version"]) for each in found] == [
        ("libs", 2),
        ("other", 1),
    ]
    (found,) = world.call("ListLayers", CompatibleRuntime="python3.12")["Layers"]
    assert found["LatestMatchingVersion"]["Version"] == 1
    first = world.call("ListLayerVersions", LayerName="libs", MaxItems=1)
    second = world.call("ListLayerVersions", LayerName="libs", MaxItems=1, Marker=first["NextMarker"])
    assert [each["Version"] for page in (first, second) for each in page["LayerVersions"]] == [2, 1]
    assert "NextMarker" not in second
    assert world.call("ListLayerVersions", LayerName="nope") == {"LayerVersions": []}


def test_a_deleted_version_is_gone_and_its_number_too(world):
    publish(world)
    assert world.call("DeleteLayerVersion", LayerName="libs", VersionNumber=1) == {}
    assert world.call("DeleteLayerVersion", LayerName="libs", VersionNumber=1) == {}
    assert world.call("ListLayers") == {"Layers": []}
    world.host.advance(10**6)
    assert world.unpacked == []
    world.start()
    assert publish(world)["Version"] == 2


def test_a_function_has_the_folders_of_its_layers_in_their_order(world):
    publish(world)
    publish(world, "more", zipped({"bin/tool": "x"}))
    more = LAYER.replace("libs", "more")
    made = world.create(Layers=[f"{more}:1", f"{LAYER}:1"])
    assert [each["Arn"] for each in made["Layers"]] == [f"{more}:1", f"{LAYER}:1"]
    package = world.fleet.published["f"].handler.package
    assert [path.rpartition("/")[2] for path in package.layers] == [
        hashlib.sha256(content).hexdigest() for content in (zipped({"bin/tool": "x"}), LIB)
    ]
    assert "Layers" not in world.call("UpdateFunctionConfiguration", FunctionName="f", Layers=[])
    assert world.fleet.published["f"].handler.package.layers == ()


def test_a_function_keeps_a_version_that_is_deleted(world):
    publish(world)
    world.create(Layers=[f"{LAYER}:1"])
    world.call("DeleteLayerVersion", LayerName="libs", VersionNumber=1)
    world.host.advance(10**6)
    world.start()
    world.host.advance(10**6)
    (layer,) = world.fleet.published["f"].handler.package.layers
    with open(f"{layer}/python/lib.py") as file:
        assert file.read() == "x = 1\n"
    with pytest.raises(InvalidParameterValue) as caught:
        world.create("g", Layers=[f"{LAYER}:1"])
    assert str(caught.value) == f"Layer version {LAYER}:1 does not exist."


def test_what_is_wrong_with_the_layers_of_a_function_is_said_in_aws_words(world):
    publish(world)
    publish(world, content=zipped({"a": "b"}))
    elsewhere = LAYER.replace("us-east-1", "eu-west-1")
    for layers, text in (
        ([f"{LAYER}:{number}" for number in range(1, 7)], "Cannot reference more than 5 layers."),
        (
            [f"{LAYER}:1", f"{LAYER}:2"],
            (
                "Two different versions of the same layer are not allowed to be referenced in the same function. "
                f"{LAYER}:1 and {LAYER}:2 are versions of the same layer."
            ),
        ),
        (
            [f"{elsewhere}:1"],
            "Layers are not in the same region as the function. Layers are expected to be in region us-east-1.",
        ),
    ):
        with pytest.raises(InvalidParameterValue) as caught:
            world.create(Layers=layers)
        assert str(caught.value) == text


def test_code_and_layers_together_may_not_be_too_much(world, monkeypatch):
    from kflow.lambda_.control import configuration

    publish(world)
    monkeypatch.setattr(configuration, "UNPACKED_BYTES", 50)
    with pytest.raises(InvalidParameterValue) as caught:
        world.create(Layers=[f"{LAYER}:1"])
    assert str(caught.value) == (
        "Function code combined with layers exceeds the maximum allowed size of 50 bytes. The actual size is 52 bytes."
    )
    world.create()


def test_who_may_use_a_version_is_kept(world):
    publish(world)
    given = {"LayerName": "libs", "VersionNumber": 1}
    with pytest.raises(ResourceNotFound, match="No policy is associated with the given resource"):
        world.call("GetLayerVersionPolicy", **given)
    added = world.call(
        "AddLayerVersionPermission",
        **given,
        StatementId="all",
        Action="lambda:GetLayerVersion",
        Principal="*",
        OrganizationId="o-a1b2c3d4e5",
    )
    world.start()
    found = world.call("GetLayerVersionPolicy", **given)
    assert found["RevisionId"] == added["RevisionId"]
    (statement,) = json.loads(found["Policy"])["Statement"]
    assert statement["Resource"] == f"{LAYER}:1"
    assert statement["Condition"] == {"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}
    world.call("RemoveLayerVersionPermission", **given, StatementId="all")
    with pytest.raises(ResourceNotFound):
        world.call("GetLayerVersionPolicy", **given)


def test_a_bad_zip_is_no_layer(world):
    with pytest.raises(InvalidParameterValue, match="Could not unzip uploaded file"):
        publish(world, content=b"no zip")
    assert world.call("ListLayers") == {"Layers": []}
