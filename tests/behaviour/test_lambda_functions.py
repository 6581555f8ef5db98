"""Functions as resources on the endpoint, by boto3: uploaded, found, changed and kept, beside decorated handlers."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from kflow.broker.folder import DataFolder
from kflow.broker.objects import Objects
from tests.lambdaing import ARN, ROLE, zipped
from tests.served import Served, served

HANDLER = """\
import kflow

@kflow.on_stream("orders", timeout=9)
def bill(event, context):
    return event
"""


class Desk:
    """An endpoint with one decorated handler, and a client of Lambda."""

    def __init__(self, endpoint: Served) -> None:
        self.endpoint = endpoint
        self.client = endpoint.client(service="lambda")

    def create(self, name: str, **parameters: Any) -> dict[str, Any]:
        given = {"Runtime": "python3.11", "Role": ROLE, "Handler": "app.handler", "Code": {"ZipFile": zipped()}}
        return dict(self.client.create_function(FunctionName=name, **{**given, **parameters}))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("functions")
    (folder / "functions").mkdir()
    (folder / "functions" / "app.py").write_text(HANDLER)
    with served(folder, "--allow-reset", command="run") as place:
        yield Desk(place)


def refusal(call: Any, **parameters: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return dict(caught.value.response)


def test_an_upload_that_is_too_large_to_be_read_is_refused_in_lambdas_words(desk: Desk) -> None:
    with socket.create_connection(desk.endpoint.address, timeout=20) as peer:
        peer.sendall(b"POST /2015-03-31/functions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70167212\r\n\r\n")
        said = b"".join(iter(lambda: peer.recv(65536), b""))
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"x-amzn-errortype: RequestEntityTooLargeException" in head
    assert json.loads(body) == {
        "Message": "Request must be smaller than 70167211 bytes for the CreateFunction operation"
    }


def test_a_function_is_created_waited_for_and_its_code_fetched(desk: Desk) -> None:
    made = desk.create("fetched")
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert made["State"] == "Pending"
    desk.client.get_waiter("function_active_v2").wait(FunctionName="fetched", WaiterConfig={"Delay": 0})
    desk.client.get_waiter("function_updated_v2").wait(FunctionName="fetched", WaiterConfig={"Delay": 0})
    location = desk.client.get_function(FunctionName="fetched")["Code"]["Location"]
    assert desk.endpoint.get(location.removeprefix(desk.endpoint.url)) == (200, zipped())
    assert desk.endpoint.get("/_kflow/lambda/code/" + "0" * 64 + ".zip")[0] == 404
    assert desk.endpoint.get("/_kflow/lambda/code/../../FORMAT")[0] == 404


def test_code_of_megabytes_goes_in_and_comes_out_whole(desk: Desk) -> None:
    content = zipped({"blob.bin": os.urandom(13_500_000)})
    made = desk.create("large", Code={"ZipFile": content})
    assert made["CodeSize"] == len(content)
    location = desk.client.get_function(FunctionName="large")["Code"]["Location"]
    status, fetched = desk.endpoint.get(location.removeprefix(desk.endpoint.url))
    assert (status, hashlib.sha256(fetched).digest()) == (200, hashlib.sha256(content).digest())


def test_errors_have_the_members_that_lambdas_have(desk: Desk) -> None:
    desk.create("twice")
    found = refusal(desk.create, name="twice")
    assert found["Error"] == {"Code": "ResourceConflictException", "Message": "Function already exist: twice"}
    assert (found["Type"], found["message"]) == ("User", "Function already exist: twice")
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 409
    found = refusal(desk.client.get_function, FunctionName="none")
    assert (found["Type"], found["Message"]) == ("User", f"Function not found: {ARN}:none")
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 404
    found = refusal(desk.create, name="slow", Timeout=901)
    assert found["Error"]["Code"] == "ValidationException"
    assert "Type" not in found
    found = refusal(desk.create, name="broken", Code={"ZipFile": b"no zip"})
    assert found["Error"] == {
        "Code": "InvalidParameterValueException",
        "Message": "Could not unzip uploaded file. Please check your file, then try to upload again.",
    }


def test_all_forms_of_a_name_come_through_a_path(desk: Desk) -> None:
    desk.create("named", Publish=True)
    desk.client.create_alias(FunctionName="named", Name="live", FunctionVersion="1")
    for name, arn in (
        ("named", f"{ARN}:named"),
        ("named:live", f"{ARN}:named:live"),
        (f"{ARN}:named:1", f"{ARN}:named:1"),
        ("123456789012:function:named:$LATEST", f"{ARN}:named:$LATEST"),
    ):
        assert desk.client.get_function_configuration(FunctionName=name)["FunctionArn"] == arn
    assert desk.client.list_tags(Resource=f"{ARN}:named")["Tags"] == {}
    assert desk.client.delete_alias(FunctionName="named", Name="live")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert desk.client.delete_function(FunctionName="named")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_a_decorated_handler_is_among_the_functions(desk: Desk) -> None:
    functions = {each["FunctionName"]: each for page in desk.client.get_paginator("list_functions").paginate()
                 for each in page["Functions"]}  # fmt: skip
    assert functions["bill"]["Handler"] == "app.bill"
    assert functions["bill"]["Timeout"] == 9
    assert functions["bill"]["CodeSize"] == len(HANDLER)
    found = refusal(desk.client.update_function_configuration, FunctionName="bill", Timeout=3)
    assert "functions/app.py:4" in found["Error"]["Message"]


def test_code_comes_from_a_bucket_of_the_data_folder(desk: Desk) -> None:
    objects = Objects.of(DataFolder.open(desk.endpoint.data_dir))
    objects.create_bucket("deployments")
    objects.put("deployments", "v1/app.zip", zipped())
    made = desk.create("stored", Code={"S3Bucket": "deployments", "S3Key": "v1/app.zip"})
    assert made["CodeSize"] == len(zipped())
    found = refusal(desk.create, name="unstored", Code={"S3Bucket": "deployments", "S3Key": "v2"})
    assert found["Error"]["Message"] == (
        "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."
    )


def test_who_signs_nothing_is_told_by_the_path(desk: Desk) -> None:
    status, body = desk.endpoint.get("/2015-03-31/functions/?MaxItems=1")
    assert status == 200
    assert len(json.loads(body)["Functions"]) == 1


def test_accounts_and_regions_have_functions_of_their_own(desk: Desk) -> None:
    other = desk.endpoint.client(service="lambda", region="eu-west-1", access_key="111122223333")
    assert other.list_functions()["Functions"] == []
    made = other.create_function(
        FunctionName="bill", Runtime="python3.11", Role=ROLE, Handler="a.b", Code={"ZipFile": zipped()}
    )
    assert made["FunctionArn"] == "arn:aws:lambda:eu-west-1:111122223333:function:bill"


def test_what_kflow_has_none_of_says_so(desk: Desk) -> None:
    found = refusal(desk.client.list_capacity_providers)
    assert found["Error"] == {
        "Code": "NotImplementedException",
        "Message": "kflow does not perform lambda.ListCapacityProviders; call AWS for it",
    }


def test_everything_is_there_after_a_restart_and_nothing_after_a_reset(tmp_path: Path) -> None:
    with served(tmp_path, "--allow-reset") as endpoint:
        desk = Desk(endpoint)
        layer = desk.client.publish_layer_version(LayerName="libs", Content={"ZipFile": zipped({"python/x.py": ""})})
        made = desk.create("f", Layers=[layer["LayerVersionArn"]], Tags={"a": "b"}, Publish=True)
        assert made["Version"] == "1"
        assert endpoint.stop() == 130
        endpoint.start()
        desk = Desk(endpoint)
        found = desk.client.get_function(FunctionName="f:1")
        assert found["Configuration"]["RevisionId"] == made["RevisionId"]
        assert found["Configuration"]["Layers"][0]["Arn"] == layer["LayerVersionArn"]
        assert found["Tags"] == {"a": "b"}
        assert endpoint.get("/_kflow/reset", method="POST")[0] == 200
        assert desk.client.list_functions()["Functions"] == []
        assert desk.client.list_layers()["Layers"] == []
        endpoint.kill()
        endpoint.start()
        assert Desk(endpoint).client.list_functions()["Functions"] == []


def test_a_mapping_has_tags_too(desk: Desk) -> None:
    desk.create("mapped")
    mapping = desk.client.create_event_source_mapping(
        FunctionName="mapped",
        EventSourceArn="arn:aws:kinesis:us-east-1:123456789012:stream/orders",
        StartingPosition="LATEST",
        Enabled=False,
        Tags={"a": "1"},
    )
    arn = mapping["EventSourceMappingArn"]
    desk.client.tag_resource(Resource=arn, Tags={"b": "2"})
    desk.client.untag_resource(Resource=arn, TagKeys=["a"])
    assert desk.client.list_tags(Resource=arn)["Tags"] == {"b": "2"}
    nowhere = arn.replace(mapping["UUID"], "00000000-0000-0000-0000-000000000000")
    found = refusal(desk.client.list_tags, Resource=nowhere)
    assert found["Error"] == {
        "Code": "ResourceNotFoundException",
        "Message": "The resource you requested does not exist.",
    }
