"""Calls of services that kflow does not speak are passed on, to where the settings say."""

from __future__ import annotations

import calendar
import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, IncompleteReadError, ResponseStreamingError

from kflow.aws.signature import Verifier
from tests.deadline import eventually
from tests.project import KFLOW, Project
from tests.served import Served, served
from tests.upstreams import Asked, Shelf, Upstream, respond, upstream

FIVE_MIB = 5 << 20


def echo(asked: Asked, handler: Any) -> None:
    respond(handler, 200, b'{"TableNames":["' + asked.headers["x-amz-target"].encode() + b'"]}')


class Behind:
    """An endpoint, and what is behind it."""

    def __init__(self, endpoint: Served, shelf: Upstream, tables: Upstream, aws: Upstream) -> None:
        self.endpoint = endpoint
        self.shelf = shelf
        self.tables = tables
        self.aws = aws

    def client(self, service: str, **arguments: Any) -> Any:
        return self.endpoint.client(service=service, **arguments)


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("forwarding")
    with upstream(Shelf()) as shelf, upstream(echo) as tables, upstream(echo) as aws:
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            closed = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        (folder / "credentials").write_text(
            "[dev]\naws_access_key_id = AKIAREAL\naws_secret_access_key = real\naws_session_token = token\n"
        )
        (folder / "config").write_text(f"[profile dev]\nregion = eu-west-1\nendpoint_url = {aws.url}\n")
        variables = {
            "KFLOW_SERVICES__S3": shelf.url,
            "KFLOW_SERVICES__DYNAMODB": tables.url,
            "KFLOW_SERVICES__SECRETSMANAGER": closed,
            "KFLOW_SERVICES__STEPFUNCTIONS": "aws:dev",
            "KFLOW_SERVICES__S3CONTROL": shelf.url,
            "KFLOW_SERVICES__EVENTS": "aws:nobody",
            "KFLOW_SERVICES__SNS": tables.url,
            "KFLOW_SERVICES__IAM": "moto",
            "AWS_CONFIG_FILE": str(folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
            "AWS_ACCESS_KEY_ID": "AKIAOFTHESHELL",
            "AWS_SECRET_ACCESS_KEY": "shell",
        }
        with served(folder, **variables) as endpoint:
            yield Behind(endpoint, shelf, tables, aws)


def test_five_mebibytes_go_there_and_come_back(it: Behind) -> None:
    client = it.client("s3")
    body = os.urandom(FIVE_MIB)
    assert client.put_object(Bucket="photos", Key="a/b c+d", Body=body)["ETag"] == '"etag"'
    found = client.get_object(Bucket="photos", Key="a/b c+d")
    assert (found["ContentLength"], found["Body"].read() == body) == (FIVE_MIB, True)
    assert found["Metadata"] == {"color": "r\u00f6t"}
    assert [each.target for each in it.shelf.asked[-2:]] == ["/photos/a/b%20c%2Bd"] * 2
    client.close()


def test_requests_one_after_the_other_share_a_connection(it: Behind) -> None:
    client = it.client("s3")
    client.put_object(Bucket="kept", Key="k", Body=b"x" * 100_000)
    for _ in range(5):
        assert client.get_object(Bucket="kept", Key="k")["Body"].read() == b"x" * 100_000
    # a second one where an answer has come before its thread is free again
    assert len({each.peer for each in it.shelf.asked[-6:]}) <= 2
    client.close()


def test_a_head_says_the_length_of_what_is_there(it: Behind) -> None:
    client = it.client("s3")
    client.put_object(Bucket="heads", Key="k", Body=b"x" * 70_001)
    assert client.head_object(Bucket="heads", Key="k")["ContentLength"] == 70_001
    client.close()


def test_an_error_of_the_upstream_is_the_callers_error(it: Behind) -> None:
    client = it.client("s3")
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket="photos", Key="none")
    client.close()


def test_headers_go_through_but_for_those_between_neighbours(it: Behind) -> None:
    client = it.client("dynamodb")
    assert client.list_tables()["TableNames"] == ["DynamoDB_20120810.ListTables"]
    client.close()
    headers = it.tables.asked[-1].headers
    assert headers["host"] == it.tables.url.removeprefix("http://")
    assert "/us-east-1/dynamodb/aws4_request" in headers["authorization"]
    assert headers["content-type"] == "application/x-amz-json-1.0"
    assert not {"connection", "expect", "transfer-encoding"} & set(headers)


def test_a_bucket_in_the_host_name_moves_into_the_path(it: Behind) -> None:
    client = it.client("s3")
    client.put_object(Bucket="hosted", Key="k", Body=b"here")
    client.close()
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, Signature=0"}
    assert it.endpoint.get("/k", headers={"host": "hosted.localhost:4566", **signed}) == (200, b"here")


def test_a_link_that_was_signed_before_leads_there(it: Behind) -> None:
    client = it.client("s3")
    client.put_object(Bucket="links", Key="k", Body=b"linked")
    url = client.generate_presigned_url("get_object", Params={"Bucket": "links", "Key": "k"})
    client.close()
    assert it.endpoint.get(url.removeprefix(it.endpoint.url)) == (200, b"linked")


def test_an_upstream_that_is_not_there_is_a_502_in_the_services_protocol(it: Behind) -> None:
    client = it.client("secretsmanager")
    with pytest.raises(ClientError, match=r"cannot be reached, or breaks off: .*refused") as refused:
        client.list_secrets()
    client.close()
    assert refused.value.response["Error"]["Code"] == "UpstreamUnreachableException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 502


def test_an_answer_that_breaks_off_does_not_look_complete(it: Behind) -> None:
    def break_off(asked: Asked, handler: Any) -> None:
        del asked
        handler.send_response(200)
        handler.send_header("Content-Length", "200000")
        handler.end_headers()
        handler.wfile.write(b"x" * 150_000)
        handler.close_connection = True

    client = it.client("s3")
    before, it.shelf.answer = it.shelf.answer, break_off
    try:
        with pytest.raises((IncompleteReadError, ResponseStreamingError)):
            client.get_object(Bucket="b", Key="half")["Body"].read()
    finally:
        it.shelf.answer = before
        client.close()


def test_an_answer_in_chunks_that_breaks_off_does_not_look_complete(it: Behind) -> None:
    def break_off(asked: Asked, handler: Any) -> None:
        del asked
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nhello\r\n")
        handler.close_connection = True

    client = it.client("s3")
    before, it.shelf.answer = it.shelf.answer, break_off
    try:
        with pytest.raises(ResponseStreamingError):
            client.get_object(Bucket="b", Key="half")["Body"].read()
    finally:
        it.shelf.answer = before
        client.close()


def test_pieces_come_as_they_are_sent(it: Behind) -> None:
    taken: list[bytes] = []

    def dribble(asked: Asked, handler: Any) -> None:
        del asked
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for number in range(3):
            handler.wfile.write(b"1\r\n%d\r\n" % number)
            eventually(lambda number=number: len(taken) > number, what="the piece to arrive before the next is sent")
        handler.wfile.write(b"0\r\n\r\n")

    client = it.client("s3")
    before, it.shelf.answer = it.shelf.answer, dribble
    try:
        body = client.get_object(Bucket="b", Key="slow")["Body"]
        while piece := body.read(1):
            taken.append(piece)
    finally:
        it.shelf.answer = before
        client.close()
    assert taken == [b"0", b"1", b"2"]


def test_the_upstream_is_let_go_of_when_the_caller_goes_away(it: Behind) -> None:
    ended: list[bytes] = []

    def hang(asked: Asked, handler: Any) -> None:
        del asked
        ended.append(handler.connection.recv(1))  # until the other side closes
        handler.close_connection = True

    before, it.shelf.answer = it.shelf.answer, hang
    asked = len(it.shelf.asked)
    try:
        with socket.create_connection(it.endpoint.address) as caller:
            caller.sendall(
                b"GET /b/k HTTP/1.1\r\nHost: localhost\r\n"
                b"Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, Signature=0\r\n\r\n"
            )
            eventually(lambda: len(it.shelf.asked) > asked, what="the request to arrive")
        eventually(lambda: ended == [b""], what="the upstream's connection to be closed")
    finally:
        it.shelf.answer = before


def test_the_host_is_checked_before_anything_is_passed_on(it: Behind) -> None:
    asked = len(it.shelf.asked)
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, Signature=0"}
    status, _ = it.endpoint.get("/photos/k", headers={"host": "evil.example.org", **signed})
    assert (status, len(it.shelf.asked)) == (403, asked)


def test_a_service_that_kflow_speaks_goes_elsewhere_where_its_name_is_set(it: Behind) -> None:
    it.tables.answer = lambda asked, handler: respond(handler, 200, LISTED)
    try:
        client = it.client("sns")
        assert client.list_topics()["ResponseMetadata"]["HTTPStatusCode"] == 200
        client.close()
    finally:
        it.tables.answer = echo
    assert it.tables.asked[-1].body == b"Action=ListTopics&Version=2010-03-31"
    assert any(
        "calls of sns that come to the endpoint are not answered by kflow's own" in n for n in it.endpoint.notices()
    )


def test_the_services_that_kflow_speaks_are_its_own_otherwise(it: Behind) -> None:
    client = it.client("sqs")
    assert client.list_queues().get("QueueUrls", []) == []
    client.close()


LISTED = b"<ListTopicsResponse><ListTopicsResult><Topics/></ListTopicsResult></ListTopicsResponse>"


class Arrived:
    """A request as `Verifier` reads one."""

    def __init__(self, asked: Asked) -> None:
        self.method, self.target, self.headers, self.body = asked.method, asked.target, asked.headers, asked.body


class Key:
    secret = "real"
    token = "token"
    expires_ms = 1 << 60


class States:
    signing_name = "states"
    protocol = "json"


def test_calls_to_aws_are_signed_anew_with_the_named_profile_for_the_region_of_the_call(it: Behind) -> None:
    it.aws.answer = lambda asked, handler: respond(handler, 200, b'{"stateMachines":[]}')
    client = it.client("stepfunctions", region="eu-central-1")
    assert client.list_state_machines()["stateMachines"] == []
    client.close()
    asked = it.aws.asked[-1]
    assert "Credential=AKIAREAL/" in asked.headers["authorization"]
    assert "/eu-central-1/states/aws4_request" in asked.headers["authorization"]
    day, clock = asked.headers["x-amz-date"].rstrip("Z").split("T")
    now_ms = calendar.timegm(time.strptime(day + clock, "%Y%m%d%H%M%S")) * 1000
    verifier = Verifier({}, lambda: now_ms, lambda key: Key() if key == "AKIAREAL" else None)
    verifier.verify(Arrived(asked), States())  # type: ignore[arg-type]
    assert asked.headers["x-amz-security-token"] == "token"


def test_people_are_told_what_goes_to_aws(it: Behind) -> None:
    assert any(
        "calls of stepfunctions go to AWS itself, signed with profile 'dev'" in text for text in it.endpoint.notices()
    )


def test_a_profile_that_is_not_there_is_named(it: Behind) -> None:
    client = it.client("events")
    with pytest.raises(
        ClientError, match=r"profile 'nobody', which calls of events are signed with, cannot be used"
    ) as refused:
        client.list_rules()
    client.close()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_link_cannot_make_a_browser_act_on_aws(it: Behind) -> None:
    asked = len(it.aws.asked)
    status, body = it.endpoint.get(
        "/?Action=StopExecution&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/20260101/us-east-1/states/aws4_request"
    )
    assert (status, b"NotForwarded" in body or b"only what a program signed" in body) == (403, True)
    assert len(it.aws.asked) == asked


def test_moto_that_is_not_installed_is_said_with_the_command_that_installs_it(it: Behind) -> None:
    client = it.client("iam")
    with pytest.raises(ClientError, match=r"pip install 'kflow-streams\[moto\]'") as refused:
        client.list_users()
    client.close()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_a_slow_upstream_hurts_nobody_else(it: Behind) -> None:
    gate = threading.Event()

    def wait(asked: Asked, handler: Any) -> None:
        gate.wait(60)
        echo(asked, handler)

    it.tables.answer = wait
    callers = 40  # more than threads
    before = len(it.tables.asked)
    request = (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\nContent-Length: 2\r\n"
        b"Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/dynamodb/aws4_request, Signature=0\r\n\r\n{}"
    )
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(it.endpoint.address)) for _ in range(callers)]
        try:
            for each in waiting:
                each.sendall(request)
            eventually(lambda: len(it.tables.asked) >= before + 32, what="as many calls as there may be at once")
            client = it.client("s3")
            client.put_object(Bucket="quick", Key="k", Body=b"x")
            client.close()
            client = it.client("kinesis")
            assert client.list_streams()["StreamNames"] == []
            client.close()
        finally:
            it.tables.answer = echo
            gate.set()
        for each in waiting:
            each.settimeout(60)
            answer = each.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    assert len(it.tables.asked) == before + callers


def test_a_handler_calls_any_service_as_it_would_on_aws(tmp_path: Path) -> None:
    with upstream(Shelf()) as shelf:
        project = Project(tmp_path)
        (tmp_path / "kflow.toml").write_text(f"retry_backoff_scale = 0\nport = 0\n[services]\ns3 = '{shelf.url}'\n")
        project.handler(
            """\
            import boto3
            from kflow import Record, on_stream

            @on_stream("orders", timeout=60)
            def keep(record: Record[str]):
                boto3.client("s3").put_object(Bucket="kept", Key=record.partition_key, Body=record.value.encode())
            """
        )
        project.run("streams", "create", "orders")
        project.run("put", "orders", "hello", "--key", "k1")
        project.run("run", "--drain")
        assert shelf.asked[-1].target == "/kept/k1"
        assert shelf.asked[-1].body == b"hello"


def test_services_that_are_signed_alike_must_go_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "kflow.toml").write_text('[services]\ns3 = "moto"\ns3control = "http://127.0.0.1:1"\n')
    done = subprocess.run([*KFLOW, "serve"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "services.s3 and services.s3control must be the same" in done.stderr


def test_the_endpoint_does_not_pass_on_to_itself(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with served(tmp_path, KFLOW_PORT=str(port), KFLOW_SERVICES__DYNAMODB=f"http://127.0.0.1:{port}") as endpoint:
        client = endpoint.client(service="dynamodb")
        with pytest.raises(ClientError, match="leads back to this endpoint") as refused:
            client.list_tables()
        client.close()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 508


def test_the_other_end_may_speak_tls_and_be_a_kflow_itself(tmp_path: Path) -> None:
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    with served(far, "--tls") as behind:
        trusted = str(behind.data_dir / "tls" / "localhost.pem")
        with served(near, KFLOW_SERVICES__KINESIS=behind.url, SSL_CERT_FILE=trusted) as endpoint:
            client = endpoint.client()
            client.create_stream(StreamName="orders", ShardCount=1)
            client.put_record(StreamName="orders", Data=b"x", PartitionKey="k")
            assert client.list_streams()["StreamNames"] == ["orders"]
            client.close()
        assert not list((near / ".kflow" / "streams").glob("*/*"))
        assert list((behind.data_dir / "streams").glob("orders*"))


def test_with_strict_authentication_only_who_has_a_key_is_passed_on(tmp_path: Path) -> None:
    with (
        upstream(echo) as tables,
        served(
            tmp_path, KFLOW_AUTH="strict", KFLOW_ACCESS_KEYS__AKIAONE="one", KFLOW_SERVICES__DYNAMODB=tables.url
        ) as endpoint,
    ):
        good = endpoint.client(service="dynamodb", access_key="AKIAONE", secret="one")
        assert good.list_tables()["TableNames"] == ["DynamoDB_20120810.ListTables"]
        good.close()
        bad = endpoint.client(service="dynamodb", access_key="AKIAONE", secret="two")
        with pytest.raises(ClientError, match="signature we calculated does not match") as refused:
            bad.list_tables()
        bad.close()
        assert refused.value.response["Error"]["Code"] == "InvalidSignatureException"
        assert len(tables.asked) == 1
