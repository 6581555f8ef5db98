"""Operations on functions, in AWS's words, over a folder that is started again."""

from __future__ import annotations

import base64
import hashlib

import pytest

from kflow.aws.calls import Place
from kflow.broker.checked import seal, unseal
from kflow.broker.files import Files
from kflow.broker.objects import Objects
from kflow.errors import AwsError, StorageFull, ValidationFailed
from kflow.lambda_.errors import (
    InvalidParameterValue,
    PreconditionFailed,
    RequestTooLarge,
    ResourceConflict,
    ResourceNotFound,
)
from tests.lambdaing import APP, ARN, ROLE, World, declared, zipped

OTHER = Place("111122223333", "eu-west-1")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "data")


def refused(world, kind, operation, /, **parameters):
    with pytest.raises(kind) as caught:
        world.call(operation, **parameters)
    return str(caught.value)


# ---------------------------------------------------------------------- create


def test_a_function_is_answered_as_aws_does_and_is_pending_first(tmp_path):
    world = World(tmp_path / "data", transition_s=0.5)
    code = zipped()
    made = world.create(Environment={"Variables": {"KEY": "x"}}, Tags={"team": "a"})
    assert made == {
        "FunctionName": "f",
        "FunctionArn": f"{ARN}:f",
        "Runtime": "python3.12",
        "Role": ROLE,
        "Handler": "app.handler",
        "CodeSize": len(code),
        "Description": "",
        "Timeout": 3,
        "MemorySize": 128,
        "LastModified": "2023-11-14T22:13:20.000+0000",
        "CodeSha256": base64.b64encode(hashlib.sha256(code).digest()).decode(),
        "Version": "$LATEST",
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": made["RevisionId"],
        "State": "Pending",
        "StateReason": "The function is being created.",
        "StateReasonCode": "Creating",
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/f"},
        "Environment": {"Variables": {"KEY": "x"}},
        "RuntimeVersionConfig": made["RuntimeVersionConfig"],
    }
    assert world.call("GetFunctionConfiguration", FunctionName="f")["State"] == "Pending"
    world.host.advance(500)
    found = world.call("GetFunction", FunctionName="f")
    assert found["Configuration"]["State"] == "Active"
    assert found["Configuration"]["LastUpdateStatus"] == "Successful"
    assert found["Tags"] == {"team": "a"}
    digest = hashlib.sha256(code).hexdigest()
    assert found["Code"] == {
        "RepositoryType": "S3",
        "Location": f"http://localhost:4566/_kflow/lambda/code/{digest}.zip",
    }
    assert "Concurrency" not in found


def test_what_runs_it_is_told_with_its_code_when_it_is_kept(world):
    results = world.begin(
        "CreateFunction",
        FunctionName="f",
        Runtime="python3.12",
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": zipped()},
        Timeout=30,
        MemorySize=512,
        Environment={"Variables": {"KEY": "x"}},
    )
    world.host.step()
    assert world.fleet.published == {}, "it is unpacked, and not kept yet"
    world.host.run()
    assert len(results) == 1
    published = world.fleet.published["f"]
    package = published.handler.package
    assert (published.timeout_s, published.memory_mb, published.environment) == (30, 512, {"KEY": "x"})
    assert (package.function, package.version, package.runtime, package.entry) == (
        "f",
        "$LATEST",
        "python3.12",
        "app.handler",
    )
    assert (package.account, package.region) == ("123456789012", "us-east-1")
    with open(f"{package.code}/app.py") as file:
        assert file.read() == APP


def test_a_function_is_there_again_after_a_restart(world):
    before = world.create()
    world.create("Cased", OTHER)
    world.create("cased", OTHER)
    world.start()
    assert sorted(world.fleet.published) == ["Cased@111122223333.eu-west-1", "cased@111122223333.eu-west-1", "f"]
    after = world.call("GetFunction", FunctionName="f")["Configuration"]
    assert after["RevisionId"] == before["RevisionId"]
    assert [each["FunctionName"] for each in world.call("ListFunctions", OTHER)["Functions"]] == ["Cased", "cased"]


def test_a_second_function_of_the_name_is_refused_also_while_the_first_is_being_made(world):
    parameters = {
        "FunctionName": "f",
        "Runtime": "python3.12",
        "Role": ROLE,
        "Handler": "a.b",
        "Code": {"ZipFile": zipped()},
    }
    first, second = world.begin("CreateFunction", **parameters), world.begin("CreateFunction", **parameters)
    world.host.run()
    assert isinstance(first[0], dict)
    assert isinstance(second[0], ResourceConflict)
    assert str(second[0]) == "Function already exist: f"


def test_a_name_is_free_again_after_its_zip_was_refused(world):
    text = "Could not unzip uploaded file. Please check your file, then try to upload again."
    with pytest.raises(InvalidParameterValue) as caught:
        world.create(Code={"ZipFile": b"no zip"})
    assert str(caught.value) == text
    assert world.create()["FunctionName"] == "f"


def test_a_full_disk_refuses_a_function_and_keeps_nothing_of_it(tmp_path):
    class Full(Files):
        def write_new(self, path, content, *, sync):
            if "lambda/functions" in str(path):
                raise OSError(28, "No space left on device")
            super().write_new(path, content, sync=sync)

    world = World(tmp_path / "data", files=Full())
    with pytest.raises(StorageFull):
        world.create()
    assert world.call("ListFunctions")["Functions"] == []
    assert world.fleet.published == {}
    world.host.advance(10**6)
    assert world.unpacked == []


def test_published_at_once_it_is_answered_as_version_1(world):
    made = world.create(Publish=True)
    assert (made["Version"], made["FunctionArn"], made["State"]) == ("1", f"{ARN}:f:1", "Pending")
    assert sorted(world.fleet.published) == ["f", "f:1"]


def test_code_may_come_from_a_bucket(world):
    objects = Objects.of(world.host.folder)
    objects.create_bucket("code")
    objects.put("code", "app.zip", zipped())
    assert world.create(Code={"S3Bucket": "code", "S3Key": "app.zip"})["CodeSize"] == len(zipped())
    for bucket, key, text in (
        ("code", "nope", "S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."),
        ("none", "nope", "S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist"),
    ):
        with pytest.raises(InvalidParameterValue) as caught:
            world.create("g", Code={"S3Bucket": bucket, "S3Key": key})
        assert str(caught.value) == f"Error occurred while GetObject. {text}"
    with pytest.raises(InvalidParameterValue, match="NoSuchVersion"):
        world.create("g", Code={"S3Bucket": "code", "S3Key": "app.zip", "S3ObjectVersion": "7"})


def test_code_must_come_from_somewhere_and_from_one_place(world):
    for code, text in (
        ({}, "Please provide a source for function code."),
        ({"S3Bucket": "code"}, "Please provide a source for function code."),
        (
            {"ZipFile": zipped(), "S3Bucket": "code", "S3Key": "k"},
            "Please do not provide other FunctionCode parameters when providing a ZipFile.",
        ),
        ({"ZipFile": b""}, "Uploaded file must be a non-empty zip"),
    ):
        with pytest.raises(InvalidParameterValue) as caught:
            world.create(Code=code)
        assert str(caught.value) == text


def test_a_zip_of_more_than_50_mb_is_too_large_for_a_request(world):
    with pytest.raises(RequestTooLarge) as caught:
        world.create(Code={"ZipFile": bytes(52_428_803)})
    assert str(caught.value) == "Request must be smaller than 70167211 bytes for the CreateFunction operation"
    assert (caught.value.code, caught.value.http_status) == ("RequestEntityTooLargeException", 413)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"PackageType": "Image", "Code": {"ImageUri": "x"}}, "PackageType Image is not supported here"),
        ({"Code": {"ImageUri": "x"}}, "kflow runs zip packages only"),
        (
            {
                "FileSystemConfigs": [
                    {
                        "Arn": "arn:aws:elasticfilesystem:us-east-1:123456789012:access-point/fsap-00000000000000000",
                        "LocalMountPath": "/mnt/a",
                    }
                ]
            },
            "kflow mounts no file systems",
        ),
        ({"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}}, "kflow keeps no tenants apart"),
        ({"DurableConfig": {"ExecutionTimeout": 60}}, "kflow runs no durable executions"),
    ],
)
def test_what_kflow_has_none_of_is_refused_with_what_it_has(world, given, text):
    with pytest.raises(InvalidParameterValue, match=text):
        world.create(**given)


@pytest.mark.parametrize(
    ("given", "value", "name", "rule"),
    [
        ({"Timeout": 901}, 901, "timeout", "less than or equal to 900"),
        ({"Timeout": 0}, 0, "timeout", "greater than or equal to 1"),
        ({"MemorySize": 10_241}, 10_241, "memorySize", "less than or equal to 10240"),
        ({"MemorySize": 127}, 127, "memorySize", "greater than or equal to 128"),
        ({"EphemeralStorage": {"Size": 10_241}}, 10_241, "ephemeralStorage.size", "less than or equal to 10240"),
    ],
)
def test_values_out_of_range_are_refused_in_the_models_words(world, given, value, name, rule):
    with pytest.raises(ValidationFailed) as caught:
        world.create(**given)
    assert str(caught.value) == (
        f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: "
        f"Member must have value {rule}"
    )


def test_a_zip_needs_a_runtime_and_a_handler(world):
    with pytest.raises(InvalidParameterValue) as caught:
        world.call("CreateFunction", FunctionName="f", Role=ROLE, Code={"ZipFile": zipped()})
    assert str(caught.value) == (
        "Runtime and Handler are mandatory parameters for functions created with deployment packages."
    )


# ---------------------------------------------------------------------- environment


def test_reserved_variables_are_refused(world):
    with pytest.raises(InvalidParameterValue) as caught:
        world.create(Environment={"Variables": {"AWS_REGION": "x", "FINE": "y"}})
    assert str(caught.value) == (
        "Lambda was unable to configure your environment variables because the environment variables you have provided "
        "contains reserved keys that are currently not supported for modification. "
        "Reserved keys used in this request: AWS_REGION"
    )


def test_variables_of_4_kb_are_taken_and_one_byte_more_is_not(world):
    fits = "x" * (4096 - len('{"K1":""}'))
    world.create(Environment={"Variables": {"K1": fits}})
    with pytest.raises(InvalidParameterValue) as caught:
        world.create("g", Environment={"Variables": {"K1": f"{fits}x"}})
    assert "exceeded the 4KB limit. String measured: {" in str(caught.value)


def test_names_of_variables_must_suit_the_models_pattern(world):
    for name in ("1A", "A", "A-B", "_A"):
        with pytest.raises(ValidationFailed, match="Map keys must satisfy constraint"):
            world.create(Environment={"Variables": {name: "x"}})


# ---------------------------------------------------------------------- find and list


def test_what_is_not_there_is_not_found_with_its_arn(world):
    world.create()
    assert refused(world, ResourceNotFound, "GetFunction", FunctionName="g") == f"Function not found: {ARN}:g"
    assert (
        refused(world, ResourceNotFound, "GetFunction", FunctionName="f", Qualifier="7")
        == f"Function not found: {ARN}:f:7"
    )
    assert (
        refused(world, ResourceNotFound, "UpdateFunctionConfiguration", FunctionName="g")
        == f"Function not found: {ARN}:g"
    )
    assert refused(world, ResourceNotFound, "DeleteFunction", FunctionName="g") == f"Function not found: {ARN}:g"


def test_functions_are_listed_in_pages_without_states(world):
    for name in ("a", "a-b", "a_b", "b"):
        world.create(name)
    first = world.call("ListFunctions", MaxItems=3)
    assert [each["FunctionName"] for each in first["Functions"]] == ["a", "a-b", "a_b"]
    assert "State" not in first["Functions"][0]
    second = world.call("ListFunctions", MaxItems=3, Marker=first["NextMarker"])
    assert [each["FunctionName"] for each in second["Functions"]] == ["b"]
    assert "NextMarker" not in second
    with pytest.raises(InvalidParameterValue, match="Marker"):
        world.call("ListFunctions", Marker="?")


def test_all_versions_can_be_listed_too(world):
    for name in ("a", "a-b"):
        world.create(name, Publish=True)
    found = world.call("ListFunctions", FunctionVersion="ALL")["Functions"]
    assert [each["FunctionArn"].removeprefix(f"{ARN}:") for each in found] == [
        "a:$LATEST",
        "a:1",
        "a-b:$LATEST",
        "a-b:1",
    ]


def test_fifty_functions_are_a_page(world):
    for number in range(51):
        world.create(f"f{number:02}")
    assert len(world.call("ListFunctions")["Functions"]) == 50
    assert len(world.call("ListFunctions", MaxItems=10_000)["Functions"]) == 50


# ---------------------------------------------------------------------- update


def test_new_code_runs_from_then_on_and_the_old_one_goes_when_nothing_can_run_it_any_more(world):
    before = world.create()
    new = zipped({"app.py": "new"})
    updated = world.call("UpdateFunctionCode", FunctionName="f", ZipFile=new)
    assert updated["LastUpdateStatus"] == "InProgress"
    assert updated["State"] == "Active"
    assert updated["CodeSize"] == len(new)
    assert updated["RevisionId"] != before["RevisionId"]
    digest = hashlib.sha256(new).hexdigest()
    assert world.fleet.published["f"].handler.package.code.endswith(digest)
    assert len(world.unpacked) == 4
    world.host.advance(60_000)
    assert world.unpacked == [digest, f"{digest}.zip"]


def test_configuration_is_changed_where_something_is_given(world):
    world.create(Description="old", Environment={"Variables": {"K1": "1"}})
    updated = world.call(
        "UpdateFunctionConfiguration",
        FunctionName="f",
        Timeout=60,
        Handler="other.handler",
        DeadLetterConfig={"TargetArn": "arn:aws:sqs:us-east-1:123456789012:dead"},
        LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"},
    )
    assert (updated["Timeout"], updated["Handler"], updated["Description"]) == (60, "other.handler", "old")
    assert updated["Environment"] == {"Variables": {"K1": "1"}}
    assert updated["DeadLetterConfig"] == {"TargetArn": "arn:aws:sqs:us-east-1:123456789012:dead"}
    assert updated["LoggingConfig"] == {
        "LogFormat": "JSON",
        "ApplicationLogLevel": "DEBUG",
        "SystemLogLevel": "INFO",
        "LogGroup": "/aws/lambda/f",
    }
    published = world.fleet.published["f"]
    assert (published.timeout_s, published.handler.package.entry) == (60, "other.handler")
    assert (published.handler.package.log_format, published.handler.package.log_level) == ("JSON", "DEBUG")
    assert (
        world.call("UpdateFunctionConfiguration", FunctionName="f", DeadLetterConfig={}).get("DeadLetterConfig") is None
    )


def test_levels_of_logs_need_json(world):
    with pytest.raises(InvalidParameterValue) as caught:
        world.create(LoggingConfig={"ApplicationLogLevel": "DEBUG"})
    assert str(caught.value) == (
        "Log level is not supported when LogFormat is set to Text. Remove log level from your request or change the "
        "LogFormat to JSON and try again."
    )


def test_what_is_being_updated_cannot_be_updated(tmp_path):
    world = World(tmp_path / "data", transition_s=1)
    world.create()
    assert refused(world, ResourceConflict, "UpdateFunctionConfiguration", FunctionName="f") == (
        "The operation cannot be performed at this time. The function is currently in the following state: Pending"
    )
    world.host.advance(1000)
    world.call("UpdateFunctionCode", FunctionName="f", ZipFile=zipped({"a": "b"}))
    text = f"The operation cannot be performed at this time. An update is in progress for resource: {ARN}:f"
    assert refused(world, ResourceConflict, "UpdateFunctionConfiguration", FunctionName="f") == text
    world.host.advance(1000)
    code = world.begin("UpdateFunctionCode", FunctionName="f", ZipFile=zipped({"c": "d"}))
    conflict = world.begin("UpdateFunctionCode", FunctionName="f", ZipFile=zipped({"c": "d"}))
    world.host.run()
    assert isinstance(code[0], dict)
    assert str(conflict[0]) == text


def test_a_function_that_is_deleted_while_its_code_is_taken_in_stays_deleted(world):
    world.create()
    code = world.begin("UpdateFunctionCode", FunctionName="f", ZipFile=zipped({"c": "d"}))
    gone = world.begin("DeleteFunction", FunctionName="f")
    world.host.run()
    assert gone == [{"StatusCode": 204}]
    assert isinstance(code[0], ResourceNotFound)
    assert world.fleet.published == {}
    world.host.advance(10**6)
    assert world.unpacked == []


def test_a_dry_run_changes_nothing(world):
    before = world.create()
    new = zipped({"app.py": "new"})
    answer = world.call("UpdateFunctionCode", FunctionName="f", ZipFile=new, DryRun=True)
    assert answer["CodeSize"] == len(new)
    after = world.call("GetFunctionConfiguration", FunctionName="f")
    assert (after["CodeSize"], after["RevisionId"]) == (before["CodeSize"], before["RevisionId"])
    with pytest.raises(InvalidParameterValue):
        world.call("UpdateFunctionCode", FunctionName="f", ZipFile=b"no zip", DryRun=True)


def test_who_goes_by_an_older_revision_is_refused(world):
    revision = world.create()["RevisionId"]
    world.call("UpdateFunctionConfiguration", FunctionName="f", Timeout=4, RevisionId=revision)
    for operation, given in (("UpdateFunctionConfiguration", {}), ("UpdateFunctionCode", {"ZipFile": zipped()})):
        assert refused(world, PreconditionFailed, operation, FunctionName="f", RevisionId=revision, **given) == (
            "The RevisionId provided does not match the latest RevisionId. "
            "Call the GetFunction/GetAlias API to retrieve the latest RevisionId"
        )


def test_an_update_cannot_be_of_a_version(world):
    world.create(Publish=True)
    assert refused(world, InvalidParameterValue, "UpdateFunctionConfiguration", FunctionName="f:1").startswith(
        "This operation is permitted on Lambda functions only."
    )


# ---------------------------------------------------------------------- delete


def test_a_function_is_deleted_with_its_versions_and_aliases(world):
    world.create(Publish=True)
    world.call("CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    assert sorted(world.fleet.published) == ["f", "f:1", "f:live"]
    assert world.call("DeleteFunction", FunctionName="f") == {"StatusCode": 204}
    assert world.fleet.published == {}
    world.start()
    assert world.call("ListFunctions")["Functions"] == []


def test_a_function_of_the_same_name_is_another_one(world):
    world.create(Publish=True, Tags={"a": "b"})
    gone = world.begin("DeleteFunction", FunctionName="f")
    made = world.create(Code={"ZipFile": zipped({"new.py": ""})})
    assert gone == [{"StatusCode": 204}]
    assert list(world.fleet.published) == ["f"]
    assert world.call("ListTags", Resource=f"{ARN}:f") == {"Tags": {}}
    world.start()
    assert world.call("GetFunction", FunctionName="f")["Configuration"]["CodeSha256"] == made["CodeSha256"]


def test_a_version_is_deleted_alone_and_not_while_an_alias_points_to_it(world):
    world.create(Publish=True)
    world.call("CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    for qualifier, kind, text in (
        ("$LATEST", InvalidParameterValue, "$LATEST version cannot be deleted without deleting the function."),
        ("live", InvalidParameterValue, "Deletion of aliases is not currently supported."),
        ("1", ResourceConflict, "Unable to delete version because the following aliases reference it: [live]"),
        ("2", ResourceNotFound, f"Function not found: {ARN}:f:2"),
    ):
        assert refused(world, kind, "DeleteFunction", FunctionName="f", Qualifier=qualifier) == text
    world.call("DeleteAlias", FunctionName="f", Name="live")
    world.call("DeleteFunction", FunctionName="f:1")
    assert list(world.fleet.published) == ["f"]


def test_a_function_that_cannot_be_removed_stays(tmp_path):
    class Stuck(Files):
        stuck = False

        def unlink(self, path):
            if self.stuck and "lambda/functions" in str(path):
                raise OSError(30, "Read-only file system")
            super().unlink(path)

    files = Stuck()
    world = World(tmp_path / "data", files=files)
    world.create()
    Stuck.stuck = True
    with pytest.raises(Exception, match="read-only"):
        world.call("DeleteFunction", FunctionName="f")
    assert world.call("GetFunction", FunctionName="f")["Configuration"]["State"] == "Active"
    assert list(world.fleet.published) == ["f"]


# ---------------------------------------------------------------------- decorated handlers


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "app.py"
    file.write_text(APP)
    return file


def test_a_decorated_handler_is_a_function_of_its_source(tmp_path, source):
    world = World(tmp_path / "data", declared={"bill": declared("bill", source, line=3, KEY="x")})
    found = world.call("GetFunction", FunctionName="bill")
    shown = found["Configuration"]
    assert found["Code"] == {"RepositoryType": "local"}
    assert shown["Handler"] == "app.bill"
    assert shown["Runtime"].startswith("python3.")
    assert (shown["Timeout"], shown["MemorySize"]) == (7, 256)
    assert shown["Environment"] == {"Variables": {"KEY": "x"}}
    assert shown["CodeSize"] == len(APP)
    assert shown["CodeSha256"] == base64.b64encode(hashlib.sha256(APP.encode()).digest()).decode()
    assert shown["State"] == "Active"
    assert [each["FunctionName"] for each in world.call("ListFunctions")["Functions"]] == ["bill"]
    assert world.fleet.told == [], "it runs already"


def test_what_its_source_says_is_changed_there_and_the_rest_is_kept(tmp_path, source):
    given = {"bill": declared("bill", source, line=3)}
    world = World(tmp_path / "data", declared=given)
    for operation, parameters in (
        ("UpdateFunctionCode", {"ZipFile": zipped()}),
        ("UpdateFunctionConfiguration", {"Timeout": 9}),
        ("PublishVersion", {}),
        ("CreateAlias", {"Name": "live", "FunctionVersion": "$LATEST"}),
        ("DeleteFunction", {}),
    ):
        text = refused(world, InvalidParameterValue, operation, FunctionName="bill", **parameters)
        assert f"the handler at {source}:3" in text
    assert refused(
        world,
        ResourceConflict,
        "CreateFunction",
        FunctionName="bill",
        Runtime="python3.12",
        Role=ROLE,
        Handler="a.b",
        Code={"ZipFile": zipped()},
    ) == "Function already exist: bill"  # fmt: skip
    world.call("PutFunctionConcurrency", FunctionName="bill", ReservedConcurrentExecutions=2)
    world.call("TagResource", Resource=f"{ARN}:bill", Tags={"team": "a"})
    world.start(given)
    assert world.fleet.limits == {"bill": 2}
    assert world.call("GetFunction", FunctionName="bill")["Tags"] == {"team": "a"}
    world.start()
    assert refused(world, ResourceNotFound, "GetFunction", FunctionName="bill") == f"Function not found: {ARN}:bill"


def test_a_function_that_was_created_waits_while_a_handler_has_its_name(tmp_path, source):
    world = World(tmp_path / "data")
    world.create("bill")
    world.start({"bill": declared("bill", source, line=3)})
    assert world.fleet.published == {}
    ((level, text),) = world.host.notices
    assert level == "warning"
    assert f"the handler at {source}:3" in text
    assert world.call("GetFunction", FunctionName="bill")["Configuration"]["Handler"] == "app.bill"
    world.start()
    assert world.call("GetFunction", FunctionName="bill")["Configuration"]["Handler"] == "app.handler"
    assert list(world.fleet.published) == ["bill"]


def test_all_is_emptied_but_the_handlers(tmp_path, source):
    given = {"bill": declared("bill", source)}
    world = World(tmp_path / "data")
    world.create("bill")
    world.create("f")
    world.start(given)
    world.call("PutFunctionConcurrency", FunctionName="bill", ReservedConcurrentExecutions=2)
    done = []
    world.functions.clear(lambda: done.append(True))
    world.host.run()
    assert done == [True]
    assert world.fleet.limits == {}
    world.host.advance(10**6)
    assert world.unpacked == []
    world.start()
    assert world.call("ListFunctions")["Functions"] == []


# ---------------------------------------------------------------------- damage


def test_a_damaged_document_is_read_from_its_twin_and_one_without_harms_no_other(world):
    world.create("f")
    world.create("g")
    folder = world.path / "lambda/functions"
    (folder / "f.json").write_bytes(b"damaged")
    world.start()
    assert [each["FunctionName"] for each in world.call("ListFunctions")["Functions"]] == ["f", "g"]
    (folder / "f.json.twin").write_bytes(b"damaged")
    world.start()
    assert [each["FunctionName"] for each in world.call("ListFunctions")["Functions"]] == ["g"]
    assert "damaged" in world.host.notices[-1][1]


def test_a_function_whose_code_is_lost_is_told_of(world):
    world.create("f")
    for path in (world.path / "lambda/code").iterdir():
        if path.suffix == ".zip":
            path.unlink()
        else:
            (path / "app.py").unlink()
            path.rmdir()
    world.start()
    assert "cannot run, its code is lost" in world.host.notices[-1][1]
    world.call("UpdateFunctionCode", FunctionName="f", ZipFile=zipped())
    assert len(world.unpacked) == 2


def test_errors_have_lambdas_codes():
    assert (ResourceNotFound("x").code, ResourceNotFound("x").http_status) == ("ResourceNotFoundException", 404)
    assert (ResourceConflict("x").code, ResourceConflict("x").http_status) == ("ResourceConflictException", 409)
    assert (PreconditionFailed().code, PreconditionFailed().http_status) == ("PreconditionFailedException", 412)
    assert issubclass(InvalidParameterValue, AwsError)


def test_functions_of_home_are_of_home_under_any_name(world):
    world.create("f")
    world.create("g", OTHER)
    document = world.path / "lambda/functions/f.json"
    elsewhere = world.path / "lambda/functions/eu-west-1.111122223333/g.json"
    for path, name in ((document, "f"), (elsewhere, "g")):
        path.with_name(f"{path.name}.twin").unlink()
        text = unseal(path.read_bytes().rstrip(b"\n"))
        path.write_bytes(seal(text.replace(b'"123456789012"', b'"999999999999"')) + b"\n")
        assert name.encode() in text
    world.start()
    assert list(world.fleet.published) == ["f", "g@111122223333.eu-west-1"]
    world.call("DeleteFunction", FunctionName="f")
    assert not document.exists()


def test_a_function_whose_deletion_the_disk_refuses_is_back_and_no_other_takes_its_name(tmp_path):
    class Full(Files):
        is_full = False

        def write_new(self, path, content, *, sync):
            if self.is_full and "lambda/functions" in str(path):
                raise OSError(28, "No space left on device")
            super().write_new(path, content, sync=sync)

        def unlink(self, path):
            if self.is_full and "lambda/functions" in str(path):
                raise OSError(28, "No space left on device")
            super().unlink(path)

    world = World(tmp_path / "data", files=Full())
    before = world.create("f", Publish=True)
    Full.is_full = True
    gone = world.begin("DeleteFunction", FunctionName="f")
    with pytest.raises(ResourceConflict):
        world.create("f", Code={"ZipFile": zipped({"new.py": ""})})
    assert isinstance(gone[0], StorageFull)
    assert world.call("GetFunction", FunctionName="f")["Configuration"]["CodeSha256"] == before["CodeSha256"]
    assert sorted(world.fleet.published) == ["f", "f:1"]
    Full.is_full = False
    world.call("DeleteFunction", FunctionName="f")
    assert world.fleet.published == {}
    world.host.advance(10**6)
    assert world.unpacked == []
