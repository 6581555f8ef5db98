"""Functions are changed and killed at every file call: each is then as it was or as it was to be, with all its code."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from kflow.broker.files import FILES, Files
from tests.lambdaing import ROLE, World, zipped
from tests.mortal import Killed, MortalFiles
from tests.served import served

NEW = zipped({"app.py": "new\n"})
LIB = zipped({"python/lib.py": "x = 1\n"})
LAYER = "arn:aws:lambda:us-east-1:123456789012:layer:libs:1"


def look(world: World) -> dict[str, Any]:
    """All that can be seen, but revisions and times."""
    found = world.call("ListFunctions", FunctionVersion="ALL")["Functions"]
    functions = {
        each["FunctionArn"].rpartition("function:")[2]: (each["Timeout"], each["CodeSha256"]) for each in found
    }
    aliases = world.call("ListAliases", FunctionName="f")["Aliases"] if "f:$LATEST" in functions else []
    layers = [each["LatestMatchingVersion"]["Version"] for each in world.call("ListLayers")["Layers"]]
    return {"functions": functions, "aliases": [each["Name"] for each in aliases], "layers": layers}


def layers(world: World) -> set[str]:
    """Folders of the layers themselves, whoever uses them."""
    return {
        world.packages.folder(version.code)
        for layer in world.layers.of(world.functions.home)
        for version in layer.facts.versions.values()
    }


CASES: list[tuple[str, dict[str, Any]]] = [
    (
        "CreateFunction",
        {
            "FunctionName": "g",
            "Runtime": "python3.12",
            "Role": ROLE,
            "Handler": "app.handler",
            "Code": {"ZipFile": NEW},
            "Layers": [LAYER],
            "Publish": True,
        },
    ),
    ("UpdateFunctionCode", {"FunctionName": "f", "ZipFile": NEW}),
    ("UpdateFunctionConfiguration", {"FunctionName": "f", "Timeout": 9}),
    ("PublishVersion", {"FunctionName": "f"}),
    ("CreateAlias", {"FunctionName": "f", "Name": "live", "FunctionVersion": "$LATEST"}),
    ("DeleteFunction", {"FunctionName": "f"}),
    ("PublishLayerVersion", {"LayerName": "libs", "Content": {"ZipFile": NEW}}),
    ("DeleteLayerVersion", {"LayerName": "libs", "VersionNumber": 1}),
]


@pytest.mark.parametrize(("operation", "parameters"), CASES, ids=[case[0] for case in CASES])
def test_killed_anywhere_a_function_is_as_it_was_or_as_it_was_to_be(tmp_path, operation, parameters):
    def prepared(name: str, files: Files) -> World:
        world = World(tmp_path / name, files=files)
        world.call("PublishLayerVersion", LayerName="libs", Content={"ZipFile": LIB})
        world.create("f")
        return world

    whole = prepared("whole", FILES)
    before = look(whole)
    whole.call(operation, **parameters)
    after = look(whole)
    assert before != after

    for calls in itertools.count():
        files = MortalFiles()
        world = prepared(f"killed-{calls}", files)
        files.left = calls
        answered: list[Any] = []
        try:
            answered = world.begin(operation, **parameters)
            world.host.run()
            world.host.advance(10**6)  # what nobody uses goes
        except Killed:
            pass
        else:
            break
        survivor = World(world.path)
        assert look(survivor) == after if answered else look(survivor) in (before, after)
        uses = {
            folder
            for published in survivor.fleet.published.values()
            for folder in (published.handler.package.code, *published.handler.package.layers)
        }
        assert all(any(Path(folder).iterdir()) for folder in uses)
        named = {Path(folder).name for folder in uses | layers(survivor)}
        assert {name.removesuffix(".zip") for name in survivor.unpacked} == named, "what nobody names is gone"
        again = look(World(world.path))
        assert again == look(survivor)
    assert calls > 2


def test_what_was_acknowledged_is_there_after_kill_nine(tmp_path):
    with served(tmp_path) as endpoint:
        functions = endpoint.client(service="lambda")
        for number in range(3):
            functions.create_function(
                FunctionName=f"f{number}",
                Runtime="python3.12",
                Role=ROLE,
                Handler="app.handler",
                Code={"ZipFile": zipped({"app.py": f"{number}\n"})},
                Publish=True,
            )
            functions.put_function_concurrency(FunctionName=f"f{number}", ReservedConcurrentExecutions=number)
        endpoint.kill()
        endpoint.start()
        functions = endpoint.client(service="lambda")
        for number in range(3):
            found = functions.get_function(FunctionName=f"f{number}")
            assert found["Concurrency"] == {"ReservedConcurrentExecutions": number}
            path = found["Code"]["Location"].removeprefix(endpoint.url)
            assert endpoint.get(path) == (200, zipped({"app.py": f"{number}\n"}))
