"""Models out of botocore's folder, digests of them, and what is linked from those."""

import gzip
import json
import subprocess
import sys

import botocore.session
import pytest

from kflow.aws import models
from kflow.aws.digest import digest
from kflow.aws.models import load
from kflow.aws.shapes import ListOf, MapOf, Scalar, Structure, snake_case
from kflow.errors import UsageError
from tests.unit.aws.fakes import model

RAW = {
    "metadata": {"protocol": "json", "jsonVersion": "1.0", "endpointPrefix": "tiny", "targetPrefix": "T"},
    "operations": {
        "Go": {
            "name": "Go",
            "http": {"method": "POST", "requestUri": "/"},
            "input": {"shape": "In"},
            "errors": [{"shape": "Bad"}],
            "documentation": "<p>prose</p>",
        }
    },
    "shapes": {
        "In": {
            "type": "structure",
            "required": ["documentation"],
            "members": {"documentation": {"shape": "S", "documentation": "prose"}, "Self": {"shape": "In"}},
            "documentation": "prose",
        },
        "S": {"type": "string", "enum": ["documentation"]},
        "Bad": {
            "type": "structure",
            "members": {},
            "exception": True,
            "error": {"code": "Worse", "httpStatusCode": 409},
        },
        "Lost": {"type": "string"},
    },
}


def folder(tmp_path, versions=("2020-01-01",), content=None, service="tiny", packed=True):
    for version in versions:
        place = tmp_path / "data" / service / version
        place.mkdir(parents=True)
        plain = json.dumps(RAW | {"metadata": RAW["metadata"] | {"apiVersion": version}}).encode()
        file = place / ("service-2.json.gz" if packed else "service-2.json")
        file.write_bytes(content if content is not None else gzip.compress(plain) if packed else plain)
    return tmp_path / "data"


def test_a_digest_has_no_prose_and_no_shape_that_nothing_reaches():
    assert digest(RAW) == {
        "metadata": RAW["metadata"],
        "operations": {
            "Go": {
                "name": "Go",
                "http": {"method": "POST", "requestUri": "/"},
                "input": {"shape": "In"},
                "errors": [{"shape": "Bad"}],
            }
        },
        "shapes": {
            "In": {
                "type": "structure",
                "required": ["documentation"],
                "members": {"documentation": {"shape": "S"}, "Self": {"shape": "In"}},
            },
            "S": {"type": "string", "enum": ["documentation"]},
            "Bad": {
                "type": "structure",
                "members": {},
                "exception": True,
                "error": {"code": "Worse", "httpStatusCode": 409},
            },
        },
    }


def test_the_newest_version_is_read_packed_or_not(tmp_path):
    assert load("tiny", folder=folder(tmp_path, ("2020-01-01", "2021-01-01"))).api_version == "2021-01-01"
    assert load("plain", folder=folder(tmp_path, service="plain", packed=False)).api_version == "2020-01-01"


def test_a_digest_is_kept_and_used_until_the_model_changes(tmp_path):
    data, cache = folder(tmp_path), tmp_path / "cache" / "models"
    load("tiny", folder=data, cache=cache)
    (kept,) = cache.iterdir()
    before = kept.stat().st_mtime_ns
    assert load("tiny", folder=data, cache=cache).operation_names == ("Go",)
    assert kept.stat().st_mtime_ns == before
    file = data / "tiny" / "2020-01-01" / "service-2.json.gz"
    file.write_bytes(gzip.compress(json.dumps(RAW | {"operations": {}}).encode()))
    assert load("tiny", folder=data, cache=cache).operation_names == ()
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"\x92\x00\x80", b"\x93\x01\x80\x80"])
def test_a_kept_digest_that_is_broken_or_of_another_version_is_made_anew(tmp_path, content):
    data, cache = folder(tmp_path), tmp_path / "cache"
    load("tiny", folder=data, cache=cache)
    (kept,) = cache.iterdir()
    good = kept.read_bytes()
    kept.write_bytes(content)
    assert load("tiny", folder=data, cache=cache).operation_names == ("Go",)
    assert kept.read_bytes() == good


def test_where_no_digest_can_be_kept_none_is(tmp_path):
    (tmp_path / "file").write_text("")
    assert load("tiny", folder=folder(tmp_path), cache=tmp_path / "file" / "cache").operation_names == ("Go",)


def test_what_cannot_be_read_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"no model of 'none'.*pip install --upgrade boto3"):
        load("none", folder=folder(tmp_path))
    for number, content in enumerate([b"{", b"[]", b"{}", gzip.compress(b"{}")[:-5], b'{"operations":{"A":1}}']):
        data = folder(tmp_path, content=content, service=f"broken{number}")
        with pytest.raises(UsageError, match=r"cannot be read .*--force-reinstall botocore"):
            load(f"broken{number}", folder=data)
    unreadable = tmp_path / "data" / "odd" / "2020-01-01" / "service-2.json.gz"
    unreadable.mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load("odd", folder=tmp_path / "data")
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install boto3"):
        load("kinesis")


def test_botocore_is_not_imported():
    code = "import sys, kflow.aws.models as m; m.load('kinesis'); sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PutRecord", "put_record"),
        ("ListTagsForResource", "list_tags_for_resource"),
        ("CreateDBInstance", "create_db_instance"),
        ("GetS3Object", "get_s3_object"),
    ],
)
def test_method_names_are_in_snake_case(name, expected):
    assert snake_case(name) == expected


def test_an_exception_knows_its_code_and_status():
    tiny = models.Model("tiny", digest(RAW))
    bad = tiny.error("Worse")
    assert (bad.name, bad.error_code, bad.http_status, bad.is_sender_fault) == ("Bad", "Worse", 409, True)
    assert tiny.error("Bad") is bad
    assert tiny.error("Other") is None
    assert not model().error("InternalFailureException").is_sender_fault


def test_shapes_are_linked_even_in_a_circle():
    shape = models.Model("tiny", digest(RAW)).structure("In")
    assert shape.members["Self"].shape is shape
    assert shape.members["documentation"].is_required
    with pytest.raises(KeyError):
        shape.model.shape("Lost")


def test_operations_of_kinesis_have_what_the_model_says():
    kinesis = model()
    assert (kinesis.protocol, kinesis.json_version, kinesis.target_prefix, kinesis.signing_name) == (
        "json",
        "1.1",
        "Kinesis_20131202",
        "kinesis",
    )
    assert len(kinesis.operation_names) >= 57
    subscribe = kinesis.operation("SubscribeToShard")
    assert subscribe.event_stream.name == "EventStream"
    assert subscribe.static_context == {"OperationType": "data"}
    assert kinesis.operation("PutRecord").event_stream is None
    assert kinesis.operation("DeleteStream").output is None
    assert kinesis.operation("DeleteStream").event_stream is None
    assert kinesis.operation("DescribeLimits").input is kinesis.operation("DescribeLimits").input
    assert kinesis.operation("Nothing") is None
    assert "ResourceNotFoundException" in subscribe.errors


@pytest.mark.parametrize("service", ["kinesis", "sqs", "s3", "lambda", "firehose", "dynamodb", "sts", "sns"])
def test_every_member_agrees_with_botocore(service):
    theirs = botocore.session.Session().get_service_model(service)
    ours = model(service)
    assert list(ours.operation_names) == theirs.operation_names
    seen = set()

    def compare(member, shape):
        if shape.name in seen or shape.name == "Expires":  # botocore makes a timestamp of it, by a handler of its own
            return
        assert member.kind == shape.type_name
        seen.add(shape.name)
        if isinstance(member, Structure):
            assert list(member.members) == list(shape.members)
            assert list(member.required) == shape.required_members
            for name, ours in member.members.items():
                their = shape.members[name]
                assert ours.location_name == their.serialization.get("name", "")
                assert ours.location == their.serialization.get("location", "")
                compare(ours.shape, their)
        elif isinstance(member, ListOf):
            compare(member.element.shape, shape.member)
        elif isinstance(member, MapOf):
            compare(member.key.shape, shape.key)
            compare(member.value.shape, shape.value)
        else:
            assert isinstance(member, Scalar)
            assert list(member.enum) == shape.metadata.get("enum", [])
            assert (member.minimum, member.maximum) == (shape.metadata.get("min"), shape.metadata.get("max"))

    for name in ours.operation_names:
        operation, their = ours.operation(name), theirs.operation_model(name)
        assert (operation.http_method, operation.request_uri) == (their.http["method"], their.http["requestUri"])
        assert (operation.input is None) == (their.input_shape is None)
        if operation.input is not None:
            compare(operation.input, their.input_shape)
        if operation.output is not None and their.output_shape is not None:
            compare(operation.output, their.output_shape)


def test_shapes_members_and_operations_say_what_they_are():
    put = model().operation("PutRecord")
    assert repr(put) == "<Operation kinesis.PutRecord>"
    assert repr(put.input.members["Data"]) == "<Member Data: <Scalar kinesis.Data>>"
    assert model("sts").operation("GetSessionToken").output_reference["resultWrapper"] == "GetSessionTokenResult"
    assert put.input_reference == {"shape": "PutRecordInput"}
    assert model("s3").structure("PutObjectRequest").members["Body"].trait("streaming") is True


def test_another_version_may_lie_beside_a_folder_without_a_model(tmp_path):
    data = folder(tmp_path)
    (data / "tiny" / "2099-01-01").mkdir()
    assert load("tiny", folder=data).api_version == "2020-01-01"
