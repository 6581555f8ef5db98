"""Event source mappings that a client makes: what they deliver, and what becomes of them while things change."""

from __future__ import annotations

import itertools
import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.clock import ManualClock
from tests import commanding
from tests.deadline import eventually
from tests.lambdaing import zipped
from tests.project import Project
from tests.served import ACCOUNT, Served, served
from tests.storing import held

_CODE = """
import base64, json, os, pathlib, time
from kflow import on_stream

FD = os.open({seen!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
HOLD = pathlib.Path({hold!r})

def note(**fields):
    os.write(FD, json.dumps(fields).encode() + b"\\n")

def run(name, event):
    datas = [base64.b64decode(each["kinesis"]["data"]).decode() for each in event["Records"]]
    sources = sorted({{each["eventSourceARN"] for each in event["Records"]}})
    shards = sorted({{each["eventID"].partition(":")[0] for each in event["Records"]}})
    note(what="begin", function=name, datas=datas, sources=sources, shards=shards, at=time.monotonic())
    while (HOLD / name).exists():
        time.sleep(0.005)
    if (HOLD / (name + "-fails")).exists():
        note(what="failed", function=name, datas=datas)
        raise ValueError("not now")
    note(what="end", function=name, datas=datas, at=time.monotonic())

@on_stream("declared")
def declared(event, context):
    run("declared", event)

@on_stream("unused")
def bill(event, context):
    run("bill", event)

@on_stream("unused")
def ship(event, context):
    run("ship", event)

@on_stream("unused")
def never(event, context):
    run("never", event)

@on_stream("unused")
def slow(event, context):
    time.sleep(0.02)
    run("slow", event)
"""


class Shop:
    """A runtime with decorated handlers, and clients of it."""

    def __init__(self, node: Served) -> None:
        self.node = node
        self.seen_file = node.folder / "seen.jsonl"
        self.hold = node.folder / "hold"
        self._clients: dict[tuple[str, str], Any] = {}

    @property
    def kinesis(self) -> Any:
        return self._client("kinesis")

    @property
    def functions(self) -> Any:
        return self._client("lambda")

    def _client(self, service: str) -> Any:
        """One of this life of the node: each has a port of its own, and a client takes its time."""
        key = (service, self.node.url)
        if key not in self._clients:
            self._clients[key] = self.node.client(service=service)
        return self._clients[key]

    def stream(self, name: str, shards: int = 1) -> str:
        """A new stream's ARN."""
        self.kinesis.create_stream(StreamName=name, ShardCount=shards)
        self.kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 500})
        return f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{name}"

    def map(self, function: str, source: str, **options: Any) -> str:
        """A mapping's UUID, once it is enabled."""
        given = {"StartingPosition": "TRIM_HORIZON", **options}
        made = self.functions.create_event_source_mapping(FunctionName=function, EventSourceArn=source, **given)
        self.wait_for_state(made["UUID"], "Enabled" if given.get("Enabled", True) else "Disabled")
        return str(made["UUID"])

    def update(self, uuid: str, **changes: Any) -> None:
        """Have something changed, and wait until it is."""
        self.functions.update_event_source_mapping(UUID=uuid, **changes)
        self.wait(lambda: self.state(uuid) in {"Enabled", "Disabled"}, "the update to be done")

    def state(self, uuid: str) -> str:
        return str(self.functions.get_event_source_mapping(UUID=uuid)["State"])

    def wait_for_state(self, uuid: str, state: str) -> None:
        self.wait(lambda: self.state(uuid) == state, f"the mapping to be {state}")

    def put(self, stream: str, *datas: str, key: str | None = None) -> None:
        for data in datas:
            self.kinesis.put_record(StreamName=stream, Data=data.encode(), PartitionKey=key or data)

    def notes(self, what: str, function: str) -> list[dict[str, Any]]:
        lines = self.seen_file.read_text().split("\n")[:-1] if self.seen_file.exists() else []
        found = [json.loads(line) for line in lines]
        return [each for each in found if (each["what"], each["function"]) == (what, function)]

    def datas(self, function: str, prefix: str, what: str = "end") -> list[str]:
        """Payloads that begin so, in the order in which a function had them."""
        return [data for note in self.notes(what, function) for data in note["datas"] if data.startswith(prefix)]

    def counted(self, uuid: str, name: str) -> float:
        """The sum of a metric of a mapping."""
        when = {"StartTime": time.time() - 3600, "EndTime": time.time() + 3600}
        dimensions = [{"Name": "EventSourceMappingUUID", "Value": uuid}]
        points = self._client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Lambda", MetricName=name, Dimensions=dimensions, Period=7200, Statistics=["Sum"], **when
        )["Datapoints"]
        return float(sum(each["Sum"] for each in points))

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        try:
            return eventually(condition, seconds=60, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.node.output}") from None

    def status(self) -> Any:
        done = commanding.run(["status", "--json"], cwd=self.node.folder, env=self.node.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder: Path = tmp_path_factory.mktemp("shop")
    (folder / "kflow.toml").write_text(
        "retry_backoff_scale = 0.05\n[functions.never]\nreserved_concurrent_executions = 0\n"
    )
    (folder / "functions").mkdir()
    (folder / "hold").mkdir()
    code = textwrap.dedent(_CODE).format(seen=str(folder / "seen.jsonl"), hold=str(folder / "hold"))
    (folder / "functions" / "app.py").write_text(code)
    with served(folder, command="run") as node:
        yield Shop(node)


def test_records_reach_a_decorated_handler_by_a_mapping_that_a_client_made(shop: Shop) -> None:
    source = shop.stream("first")
    shop.put("first", "first-0")
    uuid = shop.map("bill", source, StartingPosition="LATEST")
    found = [f"first-{n}" for n in range(1, 6)]
    shop.put("first", *found)

    shop.wait(lambda: len(shop.datas("bill", "first-")) == 5, "the records after the mapping")

    assert shop.datas("bill", "first-") == found
    assert shop.notes("end", "bill")
    assert shop.notes("begin", "bill")[-1]["sources"] == [source]
    shop.wait(lambda: shop.functions.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == "OK", "the result")
    (handler,) = [each for each in shop.status()["handlers"] if (each["function"], each["stream"]) == ("bill", "first")]
    assert handler["lanes"][0]["succeeded"] == 5


def test_disabled_means_that_nothing_runs_and_enabled_goes_on_after_the_last_settled_record(shop: Shop) -> None:
    source = shop.stream("paused")
    uuid = shop.map("bill", source, BatchSize=1)
    shop.put("paused", "paused-1")
    shop.wait(lambda: shop.datas("bill", "paused-") == ["paused-1"], "the first record")
    (shop.hold / "bill").touch()
    shop.put("paused", "paused-2", "paused-3")
    shop.wait(lambda: "paused-2" in shop.datas("bill", "paused-", "begin"), "the attempt")

    answer = shop.functions.update_event_source_mapping(UUID=uuid, Enabled=False)

    assert (answer["State"], shop.state(uuid)) == ("Disabling", "Disabling")
    with pytest.raises(ClientError, match="because it is in use"):
        shop.functions.update_event_source_mapping(UUID=uuid, Enabled=True)
    (shop.hold / "bill").unlink()
    shop.wait_for_state(uuid, "Disabled")
    assert shop.datas("bill", "paused-") == ["paused-1", "paused-2"]
    shop.update(uuid, Enabled=True, BatchSize=10)
    shop.put("paused", "paused-4")
    shop.wait(lambda: len(shop.datas("bill", "paused-")) == 4, "the rest")
    assert shop.datas("bill", "paused-", "begin") == ["paused-1", "paused-2", "paused-3", "paused-4"]


def test_a_deleted_mapping_delivers_nothing_and_a_new_one_begins_at_its_starting_position(shop: Shop) -> None:
    source = shop.stream("gone")
    uuid = shop.map("bill", source)
    shop.put("gone", "gone-1")
    shop.wait(lambda: shop.datas("bill", "gone-") == ["gone-1"], "the record")

    assert shop.functions.delete_event_source_mapping(UUID=uuid)["State"] == "Deleting"
    shop.wait(
        lambda: not shop.functions.list_event_source_mappings(EventSourceArn=source)["EventSourceMappings"], "its end"
    )
    shop.put("gone", "gone-2")
    shop.map("bill", source)

    shop.wait(lambda: len(shop.datas("bill", "gone-")) == 3, "all of it again")
    assert shop.datas("bill", "gone-") == ["gone-1", "gone-1", "gone-2"]


def test_a_mapping_moves_to_another_function_and_goes_on_where_it_stood(shop: Shop) -> None:
    source = shop.stream("moved")
    uuid = shop.map("bill", source)
    shop.put("moved", "moved-1")
    shop.wait(lambda: shop.datas("bill", "moved-") == ["moved-1"], "the record")

    shop.update(uuid, FunctionName="ship")
    shop.put("moved", "moved-2")

    shop.wait(lambda: shop.datas("ship", "moved-") == ["moved-2"], "the next record")
    assert shop.datas("bill", "moved-") == ["moved-1"]
    answer = shop.functions.get_event_source_mapping(UUID=uuid)
    assert answer["FunctionArn"] == f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:ship"


def test_a_mapping_of_a_registered_consumer_names_it_in_its_events(shop: Shop) -> None:
    source = shop.stream("fanned")
    consumer = shop.kinesis.register_stream_consumer(StreamARN=source, ConsumerName="fan")["Consumer"]["ConsumerARN"]
    shop.map("ship", consumer)
    shop.put("fanned", "fanned-1")

    shop.wait(lambda: shop.datas("ship", "fanned-") == ["fanned-1"], "the record")

    (begin,) = [each for each in shop.notes("begin", "ship") if each["datas"] == ["fanned-1"]]
    assert begin["sources"] == [consumer]


def test_shards_that_a_split_makes_are_read_by_a_mapping_in_order(shop: Shop) -> None:
    source = shop.stream("split")
    shop.map("bill", source, BatchSize=3)
    shop.put("split", *[f"split-{n}" for n in range(10)], key="k")
    shop.kinesis.split_shard(StreamName="split", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127))
    shop.wait(
        lambda: len(shop.kinesis.list_shards(StreamName="split", ShardFilter={"Type": "AT_LATEST"})["Shards"]) == 2,
        "the split",
    )
    shop.put("split", *[f"split-{n}" for n in range(10, 20)], key="k")

    shop.wait(lambda: len(shop.datas("bill", "split-")) == 20, "all records")

    assert shop.datas("bill", "split-") == [f"split-{n}" for n in range(20)]
    shop.map("ship", source, BatchSize=7)  # TRIM_HORIZON: the closed shard and its children
    shop.wait(lambda: len(shop.datas("ship", "split-")) == 20, "all records once more")
    assert shop.datas("ship", "split-") == [f"split-{n}" for n in range(20)]


def test_reserved_concurrency_holds_over_all_shards_and_0_stops_everything(shop: Shop) -> None:
    source = shop.stream("limited", shards=4)
    shop.functions.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=0)
    uuid = shop.map("slow", source, BatchSize=2, MaximumRetryAttempts=0)
    found = {f"limited-{n}" for n in range(24)}
    shop.put("limited", *sorted(found))
    assert shop.datas("slow", "limited-", "begin") == []
    assert shop.functions.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == "No records processed"
    with pytest.raises(ClientError) as caught:
        shop.functions.invoke(FunctionName="slow", Payload=b"{}")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429

    shop.functions.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=1)

    shop.wait(lambda: set(shop.datas("slow", "limited-")) == found, "all records")
    spans = sorted(
        (begin["at"], end["at"])
        for begin, end in zip(
            sorted(shop.notes("begin", "slow"), key=lambda note: note["datas"]),
            sorted(shop.notes("end", "slow"), key=lambda note: note["datas"]),
            strict=True,
        )
    )
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    shop.functions.delete_function_concurrency(FunctionName="slow")


def test_records_of_different_shards_are_never_in_one_event(shop: Shop) -> None:
    source = shop.stream("apart", shards=3)
    found = {f"apart-{n}" for n in range(30)}
    shop.put("apart", *sorted(found))
    shop.map("ship", source)

    shop.wait(lambda: set(shop.datas("ship", "apart-")) == found, "all records")

    shards = [each["shards"] for each in shop.notes("begin", "ship") if each["datas"][0] in found]
    assert {len(each) for each in shards} == {1}
    assert {each for (each,) in shards} == {f"shardId-{index:012}" for index in range(3)}


def test_changes_are_accepted_with_202_and_times_are_seconds(shop: Shop) -> None:
    functions = shop.functions
    source = shop.stream("accepted")
    made = functions.create_event_source_mapping(FunctionName="bill", EventSourceArn=source, StartingPosition="LATEST")
    uuid = made["UUID"]
    shop.wait_for_state(uuid, "Enabled")
    status, body = shop.node.get(f"/2015-03-31/event-source-mappings/{uuid}")
    assert (status, isinstance(json.loads(body)["LastModified"], int | float)) == (200, True)
    assert json.loads(body)["LastModified"] == made["LastModified"].timestamp()
    changed = functions.update_event_source_mapping(UUID=uuid, BatchSize=3)
    shop.wait_for_state(uuid, "Enabled")
    deleted = functions.delete_event_source_mapping(UUID=uuid)
    assert [each["ResponseMetadata"]["HTTPStatusCode"] for each in (made, changed, deleted)] == [202, 202, 202]
    assert (deleted["UUID"], deleted["State"], deleted["BatchSize"]) == (uuid, "Deleting", 3)


def test_the_settings_reserve_concurrency_until_somebody_sets_another(shop: Shop) -> None:
    source = shop.stream("never")
    shop.map("never", source)
    shop.put("never", "never-1")
    with pytest.raises(ClientError, match="TooManyRequestsException"):
        shop.functions.invoke(FunctionName="never", Payload=b"{}")
    assert shop.datas("never", "never-", "begin") == []

    shop.functions.put_function_concurrency(FunctionName="never", ReservedConcurrentExecutions=2)

    shop.wait(lambda: shop.datas("never", "never-") == ["never-1"], "the record")
    shop.functions.delete_function_concurrency(FunctionName="never")
    with pytest.raises(ClientError, match="TooManyRequestsException"):
        shop.functions.invoke(FunctionName="never", Payload=b"{}")


def test_the_trigger_of_a_decorated_handler_is_listed_and_switched(shop: Shop) -> None:
    (found,) = shop.functions.list_event_source_mappings(FunctionName="declared")["EventSourceMappings"]
    uuid = found["UUID"]
    assert found["EventSourceArn"].endswith(":stream/declared")
    shop.update(uuid, Enabled=False)
    shop.put("declared", "declared-1")
    shop.node.kill()
    shop.node.start()
    assert shop.state(uuid) == "Disabled"
    assert shop.datas("declared", "declared-", "begin") == []

    shop.update(uuid, Enabled=True)

    shop.wait(lambda: shop.datas("declared", "declared-") == ["declared-1"], "the record")
    with pytest.raises(ClientError, match=r"declared at .*functions/app\.py:\d+: remove it there"):
        shop.functions.delete_event_source_mapping(UUID=uuid)


def test_a_mapping_goes_on_after_kill_9_and_nothing_is_lost(shop: Shop) -> None:
    source = shop.stream("killed")
    uuid = shop.map("bill", source, StartingPosition="LATEST", BatchSize=1)
    shop.put("killed", "killed-1")
    shop.wait(lambda: shop.datas("bill", "killed-") == ["killed-1"], "the first record")
    (shop.hold / "bill").touch()
    shop.put("killed", "killed-2", "killed-3")
    shop.wait(lambda: "killed-2" in shop.datas("bill", "killed-", "begin"), "the attempt")
    shop.node.kill()
    (shop.hold / "bill").unlink()

    shop.node.start()

    shop.wait(lambda: shop.datas("bill", "killed-")[-1] == "killed-3", "the rest")
    assert list(dict.fromkeys(shop.datas("bill", "killed-"))) == ["killed-1", "killed-2", "killed-3"]
    assert shop.state(uuid) == "Enabled"


def test_a_failing_batch_is_said_and_goes_on_with_the_options_of_its_mapping(shop: Shop) -> None:
    source = shop.stream("failing")
    (shop.hold / "ship-fails").touch()
    uuid = shop.map("ship", source, MetricsConfig={"Metrics": ["EventCount"]})
    shop.put("failing", "failing-1")
    shop.wait(lambda: len(shop.datas("ship", "failing-", "failed")) >= 2, "some attempts")
    assert shop.functions.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == "PROBLEM: Function call failed"

    shop.update(uuid, MaximumRetryAttempts=0)
    shop.put("failing", "failing-2")
    shop.wait(lambda: "failing-2" in shop.datas("ship", "failing-", "failed"), "the first to be given up")
    (shop.hold / "ship-fails").unlink()
    shop.put("failing", "failing-3")

    shop.wait(lambda: shop.datas("ship", "failing-") == ["failing-3"], "the last record")
    assert shop.datas("ship", "failing-", "failed").count("failing-2") == 1
    attempts = len(shop.datas("ship", "failing-", "failed"))
    shop.wait(lambda: shop.counted(uuid, "InvokedEventCount") == attempts + 1, "the counts")
    assert shop.counted(uuid, "FailedInvokeEventCount") == attempts
    assert shop.counted(uuid, "DroppedEventCount") == 2
    assert shop.counted(uuid, "PolledEventCount") >= 3


def zip_function(shop: Shop, name: str, label: str, **changes: Any) -> None:
    """A function of a zip; it notes as the handlers do, under its name and a label."""
    code = textwrap.dedent(f"""
        import base64, json, os
        def handler(event, context):
            datas = [base64.b64decode(each["kinesis"]["data"]).decode() for each in event["Records"]]
            fd = os.open({str(shop.seen_file)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            note = {{"what": "end", "function": {f"{name}-{label}"!r}, "datas": datas}}
            note["arn"] = context.invoked_function_arn
            os.write(fd, json.dumps(note).encode() + b"\\n")
            os.close(fd)
    """)
    shop.functions.create_function(
        FunctionName=name,
        Runtime=f"python{sys.version_info[0]}.{sys.version_info[1]}",
        Role=f"arn:aws:iam::{ACCOUNT}:role/r",
        Handler="app.handler",
        Code={"ZipFile": zipped({"app.py": code})},
        **changes,
    )


def test_a_function_that_is_deleted_is_waited_for_over_a_restart_and_no_attempt_is_counted(shop: Shop) -> None:
    source = shop.stream("absent")
    zip_function(shop, "absent", "old")
    uuid = shop.map("absent", source, MaximumRetryAttempts=0)
    shop.put("absent", "absent-1")
    shop.wait(lambda: shop.datas("absent-old", "absent-") == ["absent-1"], "the first record")

    shop.functions.delete_function(FunctionName="absent")
    shop.put("absent", "absent-2")
    shop.node.kill()
    shop.node.start()
    assert shop.state(uuid) == "Enabled"
    (handler,) = [each for each in shop.status()["handlers"] if each["stream"] == "absent"]
    assert (handler["lanes"][0]["state"], handler["lanes"][0]["invocations"]) == ("idle", 1)
    zip_function(shop, "absent", "new")

    shop.wait(lambda: shop.datas("absent-new", "absent-") == ["absent-2"], "the second record")


def test_a_mapping_of_a_version_invokes_that_version(shop: Shop) -> None:
    source = shop.stream("versioned")
    zip_function(shop, "versioned", "one", Publish=True)
    shop.map("versioned:1", source)
    shop.put("versioned", "versioned-1")
    shop.wait(lambda: shop.datas("versioned-one", "versioned-") == ["versioned-1"], "the record")
    (note,) = shop.notes("end", "versioned-one")
    assert note["arn"] == f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:versioned:1"


def test_a_drain_works_off_mappings_that_clients_made(shop: Shop) -> None:
    source = shop.stream("drained")
    zip_function(shop, "drained", "zip")
    shop.map("drained", source, BatchSize=2)
    shop.map("bill", source, BatchSize=2)
    shop.node.stop()
    found = [f"drained-{n}" for n in range(5)]
    (shop.node.folder / "drained.txt").write_text("\n".join(found))
    for command in ("put drained --file drained.txt --format text --key k", "run --drain"):
        done = commanding.run(command.split(), cwd=shop.node.folder, env=shop.node.environment, seconds=120)
        assert done.returncode == 0, done.stderr

    assert shop.datas("drained-zip", "drained-") == found
    assert shop.datas("bill", "drained-") == found


def test_records_still_expire_while_their_function_may_not_run(tmp_path: Path) -> None:
    made = Project(tmp_path)
    (tmp_path / "kflow.toml").write_text("port = 0\n[functions.bill]\nreserved_concurrent_executions = 0\n")
    made.handler("""
        from kflow import on_stream
        @on_stream("orders", maximum_record_age_in_seconds=600)
        def bill(event, context):
            note(what="ran")
    """)
    clock = ManualClock(time.time_ns() // 1_000_000 - 1_200_000)
    folder = DataFolder.open(made.data_dir, create=True, fsync="none")
    log = Log(folder, clock=clock)
    lock = held(folder.writer_lock())
    stream = log.create_stream("orders", 1)
    encoder = Encoder(stream)
    for data in (b"old", b"young"):
        log.append(stream, encoder.encode_many(["k"], [data]))
        clock.advance(1_199_000)
    log.close()
    lock.release()
    try:
        process = made.start()
        made.wait_for(lambda: made.json("parked", "list"), "the old record to be parked")
        (entry,) = made.json("parked", "list")
        shown = made.json("parked", "show", str(entry["number"]))
        (handler,) = made.json("status")["handlers"]
        assert [record["data"] for record in shown["records"]] == ["old"]
        assert shown["document"]["requestContext"]["condition"] == "RecordAgeExceeded"
        assert (handler["lanes"][0]["behind"], handler["lanes"][0]["invocations"]) == (1, 0)
        assert made.seen() == []
        assert made.stop(process) == 130
    finally:
        made.close()
