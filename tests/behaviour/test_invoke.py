"""Functions that are invoked by the API: at once, at some time, or only asked about; with real clients."""

from __future__ import annotations

import base64
import io
import json
import re
import textwrap
import threading
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import commanding
from tests.deadline import eventually
from tests.served import Served, served

ACCOUNT = "123456789012"
ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:echo"
HANDLERS = """\
    import io, json, os, sys, time
    from pathlib import Path
    import kflow

    SEEN = Path(__file__).parents[1] / "seen"

    def note(**fields):
        with SEEN.open("a") as file:
            file.write(json.dumps(fields) + "\\n")

    @kflow.on_stream("orders", timeout=2)
    def echo(event, context):
        print("hello", flush=True)
        if "seconds" in event:
            time.sleep(event["seconds"])
        if "raise" in event:
            raise ValueError(event["raise"])
        if "exit" in event:
            os._exit(event["exit"])
        if "size" in event:
            return "x" * event["size"]
        if "none" in event:
            return None
        given = context.client_context
        return {
            "event": event,
            "arn": context.invoked_function_arn,
            "id": context.aws_request_id,
            "custom": None if given is None else given.custom,
        }

    @kflow.on_stream("orders")
    def later(event, context):
        note(id=context.aws_request_id, event=event)
        if event.get("fail"):
            raise RuntimeError(event["fail"])
        if event.get("gate"):
            while not Path(event["gate"]).exists():
                time.sleep(0.005)
        return {"done": event}

    @kflow.on_stream("orders", timeout=30)
    def slow(event, context):
        note(id=context.aws_request_id, event=event)
        while not Path(event["gate"]).exists():
            time.sleep(0.005)
        return event

    @kflow.on_stream("orders")
    def standard(event, context):
        if event["output"] == "wrap":
            sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
            print("wrapped")
        elif event["output"] == "close":
            sys.stdout.close()
        else:
            sys.stdout = None
        return event
"""


class Place:
    """An endpoint with these handlers."""

    def __init__(self, endpoint: Served) -> None:
        self.endpoint = endpoint
        self.functions = endpoint.client(service="lambda")
        self.queues = endpoint.client(service="sqs")

    def invoke(self, payload: Any = None, *, function: str = "echo", **options: Any) -> Any:
        if payload is not None:
            options["Payload"] = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        answer = self.functions.invoke(FunctionName=function, **options)
        answer["Payload"] = answer["Payload"].read()
        return answer

    def refused(self, *arguments: Any, **options: Any) -> tuple[int, str, str]:
        with pytest.raises(ClientError) as caught:
            self.invoke(*arguments, **options)
        answer = caught.value.response
        status: int = answer["ResponseMetadata"]["HTTPStatusCode"]
        return status, answer["Error"]["Code"], answer["Error"]["Message"]

    def seen(self, **event: Any) -> list[str]:
        """Request ids of the invocations with this event."""
        file = self.endpoint.folder / "seen"
        lines = file.read_text().splitlines() if file.exists() else []
        return [note["id"] for note in map(json.loads, lines) if note["event"] == event]

    def queue(self) -> tuple[str, str]:
        name = f"q-{uuid.uuid4()}"
        url = self.queues.create_queue(QueueName=name)["QueueUrl"]
        return url, f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"

    def received(self, url: str) -> Any:
        answer = self.queues.receive_message(QueueUrl=url, WaitTimeSeconds=20, MessageAttributeNames=["All"])
        (message,) = answer["Messages"]
        self.queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return message


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("invoke")
    (folder / "functions").mkdir()
    (folder / "functions" / "app.py").write_text(textwrap.dedent(HANDLERS))
    with served(folder, command="run", KFLOW_RETRY_BACKOFF_SCALE="0") as endpoint:
        yield Place(endpoint)


# ---------------------------------------------------------------------- and wait


def test_a_decorated_handler_is_invoked_like_any_function(place: Place) -> None:
    answer = place.invoke({"id": 1})
    headers = answer["ResponseMetadata"]["HTTPHeaders"]

    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in answer
    assert headers["content-type"] == "application/json"
    assert json.loads(answer["Payload"]) == {
        "event": {"id": 1},
        "arn": ARN,
        "id": headers["x-amzn-requestid"],
        "custom": None,
    }


def test_it_is_named_by_its_name_or_its_arn_with_and_without_a_qualifier(place: Place) -> None:
    def arn(**options: Any) -> str:
        return str(json.loads(place.invoke(**options)["Payload"])["arn"])

    assert arn(function=ARN) == ARN
    assert arn(function=f"{ACCOUNT}:function:echo") == ARN
    assert arn(function=f"{ARN}:$LATEST") == f"{ARN}:$LATEST"
    assert arn(Qualifier="$LATEST") == f"{ARN}:$LATEST"


def test_without_a_payload_the_event_is_empty_and_none_is_null(place: Place) -> None:
    assert json.loads(place.invoke()["Payload"])["event"] == {}
    assert place.invoke({"none": 1})["Payload"] == b"null"


def test_the_end_of_the_log_comes_with_the_response(place: Place) -> None:
    def log(payload: Any) -> tuple[str, list[str]]:
        answer = place.invoke(payload, LogType="Tail")
        text = base64.b64decode(answer["LogResult"]).decode()
        return answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"], text.splitlines()

    identity, lines = log({"id": 1})
    assert lines[:3] == [f"START RequestId: {identity} Version: $LATEST", "hello", f"END RequestId: {identity}"]
    assert lines[3].startswith(f"REPORT RequestId: {identity}\tDuration: ")
    identity, lines = log({"raise": "no"})
    assert "[ERROR] ValueError: no" in lines
    assert "LogResult" not in place.invoke()


def test_a_failure_of_the_function_is_a_response(place: Place) -> None:
    answer = place.invoke({"raise": "no"})

    assert (answer["StatusCode"], answer["FunctionError"], answer["ExecutedVersion"]) == (200, "Unhandled", "$LATEST")
    found = json.loads(answer["Payload"])
    assert list(found) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert (found["errorMessage"], found["errorType"]) == ("no", "ValueError")
    assert found["requestId"] == answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]


def test_an_exit_and_a_timeout_are_told_as_lambda_tells_them(place: Place) -> None:
    exited, late = place.invoke({"exit": 3}), place.invoke({"seconds": 30})
    ids = [answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"] for answer in (exited, late)]

    assert exited["FunctionError"] == late["FunctionError"] == "Unhandled"
    assert json.loads(exited["Payload"]) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {ids[0]} Error: Runtime exited with error: exit status 3",
    }
    assert json.loads(late["Payload"]) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {ids[1]} Error: Task timed out after 2.00 seconds",
    }


def test_a_response_of_six_megabytes_comes_whole_and_a_larger_one_is_a_failure(place: Place) -> None:
    assert len(place.invoke({"size": 6_291_554})["Payload"]) == 6_291_556
    assert json.loads(place.invoke({"size": 6_291_555})["Payload"]) == {
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "Function.ResponseSizeTooLarge",
    }


def test_a_client_context_reaches_the_handler(place: Place) -> None:
    given = base64.b64encode(b'{"custom": {"colour": "blue"}}').decode()

    assert json.loads(place.invoke(ClientContext=given)["Payload"])["custom"] == {"colour": "blue"}
    assert place.refused(ClientContext="no base64!") == (
        400,
        "InvalidRequestContentException",
        "Client context must be a valid Base64-encoded JSON object.",
    )


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (
            b"hello",
            (
                "Unrecognized token 'hello': was expecting (JSON String, Number, Array, Object or token 'null', 'true' "
                "or 'false')\n at [Source: (byte[])\"hello\"; line: 1, column: 6]"
            ),
        ),
        (b'{"a": 1', "Input data was truncated"),
        (b'"\xff"', "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
    ],
)
def test_a_payload_that_is_no_json_is_refused(place: Place, payload: bytes, said: str) -> None:
    before = "Could not parse request body into json: Could not parse payload into json: "

    assert place.refused(payload) == (400, "InvalidRequestContentException", before + said)


def test_what_a_handler_does_to_standard_output_fails_no_invocation(place: Place) -> None:
    for what in ("wrap", "close", "none"):
        answer = place.invoke({"output": what}, function="standard", LogType="Tail")
        assert (json.loads(answer["Payload"]), answer.get("FunctionError")) == ({"output": what}, None)
        log = base64.b64decode(answer["LogResult"]).decode()
        assert ("\nwrapped\nEND " in log) is (what == "wrap")
        assert "\nREPORT " in log


def test_a_large_payload_is_taken_and_a_larger_one_refused(place: Place) -> None:
    largest = json.dumps({"none": "x" * (6_291_456 - 12)}).encode()
    assert len(largest) == 6_291_456

    assert place.invoke(largest)["Payload"] == b"null"
    assert place.refused(largest + b" ") == (
        413,
        "RequestEntityTooLargeException",
        "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
    )
    assert place.refused(largest[:-2] + b"!")[1] == "InvalidRequestContentException"


def test_what_is_not_there_is_not_found(place: Place) -> None:
    assert place.refused(function="nobody") == (
        404,
        "ResourceNotFoundException",
        f"Function not found: arn:aws:lambda:us-east-1:{ACCOUNT}:function:nobody:$LATEST",
    )
    assert place.refused(Qualifier="7") == (404, "ResourceNotFoundException", f"Function not found: {ARN}:7")


def test_a_dry_run_runs_nothing(place: Place) -> None:
    answer = place.invoke({"dry": 1}, function="later", InvocationType="DryRun")

    assert (answer["StatusCode"], answer["Payload"]) == (204, b"")
    assert "ExecutedVersion" not in answer
    assert place.refused(function="nobody", InvocationType="DryRun")[0] == 404
    assert place.seen(dry=1) == []


def test_a_response_may_come_as_a_stream(place: Place) -> None:
    answer = place.functions.invoke_with_response_stream(FunctionName="echo", Payload=b'{"size": 200000}')
    *chunks, last = answer["EventStream"]

    assert answer["ExecutedVersion"] == "$LATEST"
    assert b"".join(each["PayloadChunk"]["Payload"] for each in chunks) == b'"' + b"x" * 200_000 + b'"'
    assert "ErrorCode" not in last["InvokeComplete"]

    answer = place.functions.invoke_with_response_stream(FunctionName="echo", Payload=b'{"raise": "no"}')
    last = list(answer["EventStream"])[-1]["InvokeComplete"]
    assert last["ErrorCode"] == "Unhandled"
    assert json.loads(last["ErrorDetails"])["errorMessage"] == "no"


def test_a_function_runs_no_more_often_at_once_than_is_reserved_for_it(place: Place, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    place.functions.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=1)
    found: list[Any] = []
    first = threading.Thread(target=lambda: found.append(place.invoke({"gate": str(gate)}, function="slow")))
    first.start()
    try:
        eventually(lambda: place.seen(gate=str(gate)), what="the first to run")
        with pytest.raises(ClientError) as caught:
            place.invoke({"gate": str(gate)}, function="slow")
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert caught.value.response["Error"] == {"Code": "TooManyRequestsException", "Message": "Rate Exceeded."}
        assert caught.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
        assert caught.value.response["Type"] == "User"
    finally:
        gate.touch()
        first.join()
    assert found[0]["StatusCode"] == 200
    assert place.invoke({"gate": str(gate)}, function="slow")["StatusCode"] == 200


def test_an_alias_with_weights_runs_both_versions_and_each_says_which_it_was(place: Place) -> None:
    def code(version: int) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(
                "app.py",
                f"def handler(event, context):\n"
                f"    return {{'code': {version}, 'version': context.function_version, "
                f"'arn': context.invoked_function_arn}}\n",
            )
        return packed.getvalue()

    functions = place.functions
    functions.create_function(
        FunctionName="two",
        Runtime="python3.11",
        Role=f"arn:aws:iam::{ACCOUNT}:role/r",
        Handler="app.handler",
        Code={"ZipFile": code(1)},
        Publish=True,
    )
    functions.update_function_code(FunctionName="two", ZipFile=code(2), Publish=True)
    functions.create_alias(
        FunctionName="two",
        Name="live",
        FunctionVersion="1",
        RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}},
    )
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:two"

    seen: set[str] = set()

    def both() -> bool:
        answer = place.invoke(function="two", Qualifier="live")
        version = answer["ExecutedVersion"]
        assert json.loads(answer["Payload"]) == {"code": int(version), "version": version, "arn": f"{arn}:live"}
        seen.add(version)
        return seen == {"1", "2"}

    eventually(both, seconds=60, what="both versions")
    answer = place.invoke(function=f"{arn}:1")
    assert (answer["ExecutedVersion"], json.loads(answer["Payload"])["arn"]) == ("1", f"{arn}:1")
    answer = place.invoke(function="two")
    assert (answer["ExecutedVersion"], json.loads(answer["Payload"])["code"]) == ("$LATEST", 2)
    assert place.invoke(function="two", Qualifier="live", InvocationType="Event")["StatusCode"] == 202


# ---------------------------------------------------------------------- from the command line


def run(place: Place, *arguments: str, code: int = 0, given: str = "") -> tuple[str, str]:
    """What a command writes."""
    done = commanding.run(arguments, cwd=place.endpoint.folder, env=place.endpoint.environment, given=given)
    assert done.returncode == code, f"{done.stdout}{done.stderr}"
    return done.stdout, done.stderr


def test_the_command_shows_the_response_and_beside_it_the_log(place: Place) -> None:
    out, err = run(place, "invoke", "echo", '{"id": 1}', "--client-context", '{"custom": {"a": 1}}')
    found = json.loads(out)
    assert (found["event"], found["custom"]) == ({"id": 1}, {"a": 1})
    assert err.splitlines()[:2] == [f"START RequestId: {found['id']} Version: $LATEST", "hello"]

    out, err = run(place, "invoke", "echo", "-", code=1, given='{"raise": "no"}')
    assert json.loads(out)["errorMessage"] == "no"
    assert "[ERROR] ValueError: no" in err


def test_the_command_answers_programs_too_and_need_not_wait(place: Place) -> None:
    (place.endpoint.folder / "event.json").write_text('{"none": 1}')
    found = json.loads(run(place, "invoke", "echo", "@event.json", "--json")[0])
    assert (found["status"], found["function_error"], found["executed_version"]) == (200, None, "$LATEST")
    assert (found["payload"], found["log"].splitlines()[1]) == (None, "hello")

    found = json.loads(run(place, "invoke", "later", '{"command": 1}', "--async", "--json")[0])
    assert found["status"] == 202
    assert eventually(lambda: place.seen(command=1), what="it to be run") == [found["request_id"]]


def test_the_command_says_which_functions_there_are(place: Place) -> None:
    _, err = run(place, "invoke", "ecko", code=2)
    assert err.startswith("error: no function `ecko`; did you mean `echo`?; functions here: echo, later, slow")


# ---------------------------------------------------------------------- at some time


def test_an_event_is_taken_in_and_run(place: Place) -> None:
    answer = place.invoke({"event": 1}, function="later", InvocationType="Event")

    assert (answer["StatusCode"], answer["Payload"]) == (202, b"")
    assert "ExecutedVersion" not in answer
    (seen,) = eventually(lambda: place.seen(event=1), what="the event to be run")
    assert seen == answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
    assert place.functions.invoke_async(FunctionName="later", InvokeArgs=b'{"old": 1}')["Status"] == 202
    eventually(lambda: place.seen(old=1), what="the old form's event to be run")


def test_an_event_that_fails_is_run_three_times_with_one_request_id_and_then_goes_where_it_is_to_go(
    place: Place,
) -> None:
    url, arn = place.queue()
    place.functions.put_function_event_invoke_config(
        FunctionName="later", DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    answer = place.invoke({"fail": "no"}, function="later", InvocationType="Event")
    document = json.loads(place.received(url)["Body"])

    identity = answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
    assert place.seen(fail="no") == [identity] * 3
    assert list(document) == [
        "version",
        "timestamp",
        "requestContext",
        "requestPayload",
        "responseContext",
        "responsePayload",
    ]
    assert document["requestContext"] == {
        "requestId": identity,
        "functionArn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:later:$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 3,
    }
    assert document["requestPayload"] == {"fail": "no"}
    assert document["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": "Unhandled",
    }
    assert document["responsePayload"]["errorMessage"] == "no"


def test_a_success_is_told_too_and_retries_are_as_configured(place: Place) -> None:
    url, arn = place.queue()
    place.functions.put_function_event_invoke_config(
        FunctionName="later",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnSuccess": {"Destination": arn}, "OnFailure": {"Destination": arn}},
    )
    place.invoke({"fine": 1}, function="later", InvocationType="Event")
    document = json.loads(place.received(url)["Body"])
    assert document["requestContext"]["condition"] == "Success"
    assert document["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    assert document["responsePayload"] == {"done": {"fine": 1}}

    place.invoke({"fail": "once"}, function="later", InvocationType="Event")
    document = json.loads(place.received(url)["Body"])
    assert document["requestContext"]["approximateInvokeCount"] == 1
    assert len(place.seen(fail="once")) == 1


def test_a_failure_goes_into_a_bucket_and_the_event_to_the_dead_letter_queue(place: Place) -> None:
    url, arn = place.queue()
    bucket = place.endpoint.data_dir / "s3" / "failures"
    bucket.mkdir(parents=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", "def handler(event, context):\n    raise RuntimeError('no good')\n")
    place.functions.create_function(
        FunctionName="fails",
        Runtime="python3.11",
        Role=f"arn:aws:iam::{ACCOUNT}:role/r",
        Handler="app.handler",
        Code={"ZipFile": packed.getvalue()},
        DeadLetterConfig={"TargetArn": arn},
    )
    place.functions.put_function_event_invoke_config(
        FunctionName="fails",
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:s3:::failures"}},
    )
    answer = place.invoke({"id": 7}, function="fails", InvocationType="Event")
    identity = answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]

    letter = place.received(url)
    assert json.loads(letter["Body"]) == {"id": 7}
    attributes = {name: (each["DataType"], each["StringValue"]) for name, each in letter["MessageAttributes"].items()}
    assert attributes == {
        "RequestID": ("String", identity),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "no good"),
    }
    (file,) = (bucket / "aws" / "lambda" / "async" / "fails").glob("*/*/*/*")
    document = json.loads(file.read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", file.name)
    assert document["requestContext"]["requestId"] == identity
    assert document["requestContext"]["approximateInvokeCount"] == 2
    assert document["responsePayload"]["errorMessage"] == "no good"


def test_an_event_of_a_function_that_may_not_run_is_told_at_once(place: Place) -> None:
    url, arn = place.queue()
    place.functions.put_function_event_invoke_config(
        FunctionName="echo", DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    place.functions.put_function_concurrency(FunctionName="echo", ReservedConcurrentExecutions=0)
    try:
        place.invoke({"id": 1}, InvocationType="Event")
        document = json.loads(place.received(url)["Body"])
        assert document["requestContext"]["condition"] == "ZeroReservedConcurrency"
        assert document["requestContext"]["approximateInvokeCount"] == 0
        assert "responseContext" not in document
        assert "responsePayload" not in document
        assert place.refused()[1] == "TooManyRequestsException"
    finally:
        place.functions.delete_function_concurrency(FunctionName="echo")
        place.functions.delete_function_event_invoke_config(FunctionName="echo")
    assert place.invoke()["StatusCode"] == 200


def test_an_event_may_go_on_to_another_function(place: Place) -> None:
    place.functions.put_function_event_invoke_config(
        FunctionName="echo",
        DestinationConfig={"OnSuccess": {"Destination": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:later"}},
    )
    place.invoke({"none": 1}, InvocationType="Event")
    file = place.endpoint.folder / "seen"
    eventually(lambda: '"requestPayload": {"none": 1}' in file.read_text(), what="the document to come")
    place.functions.delete_function_event_invoke_config(FunctionName="echo")


def test_an_event_of_a_megabyte_is_taken_and_a_larger_one_refused(place: Place) -> None:
    largest = json.dumps({"event": "x" * (1_048_576 - 13)}).encode()
    assert len(largest) == 1_048_576

    assert place.invoke(largest, InvocationType="Event")["StatusCode"] == 202
    assert place.refused(largest + b" ", InvocationType="Event") == (
        413,
        "RequestEntityTooLargeException",
        "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)",
    )


def test_a_topic_invokes_the_functions_that_are_subscribed(place: Place) -> None:
    topics = place.endpoint.client(service="sns")
    topic = topics.create_topic(Name="t")["TopicArn"]
    function = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:later"
    subscription = topics.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=function)["SubscriptionArn"]
    assert topics.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"][0]["Protocol"] == "lambda"

    message = topics.publish(
        TopicArn=topic,
        Message="hello",
        Subject="greeting",
        MessageAttributes={"colour": {"DataType": "String", "StringValue": "blue"}},
    )["MessageId"]
    file = place.endpoint.folder / "seen"

    def found() -> Any:
        events = [json.loads(line)["event"] for line in file.read_text().splitlines()]
        return [event for event in events if "Records" in event]

    (event,) = eventually(found, what="the topic's event")
    (record,) = event["Records"]
    assert list(record) == ["EventSource", "EventVersion", "EventSubscriptionArn", "Sns"]
    assert (record["EventSource"], record["EventVersion"]) == ("aws:sns", "1.0")
    assert record["EventSubscriptionArn"] == subscription
    notification = record["Sns"]
    assert (notification["Message"], notification["Subject"], notification["MessageId"]) == (
        "hello",
        "greeting",
        message,
    )
    assert notification["TopicArn"] == topic
    assert notification["MessageAttributes"] == {"colour": {"Type": "String", "Value": "blue"}}
