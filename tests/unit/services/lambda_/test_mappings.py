"""Event source mappings by the API: documents, states, texts, and what outlives a restart."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kflow.broker.files import Files
from kflow.declarations import HandlerForm
from kflow.errors import AwsError
from tests.lambdaing import ARN, HOME, World, declared
from tests.mappingworld import QUEUE, STREAM, MappingWorld, trigger

UUID = "8b8a5b9a-0000-4000-8000-000000000000"


@pytest.fixture
def world(tmp_path: Path) -> MappingWorld:
    made = MappingWorld(tmp_path)
    made.create("f")
    return made


def refused(world: World, operation: str, **parameters: Any) -> AwsError:
    with pytest.raises(AwsError) as caught:
        world.call(operation, **parameters)
    return caught.value


def refused_create(world: MappingWorld, **parameters: Any) -> tuple[str, int, str]:
    with pytest.raises(AwsError) as caught:
        world.map(**parameters)
    return caught.value.code, caught.value.http_status, str(caught.value)


# ---------------------------------------------------------------- documents


def test_a_mapping_of_a_stream_is_answered_as_recorded(world: MappingWorld) -> None:
    made = world.map()

    uuid = made["UUID"]
    assert made == {
        "UUID": uuid,
        "StartingPosition": "LATEST",
        "BatchSize": 100,
        "MaximumBatchingWindowInSeconds": 0,
        "ParallelizationFactor": 1,
        "EventSourceArn": STREAM,
        "FunctionArn": f"{ARN}:f",
        "EventSourceMappingArn": f"arn:aws:lambda:us-east-1:123456789012:event-source-mapping:{uuid}",
        "LastModified": dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC),
        "LastProcessingResult": "No records processed",
        "State": "Creating",
        "StateTransitionReason": "User action",
        "DestinationConfig": {"OnFailure": {}},
        "MaximumRecordAgeInSeconds": -1,
        "BisectBatchOnFunctionError": False,
        "MaximumRetryAttempts": -1,
        "TumblingWindowInSeconds": 0,
        "FunctionResponseTypes": [],
    }
    assert world.runner.told == [f"create f {STREAM} True"]


def test_a_mapping_of_a_queue_has_no_member_that_only_streams_have(world: MappingWorld) -> None:
    made = world.map(EventSourceArn=QUEUE, StartingPosition="")

    uuid = made["UUID"]
    assert made == {
        "UUID": uuid,
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "EventSourceArn": QUEUE,
        "FunctionArn": f"{ARN}:f",
        "EventSourceMappingArn": f"arn:aws:lambda:us-east-1:123456789012:event-source-mapping:{uuid}",
        "LastModified": dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC),
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
        "FunctionResponseTypes": [],
    }


def test_all_options_come_back_as_they_were_given(world: MappingWorld) -> None:
    given = {
        "BatchSize": 5,
        "MaximumBatchingWindowInSeconds": 3,
        "ParallelizationFactor": 4,
        "MaximumRecordAgeInSeconds": 60,
        "BisectBatchOnFunctionError": True,
        "MaximumRetryAttempts": 2,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "FilterCriteria": {"Filters": [{"Pattern": '{"data": {"a": [1]}}'}]},
        "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:123456789012:dead"}},
        "KMSKeyArn": "arn:aws:kms:us-east-1:123456789012:key/k",
        "MetricsConfig": {"Metrics": ["EventCount"]},
        "StartingPosition": "AT_TIMESTAMP",
        "StartingPositionTimestamp": dt.datetime(2023, 11, 14, tzinfo=dt.UTC),
    }

    made = world.map(**given)

    assert {name: made[name] for name in given} == given
    assert world.call("GetEventSourceMapping", UUID=made["UUID"]) == {**made, "State": "Creating"}


def test_an_empty_list_of_filters_is_accepted_and_not_shown(world: MappingWorld) -> None:
    assert "FilterCriteria" not in world.map(FilterCriteria={"Filters": []})


def test_a_queue_has_a_scaling_config_and_filters_on_text(world: MappingWorld) -> None:
    made = world.map(
        EventSourceArn=QUEUE,
        StartingPosition="",
        ScalingConfig={"MaximumConcurrency": 5},
        FilterCriteria={"Filters": [{"Pattern": '{"body": ["urgent"]}'}]},
    )
    assert made["ScalingConfig"] == {"MaximumConcurrency": 5}
    assert made["FilterCriteria"] == {"Filters": [{"Pattern": '{"body": ["urgent"]}'}]}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("f", f"{ARN}:f"),
        (f"{ARN}:f", f"{ARN}:f"),
        ("123456789012:function:f", f"{ARN}:f"),
        (f"{ARN}:f:$LATEST", f"{ARN}:f:$LATEST"),
        ("f:$LATEST", f"{ARN}:f:$LATEST"),
    ],
)
def test_the_function_keeps_the_qualifier_that_the_caller_gave(world: MappingWorld, name: str, shown: str) -> None:
    assert world.map(name)["FunctionArn"] == shown


def test_what_became_of_the_last_batch_is_said(world: MappingWorld) -> None:
    uuid = world.map()["UUID"]
    shown = []
    for last in ("", "ok", "failed"):
        world.runner.last[uuid] = last
        shown.append(world.call("GetEventSourceMapping", UUID=uuid)["LastProcessingResult"])
    assert shown == ["No records processed", "OK", "PROBLEM: Function call failed"]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"EventSourceArn": STREAM + "2"}, f"Stream not found: {STREAM}2"),
        (
            {"StartingPosition": ""},
            (
                "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
                "Member must not be null."
            ),
        ),
        ({"EventSourceArn": ""}, "Unrecognized event source."),
        ({"EventSourceArn": "arn:aws:s3:::bucket"}, "Unrecognized event source."),
        ({"FunctionName": "g"}, "Function does not exist"),
        ({"FunctionName": "f:7"}, "Function does not exist"),
        (
            {"DestinationConfig": {"OnSuccess": {"Destination": "arn:aws:sqs:us-east-1:123456789012:q"}}},
            "Unsupported DestinationConfig parameter for given event source mapping type.",
        ),
        *[
            ({"FilterCriteria": {"Filters": [{"Pattern": pattern}]}}, "Invalid filter pattern definition.")
            for pattern in ("null", '"text"', '{"data": {"a": "b"}}', '{"data": {"a": []}}', "{", '{"data": ["x"]}')
        ],
        (
            {"EventSourceArn": QUEUE, "StartingPosition": "", "BatchSize": 11},
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ),
        (
            {"EventSourceArn": "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2024-01-01T00:00:00.000"},
            "Event sources of dynamodb are not supported here: kflow reads Kinesis streams and SQS queues.",
        ),
        (
            {"ScalingConfig": {"MaximumConcurrency": 2}},
            "Unsupported ScalingConfig parameter for given event source mapping type.",
        ),
        (
            {"EventSourceArn": QUEUE},
            "Unsupported StartingPosition parameter for given event source mapping type.",
        ),
        (
            {"EventSourceArn": QUEUE, "StartingPosition": "", "TumblingWindowInSeconds": 5},
            "Unsupported TumblingWindowInSeconds parameter for given event source mapping type.",
        ),
        (
            {"MaximumRecordAgeInSeconds": 59},
            "Maximum record age in seconds must be -1, or between 60 and 604800 (inclusive).",
        ),
        (
            {"StartingPosition": "AT_TIMESTAMP"},
            "StartingPositionTimestamp is required when StartingPosition is AT_TIMESTAMP.",
        ),
        (
            {"StartingPositionTimestamp": 1_600_000_000},
            "StartingPositionTimestamp is valid only when StartingPosition is AT_TIMESTAMP.",
        ),
        (
            {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1_800_000_000},
            "StartingPositionTimestamp must not be in the future.",
        ),
        (
            {"TumblingWindowInSeconds": 5, "ParallelizationFactor": 2},
            "A tumbling window needs a parallelization factor of 1: its state is kept per shard.",
        ),
        (
            {"FilterCriteria": {"Filters": [{"Pattern": '{"data": {"a": [1]}}'}] * 6}},
            "Maximum number of filters is 5, and 6 were given.",
        ),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:123456789012:q.fifo"}}},
            (
                "The destination is not valid: arn:aws:sqs:us-east-1:123456789012:q.fifo: a FIFO queue cannot be the "
                "destination of a stream's mapping: name a standard queue"
            ),
        ),
        (
            {"EventSourceArn": f"{QUEUE}.fifo", "StartingPosition": "", "MaximumBatchingWindowInSeconds": 1},
            "Batching window is not supported for FIFO queues",
        ),
        (
            {"EventSourceArn": f"{QUEUE}.fifo", "StartingPosition": "", "BatchSize": 11},
            "Maximum batch size of a FIFO queue is 10, not 11.",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(world: MappingWorld, given: dict[str, Any], message: str) -> None:
    with pytest.raises(AwsError) as caught:
        world.map(
            given.get("FunctionName", "f"), **{name: each for name, each in given.items() if name != "FunctionName"}
        )
    error = caught.value
    assert (error.code, error.http_status, str(error)) == ("InvalidParameterValueException", 400, message)
    assert world.call("ListEventSourceMappings")["EventSourceMappings"] == []
    assert list((world.path / "lambda").glob("mappings/*")) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"BatchSize": 0},
            (
                "1 validation error detected: Value '0' at 'batchSize' failed to satisfy constraint: Member must have "
                "value greater than or equal to 1"
            ),
        ),
        (
            {"ParallelizationFactor": 11},
            (
                "1 validation error detected: Value '11' at 'parallelizationFactor' failed to satisfy constraint: "
                "Member must have value less than or equal to 10"
            ),
        ),
        (
            {"StartingPosition": "invalid"},
            (
                "1 validation error detected: Value 'invalid' at 'startingPosition' failed to satisfy constraint: "
                "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
            ),
        ),
    ],
)
def test_what_breaks_the_model_is_refused_before(world: MappingWorld, given: dict[str, Any], message: str) -> None:
    assert refused_create(world, **given) == ("ValidationException", 400, message)


@pytest.mark.parametrize(
    ("option", "least", "most"),
    [
        ("BatchSize", 1, 10_000),
        ("MaximumBatchingWindowInSeconds", 0, 300),
        ("ParallelizationFactor", 1, 10),
        ("MaximumRetryAttempts", -1, 10_000),
        ("MaximumRecordAgeInSeconds", -1, 604_800),
        ("TumblingWindowInSeconds", 0, 900),
    ],
)
def test_the_ends_of_a_range_are_taken_and_what_lies_beyond_is_refused(
    world: MappingWorld, option: str, least: int, most: int
) -> None:
    name = option[0].lower() + option[1:]
    for value, rule in ((least - 1, f"greater than or equal to {least}"), (most + 1, f"less than or equal to {most}")):
        assert refused_create(world, **{option: value}) == (
            "ValidationException",
            400,
            (
                f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: Member must "
                f"have value {rule}"
            ),
        )
    for value in (least, most):
        made = world.map(**{option: value})
        assert made[option] == value
        world.host.advance(0)
        world.call("DeleteEventSourceMapping", UUID=made["UUID"])
        world.host.advance(0)


@pytest.mark.parametrize("value", [1, 1_001])
def test_two_to_a_thousand_batches_of_a_queue_may_run_at_once(world: MappingWorld, value: int) -> None:
    code, _, message = refused_create(
        world, EventSourceArn=QUEUE, StartingPosition="", ScalingConfig={"MaximumConcurrency": value}
    )
    assert (code, f"Value '{value}' at 'scalingConfig.maximumConcurrency'" in message) == ("ValidationException", True)


def test_a_pattern_has_4096_characters_at_most(world: MappingWorld) -> None:
    longest = '{"data": {"a": ["' + "x" * (4096 - len('{"data": {"a": [""]}}')) + '"]}}'
    assert len(longest) == 4096
    world.map(FilterCriteria={"Filters": [{"Pattern": longest}]})
    longer = {"Filters": [{"Pattern": longest + " "}]}
    assert refused_create(world, FilterCriteria=longer)[0] == "ValidationException"


def test_source_and_position_are_of_a_create_alone(world: MappingWorld) -> None:
    made = world.map()
    world.host.advance(0)
    given: dict[str, Any] = {"EventSourceArn": QUEUE, "StartingPosition": "TRIM_HORIZON"}
    changed = world.call("UpdateEventSourceMapping", UUID=made["UUID"], BatchSize=3, **given)
    assert (changed["EventSourceArn"], changed["StartingPosition"]) == (STREAM, "LATEST")


def test_a_second_mapping_of_the_same_source_and_function_is_refused(world: MappingWorld) -> None:
    uuid = world.map()["UUID"]
    of_queue = world.map(EventSourceArn=QUEUE, StartingPosition="")["UUID"]

    assert refused_create(world) == (
        "ResourceConflictException",
        409,
        (
            f'The event source arn (" {STREAM} ") and function (" f ") provided mapping already exists. '
            f"Please update or delete the existing mapping with UUID {uuid}"
        ),
    )
    assert refused_create(world, EventSourceArn=QUEUE, StartingPosition="") == (
        "ResourceConflictException",
        409,
        (
            f'An event source mapping with SQS arn (" {QUEUE} ") and function (" f ") already exists. '
            f"Please update or delete the existing mapping with UUID {of_queue}"
        ),
    )
    assert refused_create(world, EventSourceArn=f"{STREAM}/consumer/c:1700000000")[2].startswith(
        f"The function f reads the stream of {STREAM}/consumer/c:1700000000 already, as {STREAM}: "
    )


def test_a_uuid_that_names_nothing_is_refused(world: MappingWorld) -> None:
    for operation in ("GetEventSourceMapping", "UpdateEventSourceMapping", "DeleteEventSourceMapping"):
        error = refused(world, operation, UUID=UUID)
        assert (error.code, error.http_status, str(error)) == (
            "ResourceNotFoundException",
            404,
            "The resource you requested does not exist.",
        )


# ---------------------------------------------------------------- states


def test_states_in_between_are_shown_for_as_long_as_transitions_take(tmp_path: Path) -> None:
    world = MappingWorld(tmp_path, transition_s=5)
    world.create("f")
    world.host.advance(5_000)
    uuid = world.map()["UUID"]
    shown = [world.state(uuid)]
    for change in ({"Enabled": False}, {"Enabled": True}, {"BatchSize": 3}):
        world.host.advance(4_999)
        shown.append(world.state(uuid))
        world.host.advance(1)
        shown.append(world.state(uuid))
        shown.append(world.call("UpdateEventSourceMapping", UUID=uuid, **change)["State"])
    world.host.advance(5_000)
    shown.append(world.state(uuid))
    shown.append(world.call("DeleteEventSourceMapping", UUID=uuid)["State"])
    shown.append(world.state(uuid))
    world.host.advance(5_000)

    assert shown == [
        *["Creating", "Creating", "Enabled", "Disabling", "Disabling", "Disabled", "Enabling", "Enabling", "Enabled"],
        *["Updating", "Enabled", "Deleting", "Deleting"],
    ]
    assert refused(world, "GetEventSourceMapping", UUID=uuid).code == "ResourceNotFoundException"


def test_disabled_is_not_shown_before_nothing_runs_any_more(world: MappingWorld) -> None:
    uuid = world.map()["UUID"]
    world.host.advance(0)
    world.runner.waits = []
    world.call("UpdateEventSourceMapping", UUID=uuid, Enabled=False)
    world.host.advance(60_000)
    assert world.state(uuid) == "Disabling"

    world.runner.go_on()

    assert world.state(uuid) == "Disabled"


def test_one_that_is_created_disabled_is_so_at_once(world: MappingWorld) -> None:
    made = world.map(Enabled=False)
    assert made["State"] == "Disabled"
    assert world.runner.told == [f"create f {STREAM} False"]
    world.call("UpdateEventSourceMapping", UUID=made["UUID"], BatchSize=3)
    world.host.advance(0)
    assert world.state(made["UUID"]) == "Disabled"


def test_while_it_changes_it_is_in_use(world: MappingWorld) -> None:
    uuid = world.map()["UUID"]
    for operation, verb in (("UpdateEventSourceMapping", "update"), ("DeleteEventSourceMapping", "delete")):
        error = refused(world, operation, UUID=uuid)
        assert (error.code, error.http_status) == ("ResourceInUseException", 400)
        assert str(error) == f"Cannot {verb} the event source mapping because it is in use."


def test_a_mapping_stays_enabled_when_its_function_is_deleted(world: MappingWorld) -> None:
    uuid = world.map()["UUID"]
    world.host.advance(0)
    world.call("DeleteFunction", FunctionName="f")
    assert world.state(uuid) == "Enabled"
    assert world.host.notices == [
        (
            "warning",
            (
                f"there is no function f, and its mapping of {STREAM} waits for it: create it, or remove the mapping "
                f"(`aws lambda delete-event-source-mapping --uuid {uuid}`)"
            ),
        )
    ]


def test_people_are_told_once_of_several_and_not_of_mappings_that_do_not_run(world: MappingWorld) -> None:
    world.map()
    uuid = world.map(EventSourceArn=QUEUE, StartingPosition="")["UUID"]
    world.map(EventSourceArn=f"{QUEUE}2", StartingPosition="")
    world.host.advance(0)
    world.call("UpdateEventSourceMapping", UUID=uuid, Enabled=False)
    world.host.advance(0)
    world.call("DeleteFunction", FunctionName="f")
    ((_, told),) = world.host.notices
    assert told.startswith(f"there is no function f, and its 2 mappings wait for it, such as that of {STREAM}: create")


# ---------------------------------------------------------------- updates


def test_an_update_changes_what_it_names_and_nothing_else(world: MappingWorld) -> None:
    pattern = {"Filters": [{"Pattern": '{"data": {"a": [1]}}'}]}
    uuid = world.map(BatchSize=5, MaximumRetryAttempts=2, FilterCriteria=pattern)["UUID"]
    world.host.advance(0)

    changed = world.call("UpdateEventSourceMapping", UUID=uuid, BatchSize=9)

    assert (changed["BatchSize"], changed["MaximumRetryAttempts"], changed["State"]) == (9, 2, "Updating")
    assert changed["FilterCriteria"] == pattern
    world.host.advance(0)
    assert "FilterCriteria" not in world.call("UpdateEventSourceMapping", UUID=uuid, FilterCriteria={})
    assert world.runner.told[1:] == ["change f to f True from ''", "change f to f True from ''"]


def test_a_mapping_can_be_given_to_another_function(world: MappingWorld) -> None:
    world.create("g")
    uuid = world.map()["UUID"]
    world.host.advance(0)

    changed = world.call("UpdateEventSourceMapping", UUID=uuid, FunctionName="g")

    assert changed["FunctionArn"] == f"{ARN}:g"
    assert world.runner.told[-1] == "change f to g True from 'f'"
    world.host.advance(0)
    world.start()
    assert world.call("GetEventSourceMapping", UUID=uuid)["FunctionArn"] == f"{ARN}:g"
    world.map("f")
    error = refused(world, "UpdateEventSourceMapping", UUID=uuid, FunctionName="f")
    assert error.code == "ResourceConflictException"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"FunctionName": "nobody"}, "InvalidParameterValueException"),
        ({"MaximumRecordAgeInSeconds": 5}, "InvalidParameterValueException"),
        ({"TumblingWindowInSeconds": 5, "ParallelizationFactor": 2}, "InvalidParameterValueException"),
        ({"BatchSize": 10_001}, "ValidationException"),
    ],
)
def test_a_refused_update_leaves_it_as_it_was(world: MappingWorld, change: dict[str, Any], code: str) -> None:
    made = world.map()
    world.host.advance(0)
    assert refused(world, "UpdateEventSourceMapping", UUID=made["UUID"], **change).code == code
    assert world.call("GetEventSourceMapping", UUID=made["UUID"]) == {**made, "State": "Enabled"}


# ---------------------------------------------------------------- lists


def test_a_list_goes_by_source_and_function_in_pages(world: MappingWorld) -> None:
    world.create("g")
    made = []
    for function, source in (("f", STREAM), ("g", STREAM), ("f", QUEUE)):
        parameters = {"EventSourceArn": source} | ({"StartingPosition": ""} if source == QUEUE else {})
        made.append(world.map(function, **parameters)["UUID"])
        world.host.advance(10)

    def listed(**parameters: Any) -> list[str]:
        found = world.call("ListEventSourceMappings", **parameters)
        return [each["UUID"] for each in found["EventSourceMappings"]]

    assert listed() == made
    assert listed(EventSourceArn=STREAM) == made[:2]
    assert listed(FunctionName="f") == [made[0], made[2]]
    assert listed(FunctionName=f"{ARN}:f:$LATEST", EventSourceArn=QUEUE) == [made[2]]
    assert listed(FunctionName="nobody") == []
    first = world.call("ListEventSourceMappings", MaxItems=2)
    assert [each["UUID"] for each in first["EventSourceMappings"]] == made[:2]
    rest = world.call("ListEventSourceMappings", MaxItems=2, Marker=first["NextMarker"])
    assert ([each["UUID"] for each in rest["EventSourceMappings"]], "NextMarker" in rest) == (made[2:], False)
    assert refused(world, "ListEventSourceMappings", Marker="x").code == "InvalidParameterValueException"


def test_a_hundred_mappings_are_a_page(world: MappingWorld) -> None:
    for number in range(101):
        world.map(EventSourceArn=f"{QUEUE}-{number}", StartingPosition="")
    first = world.call("ListEventSourceMappings", MaxItems=10_000)
    assert len(first["EventSourceMappings"]) == 100
    rest = world.call("ListEventSourceMappings", Marker=first["NextMarker"])
    assert (len(rest["EventSourceMappings"]), "NextMarker" in rest) == (1, False)


def test_mappings_of_another_account_are_not_seen(world: MappingWorld) -> None:
    uuid = world.map()["UUID"]
    other = HOME._replace(account="210987654321")
    assert world.call("ListEventSourceMappings", other)["EventSourceMappings"] == []
    with pytest.raises(AwsError, match="does not exist"):
        world.call("GetEventSourceMapping", other, UUID=uuid)


# ---------------------------------------------------------------- decorated handlers


def handlers(tmp_path: Path, *, enabled: bool = True, now: bool | None = None) -> MappingWorld:
    file = tmp_path / "app.py"
    return MappingWorld(
        tmp_path / "data",
        declared={"bill": declared("bill", file)},
        triggers=[trigger("bill", enabled=enabled, now=now)],
    )


def test_the_trigger_of_a_decorated_handler_is_a_mapping(tmp_path: Path) -> None:
    world = handlers(tmp_path)
    (found,) = world.call("ListEventSourceMappings", FunctionName="bill")["EventSourceMappings"]
    assert (found["BatchSize"], found["State"], found["FunctionArn"]) == (7, "Enabled", f"{ARN}:bill")
    with pytest.raises(AwsError, match="provided mapping already exists"):
        world.map("bill")


def refused_with(world: MappingWorld, operation: str, **parameters: Any) -> str:
    error = refused(world, operation, **parameters)
    assert error.code == "InvalidParameterValueException"
    return str(error)


def test_it_can_be_switched_and_nothing_else_of_it_can_be_changed(tmp_path: Path) -> None:
    world = handlers(tmp_path)
    uuid = world.call("ListEventSourceMappings")["EventSourceMappings"][0]["UUID"]

    assert refused_with(world, "DeleteEventSourceMapping", UUID=uuid) == (
        "This event source mapping is declared at functions/app.py:12: remove it there, or disable it here."
    )
    assert refused_with(world, "UpdateEventSourceMapping", UUID=uuid, BatchSize=3) == (
        "This event source mapping is declared at functions/app.py:12: change it there; only Enabled can be changed "
        "here."
    )
    assert world.state(uuid) == "Enabled"
    assert world.call("UpdateEventSourceMapping", UUID=uuid, BatchSize=7, Enabled=False)["State"] == "Disabling"
    world.host.advance(0)
    assert world.state(uuid) == "Disabled"
    assert world.runner.told == ["switch bill 0 False"]


def test_a_switch_outlives_the_runtime_and_ends_when_its_decorator_says_something_else(tmp_path: Path) -> None:
    from kflow.lambda_.control import mappingfacts

    world = handlers(tmp_path)
    uuid = world.call("ListEventSourceMappings")["EventSourceMappings"][0]["UUID"]
    world.call("UpdateEventSourceMapping", UUID=uuid, Enabled=False)

    kept = mappingfacts.load_switches(world.host.folder)

    assert not mappingfacts.is_on(kept, uuid, declared=True)
    assert not mappingfacts.is_on(kept, uuid, declared=False)
    again = handlers(tmp_path, enabled=False)
    again.call("UpdateEventSourceMapping", UUID=uuid, Enabled=True)
    kept = mappingfacts.load_switches(again.host.folder)
    assert mappingfacts.is_on(kept, uuid, declared=False)
    assert mappingfacts.is_on(kept, uuid, declared=True)


def test_a_handler_of_queues_cannot_read_a_stream(tmp_path: Path) -> None:
    found = declared("bill", tmp_path / "app.py")
    messages = msgspec.structs.replace(found.handler, form=HandlerForm.MESSAGES)
    world = MappingWorld(tmp_path / "data", declared={"bill": msgspec.structs.replace(found, handler=messages)})
    with pytest.raises(AwsError, match=rf"bill is the handler at .*app.py:3, and takes what queues hold: {STREAM} is"):
        world.map("bill")
    assert world.map("bill", EventSourceArn=QUEUE, StartingPosition="")["State"] == "Creating"


def test_people_are_told_what_may_cost_them_records(tmp_path: Path) -> None:
    found = declared("bill", tmp_path / "app.py")
    one = msgspec.structs.replace(found.handler, form=HandlerForm.RECORD)
    world = MappingWorld(tmp_path / "data", declared={"bill": msgspec.structs.replace(found, handler=one)})
    uuid = world.map("bill", FilterCriteria={"Filters": [{"Pattern": '{"type": ["a"]}'}]})["UUID"]
    world.host.advance(0)
    world.call(
        "UpdateEventSourceMapping", UUID=uuid, FunctionResponseTypes=["ReportBatchItemFailures"], FilterCriteria={}
    )

    told = [text for level, text in world.host.notices if level == "warning"]

    assert [text.partition(" on arn")[0] for text in told] == [
        "mapping of bill",
        (
            "bill takes one record at a time, and reports the one that failed: without "
            "FunctionResponseTypes=[ReportBatchItemFailures] its mapping"
        ),
    ]
    assert "a record has no field type beside its data" in told[0]


# ---------------------------------------------------------------- the disk


class Full(Files):
    """Refuses to write while it is full."""

    is_full = False

    def write_replace(self, path: Any, content: bytes, *, sync: bool) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().write_replace(path, content, sync=sync)


def test_mappings_are_there_after_a_restart_and_those_that_go_are_not(tmp_path: Path) -> None:
    world = MappingWorld(tmp_path)
    for name in ("f", "g"):
        world.create(name)
    stays, goes = world.map("f", BatchSize=4)["UUID"], world.map("g")["UUID"]
    world.host.advance(0)
    world.call("UpdateEventSourceMapping", UUID=stays, Enabled=False)
    world.runner.waits = []
    world.call("DeleteEventSourceMapping", UUID=goes)

    world.start()

    assert [each["UUID"] for each in world.call("ListEventSourceMappings")["EventSourceMappings"]] == [stays]
    assert (world.state(stays), world.runner.told) == ("Disabled", ["resume f False"])


def test_what_cannot_be_kept_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    files = Full()
    world = MappingWorld(tmp_path, files=files)
    world.create("f")
    files.is_full = True
    with pytest.raises(Exception, match="the disk is full"):
        world.map()
    files.is_full = False
    assert world.call("ListEventSourceMappings")["EventSourceMappings"] == []
    made = world.map()
    world.host.advance(0)
    files.is_full = True
    for operation, parameters in (("UpdateEventSourceMapping", {"BatchSize": 3}), ("DeleteEventSourceMapping", {})):
        with pytest.raises(Exception, match="the disk is full"):
            world.call(operation, UUID=made["UUID"], **parameters)
        assert world.call("GetEventSourceMapping", UUID=made["UUID"])["State"] == "Enabled"
    assert world.runner.told == [f"create f {STREAM} True"]


def test_one_whose_position_cannot_be_made_is_refused(world: MappingWorld) -> None:
    from kflow.errors import StorageError

    world.runner.refuse = StorageError("the disk is gone")
    with pytest.raises(StorageError, match="the disk is gone"):
        world.map()
    assert list((world.path / "lambda" / "mappings").iterdir()) == []
    world.map()


def test_a_change_that_cannot_be_carried_out_is_tried_until_it_can(world: MappingWorld) -> None:
    from kflow.errors import StorageError

    uuid = world.map()["UUID"]
    world.host.advance(0)
    world.runner.refuse = StorageError("the disk is gone")
    world.call("UpdateEventSourceMapping", UUID=uuid, BatchSize=3)
    world.host.advance(999)
    assert world.state(uuid) == "Updating"

    world.host.advance(1)

    assert world.state(uuid) == "Enabled"
    assert world.runner.told[1:] == ["change f to f True from ''"] * 2
    assert world.host.notices == [("error", f"mapping {uuid} of f does not run: the disk is gone")]


def test_all_are_deleted_with_everything_else(tmp_path: Path) -> None:
    world = MappingWorld(tmp_path, declared={"bill": declared("bill", tmp_path / "a.py")}, triggers=[trigger("bill")])
    world.create("f")
    world.map()
    uuid = world.call("ListEventSourceMappings", FunctionName="bill")["EventSourceMappings"][0]["UUID"]
    world.call("UpdateEventSourceMapping", UUID=uuid, Enabled=False)
    world.host.advance(0)
    over: list[bool] = []

    world.mappings.clear(lambda: over.append(True))
    world.host.run()

    assert over == [True]
    assert [each["State"] for each in world.call("ListEventSourceMappings")["EventSourceMappings"]] == ["Enabled"]
    assert world.runner.told[-2:] == ["remove f", "switch bill 0 True"]


@pytest.mark.parametrize("steps", range(6))
def test_a_kill_between_any_two_writes_leaves_the_old_or_the_new(tmp_path: Path, steps: int) -> None:
    world = MappingWorld(tmp_path)
    world.create("f")

    def cut_off(operation: str, **parameters: Any) -> list[dict[str, Any]]:
        results = world.begin(operation, **parameters)
        for _ in range(steps):
            world.host.step()
        world.start()
        found: list[dict[str, Any]] = world.call("ListEventSourceMappings")["EventSourceMappings"]
        answered = bool(results)
        for each in found:
            each["answered"] = answered
        return found or [{"answered": answered}]

    given = {"FunctionName": "f", "EventSourceArn": STREAM, "StartingPosition": "LATEST"}
    (created,) = cut_off("CreateEventSourceMapping", **given)
    assert not created["answered"] or created["State"] == "Enabled"
    if "UUID" not in created:
        created = world.map()
        world.host.advance(0)
    (updated,) = cut_off("UpdateEventSourceMapping", UUID=created["UUID"], BatchSize=5, Enabled=False)
    assert (updated["BatchSize"], updated["State"]) in {(100, "Enabled"), (5, "Disabled")}
    assert not updated["answered"] or updated["BatchSize"] == 5
    (deleted,) = cut_off("DeleteEventSourceMapping", UUID=created["UUID"])
    assert not deleted["answered"] or "UUID" not in deleted
