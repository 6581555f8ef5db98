"""`kflow serve`: an AWS endpoint that SDKs talk to as they are, whose streams are the same as everybody else's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

import kflow
from tests import commanding
from tests.deadline import eventually
from tests.project import KFLOW, Project, project
from tests.served import ACCOUNT, Served, served


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


def read(client: Any, stream: str, shard: str = "shardId-000000000000") -> list[bytes]:
    """All payloads of a shard."""
    iterator = client.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    found: list[bytes] = []
    token = iterator["ShardIterator"]
    while token:
        page = client.get_records(ShardIterator=token, Limit=1000)
        found += [record["Data"] for record in page["Records"]]
        token = page.get("NextShardIterator") if page["MillisBehindLatest"] or page["Records"] else None
    return found


def refusal(call: Any, **arguments: Any) -> tuple[str, str, int]:
    """Code, message and status of the error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


# ---------------------------------------------------------------------- records


def test_boto3_creates_a_stream_puts_and_gets(endpoint: Served) -> None:
    kinesis = endpoint.client()

    kinesis.create_stream(StreamName="orders", ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName="orders", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    one = kinesis.put_record(StreamName="orders", Data=b"first", PartitionKey="k")
    many = kinesis.put_records(
        StreamName="orders", Records=[{"Data": b"%d" % n, "PartitionKey": str(n)} for n in range(20)]
    )

    assert one["ShardId"] == "shardId-000000000000"
    assert many["FailedRecordCount"] == 0
    assert read(kinesis, "orders") == [b"first", *(b"%d" % n for n in range(20))]
    assert kinesis.list_streams()["StreamNames"] == ["orders"]


def test_what_was_put_over_http_is_there_for_everybody_else_and_the_other_way_round(endpoint: Served) -> None:
    kinesis = endpoint.client()
    kinesis.create_stream(StreamName="orders", ShardCount=1)

    eventually(lambda: put_locally(endpoint.data_dir, b"from the socket"), what="the stream to take records")
    kinesis.put_record(StreamName="orders", Data=b"from http", PartitionKey="k")

    assert read(kinesis, "orders") == [b"from the socket", b"from http"]
    lines = run(endpoint, "tail", "orders", "--from", "trim_horizon", "--no-follow", "--json").stdout.splitlines()
    assert [json.loads(line)["data"] for line in lines] == ["from the socket", "from http"]


def put_locally(data_dir: Path, data: bytes) -> bool:
    """Put one record by the unix socket; whether that worked."""
    code = f"import kflow; kflow.put('orders', {data!r}, partition_key='k')"
    environment = {**os.environ, "KFLOW_DATA_DIR": str(data_dir), "KFLOW_TARGET": "local"}
    return subprocess.run([KFLOW[0], "-c", code], env=environment, check=False, timeout=60).returncode == 0


def run(endpoint: Served, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A command line in the endpoint's folder."""
    done = commanding.run(arguments, cwd=endpoint.folder, env=endpoint.environment)
    assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done


def test_everything_is_there_after_a_restart(endpoint: Served) -> None:
    kinesis = endpoint.client()
    kinesis.create_stream(StreamName="orders", ShardCount=2)
    for key in range(10):
        kinesis.put_record(StreamName="orders", Data=b"%d" % key, PartitionKey=str(key))
    before = kinesis.describe_stream(StreamName="orders")["StreamDescription"]

    assert endpoint.stop() == 130
    endpoint.start()
    kinesis = endpoint.client()

    assert kinesis.describe_stream(StreamName="orders")["StreamDescription"] == before
    shards = [shard["ShardId"] for shard in before["Shards"]]
    found = [data for shard in shards for data in read(kinesis, "orders", shard)]
    assert sorted(found) == sorted(b"%d" % key for key in range(10))


def test_an_unknown_stream_is_refused_in_awss_words(endpoint: Served) -> None:
    kinesis = endpoint.client()
    assert refusal(kinesis.put_record, StreamName="none", Data=b"x", PartitionKey="k") == (
        "ResourceNotFoundException",
        f"Stream none under account {ACCOUNT} not found.",
        400,
    )


# ---------------------------------------------------------------------- places


def test_accounts_and_regions_are_apart_and_a_stream_that_is_elsewhere_is_said_in_the_log(endpoint: Served) -> None:
    here, there = endpoint.client(), endpoint.client(region="eu-west-1", access_key="999999999999")
    there.create_stream(StreamName="orders", ShardCount=1)
    eventually(lambda: there.list_streams()["StreamNames"] == ["orders"], what="the stream to be listed")

    assert here.list_streams()["StreamNames"] == []
    code, _, _ = refusal(here.describe_stream, StreamName="orders")
    assert code == "ResourceNotFoundException"
    wanted = (
        "stream orders was asked for in us-east-1 of account 123456789012, and is in eu-west-1 of account 999999999999"
    )
    eventually(lambda: [text for text in endpoint.notices() if text.startswith(wanted)], what="the notice")
    refusal(here.describe_stream, StreamName="orders")
    assert len([text for text in endpoint.notices() if text.startswith(wanted)]) == 1


SPOKEN = "kinesis, sqs, cloudwatch, lambda, logs, sns, sts"


@pytest.mark.parametrize(
    ("service", "operation"),
    [("dynamodb", "list_tables"), ("firehose", "list_delivery_streams"), ("s3", "list_buckets")],
)
def test_a_service_that_is_not_spoken_is_refused_by_name_and_said_in_the_log(
    endpoint: Served, service: str, operation: str
) -> None:
    client = endpoint.client(service=service)
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            getattr(client, operation)()
        if service != "s3":  # whose SDK looks for an error of another form
            assert f"kflow has no {service}: this endpoint speaks {SPOKEN} only" in str(caught.value)
    wanted = f"a call of {service} came to the endpoint, and was refused: kflow speaks {SPOKEN} only"
    told = eventually(lambda: [text for text in endpoint.notices() if text.startswith(wanted)], what="the notice")
    assert len(told) == 1


# ---------------------------------------------------------------------- its own pages


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists a process's children")
def test_it_is_one_process(endpoint: Served) -> None:
    pid = endpoint.process.pid
    children = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in os.listdir(f"/proc/{pid}/task")]
    assert "".join(children) == ""


def test_health_says_what_is_served(endpoint: Served) -> None:
    status, body = endpoint.get("/_kflow/health")
    assert status == 200
    answer = json.loads(body)
    assert answer["status"] == "ok"
    assert answer["services"] == dict.fromkeys(SPOKEN.split(", "), "running")
    assert answer["project"] == str(endpoint.folder)
    assert answer["version"] == "0.1.0"


def test_the_page_for_people_names_the_streams(endpoint: Served) -> None:
    endpoint.client().create_stream(StreamName="orders", ShardCount=3)
    status, body = eventually(
        lambda: (found := endpoint.get("/_kflow/")) and b"ACTIVE" in found[1] and found, what="the stream on the page"
    )
    assert status == 200
    assert b"<td>orders</td><td>us-east-1</td><td>123456789012</td><td>ACTIVE</td><td>3</td>" in body


def test_reset_is_refused_unless_it_is_allowed(endpoint: Served) -> None:
    assert endpoint.get("/_kflow/reset", method="POST")[0] == 403


def test_reset_empties_everything_everywhere(tmp_path: Path) -> None:
    with served(tmp_path, "--allow-reset") as endpoint:
        clients = [endpoint.client(), endpoint.client(region="eu-west-1")]
        for client in clients:
            client.create_stream(StreamName="orders", ShardCount=1)
            eventually(lambda c=client: c.list_streams()["StreamNames"] == ["orders"], what="the stream")
        clients[0].put_record(StreamName="orders", Data=b"x", PartitionKey="k")

        assert endpoint.get("/_kflow/reset", method="POST")[0] == 200

        assert [client.list_streams()["StreamNames"] for client in clients] == [[], []]
        clients[0].create_stream(StreamName="orders", ShardCount=1)
        eventually(lambda: clients[0].list_streams()["StreamNames"] == ["orders"], what="the stream anew")
        assert read(clients[0], "orders") == []


def test_a_page_of_another_site_cannot_empty_the_data(tmp_path: Path) -> None:
    with served(tmp_path, "--allow-reset") as endpoint:
        headers = {"Origin": "https://example.org"}
        assert endpoint.get("/_kflow/reset", method="POST", headers=headers)[0] == 403
        assert endpoint.get("/_kflow/health", headers={"Host": "example.org"})[0] == 403


# ---------------------------------------------------------------------- port, environment, tools


def test_a_port_that_is_set_and_taken_ends_it_with_the_holders_process(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*KFLOW, "serve", "--port", str(port), "--data-dir", str(tmp_path / "data")],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if not name.startswith("KFLOW_")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    who = f"process {os.getpid()} (" if sys.platform == "linux" else "another process"
    assert done.stderr.startswith(f"error: port {port} is held by {who}")


def test_the_url_is_kept_for_tools_while_it_runs(endpoint: Served) -> None:
    assert (endpoint.data_dir / "endpoint").read_text() == f"{endpoint.url}\n"
    assert json.loads(run(endpoint, "status", "--json").stdout)["runtime"]["endpoint"] == endpoint.url
    assert f"  endpoint {endpoint.url}" in run(endpoint, "status").stdout
    told = json.loads(run(endpoint, "env", "--json").stdout)
    assert told["set"]["AWS_ENDPOINT_URL"] == endpoint.url
    assert "AWS_PROFILE" in told["unset"]

    endpoint.kill()
    assert run(endpoint, "env", code=2).stdout == ""
    endpoint.start()
    endpoint.stop()

    assert not (endpoint.data_dir / "endpoint").exists()
    assert run(endpoint, "env", code=2).stderr == (
        "error: nothing runs, and with port 0 nobody knows where it will: start `kflow serve` first\n"
    )


def test_env_lines_point_a_shell_at_the_endpoint(endpoint: Served) -> None:
    code = (
        "import boto3, os; print(os.environ.get('AWS_PROFILE'), boto3.client('kinesis').list_streams()['StreamNames'])"
    )
    script = f'eval "$({KFLOW[0]} -m kflow env)"; exec {KFLOW[0]} -c "{code}"'
    environment = {**endpoint.environment, "AWS_PROFILE": "production", "HTTP_PROXY": "http://127.0.0.1:1"}
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=endpoint.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("None []\n", "")


def test_a_reset_makes_the_streams_of_handlers_anew(site: Project) -> None:
    site.handler(
        """
        from kflow import Record, on_stream

        @on_stream("orders")
        def see(record: Record):
            note(data=record.data.decode())
        """
    )
    site.start("--allow-reset")
    site.run("put", "orders", "before")
    site.wait_for(lambda: site.seen(data="before"), "the first record")
    url = site.url

    request = urllib.request.Request(f"{url}/_kflow/reset", method="POST")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
        assert response.status == 200
    site.run("put", "orders", "after")

    site.wait_for(lambda: site.seen(data="after"), "the record behind the reset")
    assert [note["data"] for note in site.seen()] == ["before", "after"]
    (stream,) = site.json("streams", "list")
    assert stream["records"] == 1


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def test_a_handler_reaches_the_endpoint_of_its_own_runtime(site: Project) -> None:
    site.handler(
        """
        import boto3
        from kflow import Record, on_stream

        @on_stream("orders")
        def forward(record: Record):
            client = boto3.client("kinesis")
            client.put_record(StreamName="billed", Data=record.data, PartitionKey=record.partition_key)
            note(endpoint=client.meta.endpoint_url)

        @on_stream("billed")
        def billed(record: Record):
            note(billed=record.data.decode())
        """
    )
    process = site.start()
    site.run("put", "orders", "one")

    site.wait_for(lambda: site.seen(billed="one"), "the record to come round")

    (where,) = [note["endpoint"] for note in site.seen() if "endpoint" in note]
    assert where == site.url
    assert f"   {where}\n" in site.output()
    assert site.stop(process) == 130


# ---------------------------------------------------------------------- its end


def test_a_handler_that_runs_at_the_end_still_reaches_the_endpoint(site: Project) -> None:
    site.handler(
        f"""
        import boto3, os, time
        from kflow import Record, on_stream

        @on_stream("orders", timeout=60)
        def forward(record: Record):
            note(what="begun")
            while not os.path.exists({str(site.folder / "go")!r}):
                time.sleep(0.01)
            boto3.client("kinesis").put_record(StreamName="billed", Data=b"late", PartitionKey="k")
        """
    )
    site.run("streams", "create", "billed")
    process = site.start()
    site.run("put", "orders", "one")
    site.wait_for(lambda: site.seen(what="begun"), "the handler to run")

    process.send_signal(signal.SIGINT)
    site.wait_for(lambda: site.json("status")["runtime"]["stopping"], "the runtime to stop")
    (site.folder / "go").touch()

    assert process.wait(60) == 130
    tail = site.run("tail", "billed", "--from", "trim_horizon", "--no-follow", "--json").stdout
    assert [json.loads(line)["data"] for line in tail.splitlines()] == ["late"]


def raw(endpoint: Served, operation: str, given: dict[str, Any], held_back: int = 0) -> socket.socket:
    """A connection on which a request was sent, less its last bytes."""
    place = urlsplit(endpoint.url)
    body = json.dumps(given, separators=(",", ":")).encode()
    head = (
        f"POST / HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/x-amz-json-1.1\r\n"
        f"X-Amz-Target: Kinesis_20131202.{operation}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    connection = socket.create_connection((place.hostname or "", place.port or 0), timeout=30)
    connection.sendall(head + body[: len(body) - held_back])
    return connection


def everything(connection: socket.socket) -> bytes:
    """All that is received up to the end, on a connection that is closed then."""
    with connection:
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def test_an_answer_that_is_under_way_is_finished_before_the_end(endpoint: Served) -> None:
    """A request whose body is still on its way at the signal is read, stored and answered."""
    endpoint.client().create_stream(StreamName="orders", ShardCount=1)
    kinesis = endpoint.client()
    eventually(lambda: kinesis.list_streams()["StreamNames"] == ["orders"], what="the stream")
    connection = raw(endpoint, "PutRecord", {"StreamName": "orders", "Data": "eA==", "PartitionKey": "k"}, held_back=10)
    endpoint.get("/_kflow/health")  # what was sent before is read by now
    endpoint.process.send_signal(signal.SIGTERM)
    eventually(lambda: refuses(*connection.getpeername()), what="no new connection to be taken")
    connection.sendall(b'nKey":"k"}')
    answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"SequenceNumber"' in answer
    assert endpoint.process.wait(60) == 0
    endpoint.start()
    assert read(endpoint.client(), "orders") == [b"x"]


def test_subscriptions_and_long_polls_end_without_an_error_when_it_ends(endpoint: Served) -> None:
    kinesis = endpoint.client()
    kinesis.create_stream(StreamName="orders", ShardCount=1)
    kinesis.create_stream(StreamName="jobs", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    names = ("orders", "jobs")
    eventually(lambda: sorted(kinesis.list_streams()["StreamNames"]) == sorted(names), what="the streams")
    arns = {name: kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"] for name in names}
    consumer = kinesis.register_stream_consumer(StreamARN=arns["orders"]["StreamARN"], ConsumerName="fast")["Consumer"]
    start = {"StreamARN": arns["jobs"]["StreamARN"], "StartingPosition": {"Type": "TRIM_HORIZON"}}
    queue = kinesis.create_queue(QueueName="work", StreamConfigurationList=[start])["QueueDescription"]["QueueARN"]
    eventually(
        lambda: kinesis.describe_queue(QueueARN=queue)["QueueDescription"]["QueueStatus"] == "ACTIVE", what="the queue"
    )
    events = kinesis.subscribe_to_shard(
        ConsumerARN=consumer["ConsumerARN"],
        ShardId="shardId-000000000000",
        StartingPosition={"Type": "LATEST"},
    )["EventStream"]
    poll = raw(endpoint, "ReceiveQueueRecords", {"QueueARN": queue, "WaitTimeSeconds": 20})
    endpoint.get("/_kflow/health")  # what was sent before is read by now
    kinesis.put_record(StreamName="orders", Data=b"x", PartitionKey="k")
    received = 0
    for event in events:
        received += len(event["SubscribeToShardEvent"]["Records"])
        if received and endpoint.process.poll() is None:
            endpoint.process.send_signal(signal.SIGTERM)  # the loop ends, because the server ends the stream

    assert received == 1
    assert everything(poll).endswith(b'{"QueueRecords":[]}')
    assert endpoint.process.wait(60) == 0


def refuses(host: str, port: int) -> bool:
    """Whether nobody listens there any more."""
    try:
        socket.create_connection((host, port), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


# ---------------------------------------------------------------------- calls by the unix socket


def test_this_machines_own_clients_call_operations_without_http(endpoint: Served) -> None:
    from kflow.broker import folder, handshake, linking, wirecalls

    link = linking.connect(folder.socket_path(endpoint.data_dir), handshake.own_hello(""))
    try:

        def call(operation: str, **parameters: Any) -> wirecalls.CallAnswer:
            return link.call(1, wirecalls.Call(service="kinesis", operation=operation, parameters=parameters))

        assert call("CreateStream", StreamName="orders", ShardCount=1).error is None
        eventually(lambda: call("ListStreams").output["StreamNames"] == ["orders"], what="the stream")
        put = call("PutRecord", StreamName="orders", Data=b"\x00\xff", PartitionKey="k")
        assert put.output["ShardId"] == "shardId-000000000000"
        iterator = call(
            "GetShardIterator",
            StreamName="orders",
            ShardId="shardId-000000000000",
            ShardIteratorType="TRIM_HORIZON",
        ).output["ShardIterator"]
        (record,) = call("GetRecords", ShardIterator=iterator).output["Records"]
        assert (record["Data"], record["PartitionKey"]) == (b"\x00\xff", "k")

        missing = call("PutRecord", StreamName="none", Data=b"", PartitionKey="k")
        assert missing.error == wirecalls.CallError(
            code="ResourceNotFoundException", message=f"Stream none under account {ACCOUNT} not found.", status=400
        )
        unknown = call("PutRecrod")
        assert unknown.error is not None
        assert unknown.error.code == "UnknownOperationException"
        with pytest.raises(kflow.UsageError, match="serves no s4"):
            link.call(2, wirecalls.Call(service="s4", operation="PutObject", parameters={}))
    finally:
        link.close()


# ---------------------------------------------------------------------- switches


def test_faults_of_the_command_line_meet_clients(tmp_path: Path) -> None:
    faults = ("kinesis.ListStreams: InternalFailure", "kinesis.PutRecords: 50% ProvisionedThroughputExceeded")
    with served(tmp_path, *(word for fault in faults for word in ("--fault", fault))) as endpoint:
        kinesis = endpoint.client()
        kinesis.create_stream(StreamName="orders", ShardCount=1)
        eventually(lambda: kinesis.describe_stream(StreamName="orders"), what="the stream")

        code, _, status = refusal(kinesis.list_streams)
        assert (code, status) == ("InternalFailure", 500)
        answer = kinesis.put_records(
            StreamName="orders", Records=[{"Data": b"%d" % n, "PartitionKey": "k"} for n in range(100)]
        )
        throttled = [each["ErrorCode"] for each in answer["Records"] if "ErrorCode" in each]
        assert set(throttled) == {"ProvisionedThroughputExceededException"}
        assert 20 < len(throttled) == answer["FailedRecordCount"] < 80
        assert len(read(kinesis, "orders")) == 100 - len(throttled)


def test_a_fault_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [*KFLOW, "serve", "--port", "0", "--fault", "kinesis.PutRecrods: 5% InternalFailure"],
        cwd=tmp_path,
        env={"KFLOW_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: fault 'kinesis.PutRecrods: 5% InternalFailure': kinesis has no operation PutRecrods; "
        "did you mean PutRecords?\n"
    )
    assert not (tmp_path / "data" / "endpoint").exists()


def test_strict_authentication_takes_the_keys_of_the_settings_and_no_others(tmp_path: Path) -> None:
    with served(tmp_path, KFLOW_AUTH="strict", KFLOW_ACCESS_KEYS__AKIAONE="one") as endpoint:
        assert endpoint.client(access_key="AKIAONE", secret="one").list_streams()["StreamNames"] == []
        code, _, _ = refusal(endpoint.client(access_key="AKIAONE", secret="two").list_streams)
        assert code == "InvalidSignatureException"
        code, _, _ = refusal(endpoint.client(access_key="AKIATWO", secret="one").list_streams)
        assert code == "UnrecognizedClientException"
        assert endpoint.get("/_kflow/health")[0] == 200
        assert "export AWS_ACCESS_KEY_ID=AKIAONE" in run(endpoint, "env").stdout


def test_whoever_listens_to_the_network_without_authentication_is_warned(tmp_path: Path) -> None:
    with served(tmp_path, "--bind", "0.0.0.0") as endpoint:
        assert endpoint.url.startswith("http://127.0.0.1:")
        warning = "the endpoint listens at 0.0.0.0, and whoever reaches it may read and change everything: "
        eventually(lambda: [text for text in endpoint.notices() if text.startswith(warning)], what="the warning")
        assert endpoint.get("/_kflow/health", headers={"Host": "kflow.internal"})[0] == 200


def test_tls_and_plain_text_are_served_at_one_port_by_a_certificate_of_its_own(tmp_path: Path) -> None:
    with served(tmp_path, KFLOW_TLS="true") as endpoint:
        assert endpoint.url.startswith("https://127.0.0.1:")
        told = json.loads(run(endpoint, "env", "--json").stdout)["set"]
        assert told["AWS_ENDPOINT_URL"] == endpoint.url
        for url in (
            endpoint.url,
            endpoint.url.replace("https:", "http:"),
            endpoint.url.replace("127.0.0.1", "localhost"),
        ):
            kinesis = endpoint.client(endpoint_url=url, verify=told["AWS_CA_BUNDLE"])
            assert kinesis.list_streams()["StreamNames"] == []


def test_whoever_may_not_read_is_shown_no_streams_and_an_open_reset_is_warned_of(tmp_path: Path) -> None:
    keys = {"KFLOW_AUTH": "strict", "KFLOW_ACCESS_KEYS__AKIAONE": "one"}
    with served(tmp_path, "--bind", "0.0.0.0", "--allow-reset", **keys) as endpoint:
        endpoint.client(access_key="AKIAONE", secret="one").create_stream(StreamName="orders", ShardCount=1)
        status, body = endpoint.get("/_kflow/")
        assert status == 200
        assert b"orders" not in body
        wanted = "the endpoint listens at 0.0.0.0, and whoever reaches it may empty it by /_kflow/reset"
        eventually(lambda: [text for text in endpoint.notices() if text.startswith(wanted)], what="the warning")
