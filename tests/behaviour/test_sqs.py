"""Amazon SQS on the endpoint, by boto3 and by the query protocol of older clients."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from botocore.exceptions import ClientError

from tests.deadline import eventually
from tests.served import Served, served

NAMESPACE = "{http://queue.amazonaws.com/doc/2012-11-05/}"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("sqs"), "--allow-reset") as place:
        yield place


@pytest.fixture(scope="module")
def sqs(endpoint: Served) -> Iterator[Any]:
    made = endpoint.client(service="sqs")
    yield made
    made.close()


_names = (f"queue-{number}" for number in range(1_000_000))


@pytest.fixture
def url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName=next(_names))["QueueUrl"])


@pytest.fixture
def fifo(sqs: Any) -> str:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    return str(sqs.create_queue(QueueName=f"{next(_names)}.fifo", Attributes=attributes)["QueueUrl"])


def refusal(call: Any, **parameters: Any) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response
    return error["Error"]["Code"], error["Error"]["Message"], error["ResponseMetadata"]["HTTPStatusCode"]


# ---------------------------------------------------------------------- boto3


def test_a_message_is_sent_received_and_deleted(sqs, url):
    sent = sqs.send_message(QueueUrl=url, MessageBody="hello")
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert (message["Body"], message["MessageId"]) == ("hello", sent["MessageId"])
    assert "Attributes" not in message
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


def test_a_url_names_the_host_that_the_client_used(endpoint):
    other = endpoint.client(service="sqs", endpoint_url=endpoint.url.replace("127.0.0.1", "localhost"))
    name = next(_names)
    made = other.create_queue(QueueName=name)["QueueUrl"]
    other.close()
    assert made == f"{endpoint.url.replace('127.0.0.1', 'localhost')}/123456789012/{name}"


def test_a_queue_that_is_not_there_has_both_its_names(sqs, endpoint):
    with pytest.raises(sqs.exceptions.QueueDoesNotExist) as caught:
        sqs.get_queue_url(QueueName="nix")
    error = caught.value.response["Error"]
    assert error == {
        "Message": "The specified queue does not exist.",
        "Code": "AWS.SimpleQueueService.NonExistentQueue",
        "QueryErrorCode": "QueueDoesNotExist",
        "Type": "Sender",
    }


def test_errors_that_are_not_modelled_have_both_their_names_too(sqs, fifo):
    with pytest.raises(ClientError) as caught:
        sqs.send_message(QueueUrl=fifo, MessageBody="x")
    assert caught.value.response["Error"] == {
        "Message": "The request must contain the parameter MessageGroupId.",
        "Code": "MissingParameter",
        "QueryErrorCode": "MissingRequiredParameterException",
        "Type": "Sender",
    }


def test_purging_twice_is_forbidden(sqs, url):
    sqs.purge_queue(QueueUrl=url)
    code, _, status = refusal(sqs.purge_queue, QueueUrl=url)
    assert (code, status) == ("AWS.SimpleQueueService.PurgeQueueInProgress", 403)


def test_attributes_and_types_survive_the_wire(sqs, url):
    attributes = {
        "text": {"DataType": "String", "StringValue": "ü\u2028"},
        "number": {"DataType": "Number.int", "StringValue": "1"},
        "binary": {"DataType": "Binary.gif", "BinaryValue": bytes(range(256))},
    }
    sqs.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=attributes)
    (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert message["MessageAttributes"] == attributes


def test_the_longest_message_passes(sqs, url):
    sqs.send_message(QueueUrl=url, MessageBody="x" * 1_048_576)
    assert len(sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"]) == 1_048_576
    refused = refusal(sqs.send_message, QueueUrl=url, MessageBody="x" * 1_048_577)
    text = "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes."
    assert refused == ("InvalidParameterValue", text, 400)


def test_a_long_poll_ends_with_the_message(sqs, endpoint, url):
    found: list[Any] = []
    other = endpoint.client(service="sqs")

    def wait() -> None:
        found.append(other.receive_message(QueueUrl=url, WaitTimeSeconds=20))

    thread = threading.Thread(target=wait)
    thread.start()
    sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    sqs.send_message(QueueUrl=url, MessageBody="now")
    thread.join(15)  # seconds before its time is over
    other.close()
    assert [each["Body"] for each in found[0]["Messages"]] == ["now"]


def test_groups_come_in_order(sqs, fifo):
    entries = [{"Id": str(i), "MessageBody": f"m{i}", "MessageGroupId": "g"} for i in range(10)]
    sqs.send_message_batch(QueueUrl=fifo, Entries=entries)
    seen = []
    while messages := sqs.receive_message(QueueUrl=fifo, MaxNumberOfMessages=3).get("Messages"):
        seen += [each["Body"] for each in messages]
        entries = [{"Id": str(i), "ReceiptHandle": each["ReceiptHandle"]} for i, each in enumerate(messages)]
        assert "Failed" not in sqs.delete_message_batch(QueueUrl=fifo, Entries=entries)
    assert seen == [f"m{i}" for i in range(10)]


def test_dead_letters_go_and_come_back(sqs, url):
    dead = sqs.create_queue(QueueName=next(_names))["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy, "VisibilityTimeout": "0"})
    sqs.send_message(QueueUrl=url, MessageBody="bad")
    assert len(sqs.receive_message(QueueUrl=url)["Messages"]) == 1
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    (letter,) = sqs.receive_message(QueueUrl=dead, AttributeNames=["All"], VisibilityTimeout=0)["Messages"]
    assert letter["Attributes"]["ApproximateReceiveCount"] == "2"
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]
    sqs.start_message_move_task(SourceArn=arn)
    message = eventually(lambda: sqs.receive_message(QueueUrl=url).get("Messages"), what="the message to be back")
    assert message[0]["Body"] == "bad"


def test_a_client_in_another_region_sees_other_queues(endpoint, sqs, url):
    other = endpoint.client(service="sqs", region="eu-west-1")
    assert "QueueUrls" not in other.list_queues()
    assert url in sqs.list_queues()["QueueUrls"]
    other.close()


def test_wrong_types_and_no_json_are_refused(endpoint):
    for body, code in ((b'{"QueueUrl": []}', "SerializationException"), (b"nix", "SerializationException")):
        headers = {"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0"}
        status, found, answered = post(endpoint, "/", body, headers)
        assert status == 400
        assert code in json.loads(found)["__type"]
        assert answered["Content-Type"] == "application/x-amz-json-1.0"
        assert answered["x-amzn-query-error"] == f"{code};Sender"


# ---------------------------------------------------------------------- the query protocol


def post(
    endpoint: Served, path: str, body: bytes | None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(f"{endpoint.url}{path}", data=body, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def query(endpoint: Served, path: str = "/", *, method: str = "POST", **form: str) -> tuple[int, ET.Element]:
    text = urllib.parse.urlencode({name.replace("__", "."): value for name, value in form.items()})
    if method == "GET":
        status, body, headers = post(endpoint, f"{path}?{text}", None)
    else:
        status, body, headers = post(endpoint, path, text.encode())
    assert headers["Content-Type"] == "text/xml"
    return status, ET.fromstring(body)


def texts(root: ET.Element, name: str) -> list[str | None]:
    return [found.text for found in root.iter(f"{NAMESPACE}{name}")]


def test_forms_make_queues_and_move_messages(endpoint, sqs):
    version = {"Version": "2012-11-05"}
    name = next(_names)
    status, root = query(
        endpoint, Action="CreateQueue", QueueName=name, Attribute__1__Name="VisibilityTimeout",
        Attribute__1__Value="40", Tag__1__Key="a", Tag__1__Value="b", **version,
    )  # fmt: skip
    assert (status, root.tag) == (200, f"{NAMESPACE}CreateQueueResponse")
    assert [child.tag for child in root] == [f"{NAMESPACE}CreateQueueResult", f"{NAMESPACE}ResponseMetadata"]
    (url,) = texts(root, "QueueUrl")
    assert url == f"{endpoint.url}/123456789012/{name}"
    path = f"/123456789012/{name}"
    _, root = query(
        endpoint, path, Action="SendMessage", MessageBody="a & b\r", MessageAttribute__1__Name="MyAttribute",
        MessageAttribute__1__Value__DataType="String", MessageAttribute__1__Value__StringValue="foobar",
        MessageAttribute__2__Name="bin", MessageAttribute__2__Value__DataType="Binary",
        MessageAttribute__2__Value__BinaryValue="AAE=",
    )  # fmt: skip
    assert texts(root, "MD5OfMessageBody")
    _, root = query(
        endpoint, path, method="GET", Action="ReceiveMessage", AttributeName__1="All", MaxNumberOfMessages="10",
        MessageAttributeName__1="MyAttribute", **version,
    )  # fmt: skip
    assert texts(root, "Body") == ["a & b\r"]
    assert texts(root, "MD5OfMessageAttributes") == ["adb59cd4678ea5a855436b949cd07ab6"]
    (attribute,) = root.iter(f"{NAMESPACE}MessageAttribute")
    assert [(child.tag.removeprefix(NAMESPACE), child.text) for child in attribute] == [
        ("Name", "MyAttribute"),
        ("Value", None),
    ]
    assert "SentTimestamp" in [found.findtext(f"{NAMESPACE}Name") for found in root.iter(f"{NAMESPACE}Attribute")]
    (handle,) = texts(root, "ReceiptHandle")
    status, root = query(endpoint, path, Action="DeleteMessage", ReceiptHandle=str(handle))
    assert status == 200
    assert [child.tag for child in root] == [f"{NAMESPACE}ResponseMetadata"]
    _, root = query(endpoint, path, Action="ReceiveMessage")
    assert len(root[0]) == 0
    _, root = query(endpoint, Action="GetQueueAttributes", QueueUrl=str(url), AttributeName__1="VisibilityTimeout")
    assert (texts(root, "Name"), texts(root, "Value")) == (["VisibilityTimeout"], ["40"])
    _, root = query(endpoint, path, Action="ListQueueTags")
    assert (texts(root, "Key"), texts(root, "Value")) == (["a"], ["b"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"a": "b"}


def test_forms_send_and_settle_batches(endpoint, url):
    path = urllib.parse.urlsplit(url).path
    _, root = query(
        endpoint, path, Action="SendMessageBatch", SendMessageBatchRequestEntry__1__Id="a",
        SendMessageBatchRequestEntry__1__MessageBody="1", SendMessageBatchRequestEntry__2__Id="b",
        SendMessageBatchRequestEntry__2__MessageBody="2", SendMessageBatchRequestEntry__3__Id="c",
        SendMessageBatchRequestEntry__3__MessageBody="\x01",
    )  # fmt: skip
    done = root[0].findall(f"{NAMESPACE}SendMessageBatchResultEntry")
    assert [each.findtext(f"{NAMESPACE}Id") for each in done] == ["a", "b"]
    (failed,) = root[0].findall(f"{NAMESPACE}BatchResultErrorEntry")
    assert failed.findtext(f"{NAMESPACE}Code") == "InvalidMessageContents"
    assert failed.findtext(f"{NAMESPACE}SenderFault") == "true"
    _, root = query(endpoint, path, Action="ReceiveMessage", MaxNumberOfMessages="10")
    assert len(root[0].findall(f"{NAMESPACE}Message")) == 2
    handles = texts(root, "ReceiptHandle")
    _, root = query(
        endpoint, path, Action="ChangeMessageVisibilityBatch",
        ChangeMessageVisibilityBatchRequestEntry__1__Id="a",
        ChangeMessageVisibilityBatchRequestEntry__1__ReceiptHandle=str(handles[0]),
        ChangeMessageVisibilityBatchRequestEntry__1__VisibilityTimeout="0",
    )  # fmt: skip
    assert len(root[0].findall(f"{NAMESPACE}ChangeMessageVisibilityBatchResultEntry")) == 1
    _, root = query(
        endpoint, path, Action="DeleteMessageBatch",
        **{f"DeleteMessageBatchRequestEntry.{i}.Id": str(i) for i in (1, 2)},
        **{f"DeleteMessageBatchRequestEntry.{i}.ReceiptHandle": str(handles[i - 1]) for i in (1, 2)},
    )  # fmt: skip
    assert len(root[0].findall(f"{NAMESPACE}DeleteMessageBatchResultEntry")) == 2


def test_forms_are_refused_in_their_own_words(endpoint, url):
    status, root = query(endpoint, Action="ReceiveMessage", QueueUrl="http://x/123456789012/nix", Version="2012-11-05")
    assert (status, root.tag) == (400, f"{NAMESPACE}ErrorResponse")
    (error,) = root.iter(f"{NAMESPACE}Error")
    assert [(child.tag.removeprefix(NAMESPACE), child.text) for child in error] == [
        ("Type", "Sender"),
        ("Code", "AWS.SimpleQueueService.NonExistentQueue"),
        ("Message", "The specified queue does not exist for this wsdl version."),
        ("Detail", None),
    ]
    assert texts(root, "RequestId")[0]
    for path, action in (("/", "FooBar"), (urllib.parse.urlsplit(url).path, "CreateQueue")):
        status, body, _ = post(endpoint, path, f"Action={action}&Version=2012-11-05".encode())
        assert status == 400
        assert b"<Code>InvalidAction</Code>" in body
        assert f"The action {action} is not valid for this endpoint.".encode() in body
    status, body, _ = post(endpoint, urllib.parse.urlsplit(url).path, None)
    assert (status, body) == (404, b"<UnknownOperationException/>")


def test_every_operation_of_the_query_protocol_reads_what_it_writes(endpoint, url):
    path = urllib.parse.urlsplit(url).path
    _, root = query(endpoint, Action="ListQueues", Version="2012-11-05", QueueNamePrefix=path.rpartition("/")[2])
    assert url in texts(root, "QueueUrl")
    _, root = query(endpoint, path, Action="SetQueueAttributes", Attribute__1__Name="DelaySeconds",
                    Attribute__1__Value="3")  # fmt: skip
    _, root = query(endpoint, path, Action="TagQueue", Tag__1__Key="k", Tag__1__Value="v")
    _, root = query(endpoint, path, Action="UntagQueue", TagKey__1="k")
    _, root = query(endpoint, path, Action="AddPermission", Label="l", AWSAccountId__1="111122223333",
                    ActionName__1="SendMessage")  # fmt: skip
    names = {"AttributeName.1": "Policy", "AttributeName.2": "DelaySeconds"}
    _, root = query(endpoint, path, Action="GetQueueAttributes", **names)
    assert texts(root, "Name") == ["DelaySeconds", "Policy"]
    status, _ = query(endpoint, path, Action="DeleteQueue")
    assert status == 200


# ---------------------------------------------------------------------- the process


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_who_uses_no_queues_has_none_of_it_in_the_process(tmp_path):
    with served(tmp_path) as place:
        place.client().list_streams()
        before = place.rss
        assert list((place.data_dir / "models").glob("sqs-*")) == []  # the model was not even looked at
        client = place.client(service="sqs")
        client.list_queues()
        assert len(list((place.data_dir / "models").glob("sqs-*"))) == 1
        assert place.rss > before
        client.close()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_waiting_costs_nothing(endpoint, sqs, url):
    sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    before = cpu_ticks(endpoint.process.pid)
    assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2)
    used = cpu_ticks(endpoint.process.pid) - before
    assert used <= 0.1 * os.sysconf("SC_CLK_TCK")


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_stop_answers_who_waits_and_a_start_has_all_of_it(tmp_path):
    with served(tmp_path) as place:
        client = place.client(service="sqs")
        url = client.create_queue(QueueName="jobs")["QueueUrl"]
        empty = client.create_queue(QueueName="empty")["QueueUrl"]
        client.send_message(QueueUrl=url, MessageBody="kept")
        waiting = http.client.HTTPConnection(*place.address, timeout=15)
        headers = {"X-Amz-Target": "AmazonSQS.ReceiveMessage", "Content-Type": "application/x-amz-json-1.0"}
        waiting.request("POST", "/", json.dumps({"QueueUrl": empty, "WaitTimeSeconds": 20}), headers)
        client.get_queue_attributes(QueueUrl=empty, AttributeNames=["All"])  # what came before this has arrived
        assert place.stop(signal.SIGTERM) in (0, 130, 143)
        answer = waiting.getresponse()
        assert (answer.status, answer.read()) == (200, b"{}")
        waiting.close()
        client.close()
        place.start()
        client = place.client(service="sqs")
        name = urllib.parse.urlsplit(url).path
        assert client.receive_message(QueueUrl=name)["Messages"][0]["Body"] == "kept"
        client.close()


def test_a_reset_removes_queues(tmp_path):
    with served(tmp_path, "--allow-reset") as place:
        client = place.client(service="sqs")
        client.create_queue(QueueName="jobs")
        assert place.get("/_kflow/reset", method="POST")[0] == 200
        assert "QueueUrls" not in client.list_queues()
        client.create_queue(QueueName="jobs")
        client.close()
        assert place.stop() in (0, 130)
        place.start()
        assert place.get("/_kflow/reset", method="POST")[0] == 200  # also where nobody asked for a queue since
        client = place.client(service="sqs")
        assert "QueueUrls" not in client.list_queues()
        client.close()


def test_health_names_it(endpoint):
    _, body = endpoint.get("/_kflow/health")
    assert json.loads(body)["services"]["sqs"] == "running"


def test_things_go_wrong_on_purpose(tmp_path):
    faults = '["sqs.SendMessage: 100% InternalFailure"]'
    (tmp_path / "kflow.toml").write_text(f"faults = {faults}\n")
    with served(tmp_path) as place:
        client = place.client(service="sqs")
        url = client.create_queue(QueueName="jobs")["QueueUrl"]
        code, _, status = refusal(client.send_message, QueueUrl=url, MessageBody="x")
        assert status == 500
        assert re.match("InternalFailure|InternalError|500", code)
        client.close()
