"""Scenarios by AWS's API alone: a function as a zip, a mapping and records by boto3, documents out of a queue.

    python -m tests.scenarios.api --target aws --role ARN --bucket NAME [--profile P] [--region R] [--report FILE]

runs them in a real account, with resources that are named `kflow-parity-...` and deleted at the end, and writes a
report on how AWS differs from the table. That costs money and up to half an hour; nothing does it unasked. Without
`--target aws` they run on an endpoint of their own, as the tests have them.

What a client cannot have is named in the table, as `no_api`: records that arrived in the past, above all. A client does
not see checkpoints and totals either: they are not compared. That nothing more is delivered than is expected is seen by
a last record, which follows all others.
"""

from __future__ import annotations

import argparse
import inspect
import io
import itertools
import json
import secrets
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tests.deadline import eventually
from tests.scenarios import form, script
from tests.scenarios.form import Document, Observed, Put, Scenario, Seen, collapsed
from tests.scenarios.stepped import lane_of

LAST = b"the last record"
"""Payload of the record that follows all others."""
RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"

_APP = """
import json, os, time, zlib
from base64 import b64decode
from pathlib import Path
from script import Call, decide, text_of

SCENARIOS = json.loads((Path(__file__).parent / "scenarios.json").read_text())
NOTES = os.environ["NOTES"]

def before(name):
    if NOTES.startswith("s3://"):
        import boto3
        bucket, _, prefix = NOTES[5:].partition("/")
        pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/{name}/")
        return [int(each["Key"].rpartition("_")[2]) for page in pages for each in page.get("Contents", ())]
    path = Path(NOTES, f"{name}.jsonl")
    return [json.loads(line)["rule"] for line in path.read_text().split("\\n")[:-1]] if path.exists() else []

def note(name, rule, **fields):
    text = json.dumps({"rule": rule, **fields}).encode()
    if NOTES.startswith("s3://"):
        import boto3
        bucket, _, prefix = NOTES[5:].partition("/")
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{name}/{time.time_ns():020d}_{rule}", Body=text)
        return
    fd = os.open(Path(NOTES, f"{name}.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(fd, text + b"\\n")
    os.close(fd)

def handler(event, context):
    records = event["Records"]
    name = (event.get("eventSourceARN") or records[0]["eventSourceARN"]).rpartition("/")[2]
    datas = [b64decode(record["kinesis"]["data"]) for record in records]
    numbers = [record["kinesis"]["sequenceNumber"] for record in records]
    checks = [zlib.crc32(data) for data in datas]
    if datas == [LAST]:
        note(name, -2, numbers=numbers, checks=checks)
        return {}
    call = Call([text_of(data) for data in datas], numbers, None, False)
    rules = [rule for rule in before(name) if rule != -2]
    index, act = decide(SCENARIOS[name], call, rules.count, len(rules))
    note(name, index, numbers=numbers, checks=checks)
    if act.action == "raises":
        raise RuntimeError(act.value)
    if act.action == "exits":
        os._exit(act.value)
    if act.action == "sleeps":
        time.sleep(act.value)
    return act.value if act.action == "returns" else None
"""


_SLOW = {"filters", "maximum_batching_window_in_seconds"}
"""With these a last record would not come, or not soon."""


class Target(Protocol):
    """Where scenarios run.

    Attributes:
        role: ARN of the function's role.
        notes: what the function is told to note things at.
        patience_s: how long to wait for what is expected.
        stays: whether anything is left of it that must be deleted.
    """

    role: str
    notes: str
    patience_s: float
    stays: bool

    def client(self, service: str) -> Any:
        """A boto3 client."""
        ...

    def read(self, name: str) -> list[dict[str, Any]]:
        """What the function noted of a stream, in order."""
        ...


@dataclass
class _Case:
    """One scenario, and what was made for it."""

    name: str
    scenario: Scenario
    source: str = ""
    uuid: str = ""
    names: dict[int, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    checks: dict[str, int] = field(default_factory=dict)
    is_late: bool = False


def possible(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Those that a client can have."""
    return [each for each in scenarios if not each.engine_only and not each.no_api]


def options_of(scenario: Scenario, queue: str) -> dict[str, Any]:
    """A mapping's options as the API has them; what is given up is told to a queue."""
    names = {
        "batch_size": "BatchSize",
        "maximum_batching_window_in_seconds": "MaximumBatchingWindowInSeconds",
        "maximum_retry_attempts": "MaximumRetryAttempts",
        "maximum_record_age_in_seconds": "MaximumRecordAgeInSeconds",
        "bisect_batch_on_function_error": "BisectBatchOnFunctionError",
        "parallelization_factor": "ParallelizationFactor",
        "starting_position": "StartingPosition",
    }
    given: dict[str, Any] = {"StartingPosition": "TRIM_HORIZON"}
    for option, value in scenario.options.items():
        if option == "report_batch_item_failures":
            given["FunctionResponseTypes"] = ["ReportBatchItemFailures"] if value else []
        elif option == "filters":
            patterns = [each if isinstance(each, str) else json.dumps(each) for each in value]
            given["FilterCriteria"] = {"Filters": [{"Pattern": each} for each in patterns]}
        elif option != "on_failure":
            given[names[option]] = value
    if scenario.options.get("on_failure") != "drop":
        given["DestinationConfig"] = {"OnFailure": {"Destination": queue}}
    return given


class Runner:
    """Runs scenarios by the API.

    Args:
        target: where.
        scenarios: which.
        prefix: of all names.
    """

    def __init__(self, target: Target, scenarios: Sequence[Scenario], prefix: str) -> None:
        self.target = target
        self.prefix = prefix
        self.cases = [_Case(f"{prefix}{number:03}", each) for number, each in enumerate(scenarios)]
        self.kinesis = target.client("kinesis")
        self.functions = target.client("lambda")
        self.queues = target.client("sqs")
        self.documents: list[dict[str, Any]] = []

    def run(self) -> Iterator[tuple[Scenario, Observed]]:
        """Run them, all at once, and say what was seen of each."""
        try:
            self._make()
            for case in self.cases:
                self._put_all(case, case.scenario.put)
            for case in self.cases:
                self._map(case)
            for case in self.cases:
                self._go_on(case)
            for case in self.cases:
                self._finish(case)
            self._hear(lambda: len(self.documents) >= self._expected_documents())
            yield from [(case.scenario, self._observed(case)) for case in self.cases]
        finally:
            self._clear()

    # ------------------------------------------------------------------ before

    def _make(self) -> None:
        queue = self.queues.create_queue(QueueName=f"{self.prefix}dead")["QueueUrl"]
        self.queue = queue
        attributes = self.queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        self.queue_arn = attributes["Attributes"]["QueueArn"]
        for case in self.cases:
            self.kinesis.create_stream(StreamName=case.name, ShardCount=1)
        code = self._zip()
        for timeout in sorted({case.scenario.timeout for case in self.cases}):
            self.functions.create_function(
                FunctionName=self._function(timeout),
                Runtime=RUNTIME,
                Role=self.target.role,
                Handler="app.handler",
                Code={"ZipFile": code},
                Timeout=timeout,
                Environment={"Variables": {"NOTES": self.target.notes}},
            )
            self.functions.get_waiter("function_active_v2").wait(
                FunctionName=self._function(timeout), WaiterConfig={"Delay": 1, "MaxAttempts": 120}
            )
        for case in self.cases:
            found = self._until(lambda case=case: self._active(case.name), f"stream {case.name}")
            case.source = found["StreamARN"]
            if any(len(data) > 1_000_000 for put in case.scenario.puts for data in put.datas):
                self.kinesis.update_max_record_size(StreamARN=case.source, MaxRecordSizeInKiB=10240)
                self._until(lambda case=case: self._active(case.name), f"stream {case.name}")

    def _active(self, name: str) -> Any:
        found = self.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        return found if found["StreamStatus"] == "ACTIVE" else None

    def _zip(self) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("app.py", f"LAST = {LAST!r}\n{_APP}")
            archive.writestr("script.py", inspect.getsource(script))
            archive.writestr("scenarios.json", json.dumps({case.name: case.scenario.handler for case in self.cases}))
        return made.getvalue()

    def _function(self, timeout: int) -> str:
        return f"{self.prefix}handler-{timeout}"

    def _put_all(self, case: _Case, puts: Sequence[Put]) -> None:
        """One record after the other where these are few, for a call of many keeps no order on AWS."""
        for put in sorted(puts, key=lambda put: put.at_ms):
            records = list(zip(put.names, put.keys, put.datas, strict=True))
            if len(records) <= 16:
                for name, key, data in records:
                    placed = self.kinesis.put_record(StreamName=case.name, Data=data, PartitionKey=key)
                    self._note(case, name, key, data, placed["SequenceNumber"])
                continue
            for few in itertools.batched(records, 500) if hasattr(itertools, "batched") else _batched(records, 500):
                answer = self.kinesis.put_records(
                    StreamName=case.name, Records=[{"Data": data, "PartitionKey": key} for _, key, data in few]
                )
                assert not answer["FailedRecordCount"], "records were refused"
                for (name, key, data), placed in zip(few, answer["Records"], strict=True):
                    self._note(case, name, key, data, placed["SequenceNumber"])

    def _note(self, case: _Case, name: str, key: str, data: bytes, number: str) -> None:
        case.names[int(number)] = name
        case.keys[name] = key
        case.checks[name] = zlib.crc32(data)

    def _map(self, case: _Case) -> None:
        made = self.functions.create_event_source_mapping(
            FunctionName=self._function(case.scenario.timeout),
            EventSourceArn=case.source,
            **options_of(case.scenario, self.queue_arn),
        )
        case.uuid = made["UUID"]

    # ------------------------------------------------------------------ meanwhile

    def _go_on(self, case: _Case) -> None:
        """Pause where more is to be stored meanwhile, and go on then."""
        if not case.scenario.then:
            return
        later = {name for put in case.scenario.then for name in put.names}
        first = sum(1 for seen in _expected(case.scenario) if not later & set(seen.records))
        self._until(lambda: len(self._notes(case)) >= first, f"the first part of {case.scenario.name!r}")
        self._switch(case, "Disabled")
        self._put_all(case, case.scenario.then)
        self._switch(case, "Enabled")

    def _switch(self, case: _Case, state: str) -> None:
        self._wait_for(case, {"Enabled", "Disabled"})
        self.functions.update_event_source_mapping(UUID=case.uuid, Enabled=state == "Enabled")
        self._wait_for(case, {state})

    def _wait_for(self, case: _Case, states: set[str]) -> None:
        self._until(
            lambda: self.functions.get_event_source_mapping(UUID=case.uuid)["State"] in states,
            f"{case.scenario.name!r} to be {' or '.join(sorted(states))}",
        )

    def _finish(self, case: _Case) -> None:
        """Until all has come that is expected; then a last record, behind which nothing else can come."""
        scenario = case.scenario
        try:
            self._until(lambda: self._has_come(case), f"the end of {scenario.name!r}")
            if not scenario.blocked and not _SLOW & scenario.options.keys():
                self.kinesis.put_record(StreamName=case.name, Data=LAST, PartitionKey=_last_key(scenario))
                self._until(lambda: any(note["rule"] == -2 for note in self._all_notes(case)), "the last record")
        except AssertionError:
            case.is_late = True  # what has come is compared, and says more
        if self.target.stays or scenario.blocked:
            self._wait_for(case, {"Enabled", "Disabled"})
            self.functions.delete_event_source_mapping(UUID=case.uuid)

    def _has_come(self, case: _Case) -> bool:
        scenario = case.scenario
        wanted = scenario.lanes.values() if scenario.lanes is not None else (scenario.invocations or (),)
        if not scenario.blocked:
            return len(self._notes(case)) >= sum(map(len, wanted))
        least = sum(len(collapsed(seen)) for seen in wanted)
        found = self._by_lane(case)
        return sum(len(collapsed(seen)) for seen in found.values()) >= least and len(self._notes(case)) > least

    def _expected_documents(self) -> int:
        return sum(
            len(case.scenario.documents)
            for case in self.cases
            if case.scenario.options.get("on_failure") != "drop" and not case.is_late
        )

    def _hear(self, enough: Callable[[], bool]) -> None:
        """Take documents out of the queue, until there are enough and no more come."""

        def take() -> bool:
            answer = self.queues.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10, WaitTimeSeconds=0)
            found = answer.get("Messages", ())
            for message in found:
                self.documents.append(json.loads(message["Body"]))
                self.queues.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
            return not found and enough()

        try:
            self._until(take, "the failure documents")
        except AssertionError:
            return  # each scenario says which it misses

    def _until(self, condition: Callable[[], Any], what: str) -> Any:
        return eventually(condition, seconds=self.target.patience_s, what=what)

    # ------------------------------------------------------------------ after

    def _observed(self, case: _Case) -> Observed:
        unknown: Any = None
        seen = [self._seen(case, note) for note in self._notes(case)]
        return Observed(
            invocations=seen,
            lanes=self._by_lane(case),
            documents=self._documents(case),
            settled=unknown,
            totals={},
            blocked=unknown,
            is_timed=False,
        )

    def _documents(self, case: _Case) -> list[Document]:
        own = [each for each in self.documents if each["KinesisBatchInfo"]["streamArn"] == case.source]
        found = []
        for each in sorted(
            own, key=lambda each: (each["timestamp"], int(each["KinesisBatchInfo"]["startSequenceNumber"]))
        ):
            request, batch, response = each["requestContext"], each["KinesisBatchInfo"], each.get("responseContext")
            first, last = int(batch["startSequenceNumber"]), int(batch["endSequenceNumber"])
            within = [number for number in sorted(case.names) if first <= number <= last]
            lane = lane_of(case.keys[case.names[first]], case.scenario.factor)
            names = [case.names[each] for each in within]
            names = [name for name in names if lane_of(case.keys[name], case.scenario.factor) == lane]
            if len(names) != batch["batchSize"]:  # others between them were filtered
                names = [name for name in names if name in _named(case.scenario)]
            found.append(
                Document(
                    condition=request["condition"],
                    attempts=request["approximateInvokeCount"],
                    records=tuple(names),
                    response="none" if response is None else response["functionError"] or "null",
                )
            )
        return found

    def _by_lane(self, case: _Case) -> dict[int, list[Seen]]:
        lanes: dict[int, list[Seen]] = {}
        for note in self._notes(case):
            seen = self._seen(case, note)
            lanes.setdefault(lane_of(case.keys[seen.records[0]], case.scenario.factor), []).append(seen)
        return lanes

    def _all_notes(self, case: _Case) -> list[dict[str, Any]]:
        return self.target.read(case.name)

    def _notes(self, case: _Case) -> list[dict[str, Any]]:
        return [note for note in self._all_notes(case) if note["rule"] != -2]

    def _seen(self, case: _Case, note: dict[str, Any]) -> Seen:
        names = tuple(case.names[int(number)] for number in note["numbers"])
        assert note["checks"] == [case.checks[name] for name in names], "payloads have changed"
        return Seen(records=names)

    def _clear(self) -> None:
        """Delete all that was made; what cannot be is said, and the rest goes all the same."""
        if not self.target.stays:
            return
        errands: list[Callable[[], object]] = [
            *(partial(self.kinesis.delete_stream, StreamName=case.name) for case in self.cases),
            *(
                partial(self.functions.delete_function, FunctionName=self._function(timeout))
                for timeout in {case.scenario.timeout for case in self.cases}
            ),
            lambda: self.queues.delete_queue(QueueUrl=self.queue),
        ]
        for errand in errands:
            try:
                errand()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is said, and the next is tried
                print(f"not deleted: {error}", file=sys.stderr)


def _batched(records: list[Any], size: int) -> Iterator[list[Any]]:
    for first in range(0, len(records), size):
        yield records[first : first + size]


def _last_key(scenario: Scenario) -> str:
    """A key whose lane comes last of all where there are several: that of the last record."""
    return scenario.puts[-1].keys[-1] if scenario.puts else "k"


def _named(scenario: Scenario) -> set[str]:
    """Records that are expected in an invocation or in a document."""
    every = [*_expected(scenario), *scenario.documents]
    return {name for each in every for name in each.records}


def _expected(scenario: Scenario) -> list[Seen]:
    """All invocations, those of one lane after those of another."""
    return [*(scenario.invocations or ()), *itertools.chain.from_iterable((scenario.lanes or {}).values())]


class Local:
    """An endpoint of kflow.

    Args:
        node: a `tests.served.Served`.
        notes: folder that functions note things in.
    """

    def __init__(self, node: Any, notes: Path) -> None:
        self.role = "arn:aws:iam::123456789012:role/parity"
        self.notes = str(notes)
        self.patience_s = 60.0
        self.stays = False
        self._node = node
        self._folder = notes

    def client(self, service: str) -> Any:
        """A boto3 client."""
        return self._node.client(service=service)

    def read(self, name: str) -> list[dict[str, Any]]:
        """A line may be read while it is written: the last part is empty, or not complete."""
        path = self._folder / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


class Aws:
    """A real account: the caller's profile, a role that may read streams and write logs, queue and bucket."""

    def __init__(self, *, role: str, bucket: str, prefix: str, profile: str | None, region: str | None) -> None:
        import boto3

        self.role = role
        self.notes = f"s3://{bucket}/{prefix}"
        self.patience_s = 300.0
        self.stays = True
        self._bucket = bucket
        self._prefix = prefix
        self._session = boto3.session.Session(profile_name=profile, region_name=region)
        self._s3 = self._session.client("s3")
        self._read: dict[str, dict[str, Any]] = {}

    def client(self, service: str) -> Any:
        """A boto3 client, which waits where calls are throttled: hundreds of resources are made at once."""
        from botocore.config import Config

        return self._session.client(service, config=Config(retries={"max_attempts": 20, "mode": "adaptive"}))

    def read(self, name: str) -> list[dict[str, Any]]:
        """An object a note; each is fetched once."""
        time.sleep(1)
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}/{name}/"
        )
        found = sorted(each["Key"] for page in pages for each in page.get("Contents", ()))
        for key in found:
            if key not in self._read:
                self._read[key] = json.loads(self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read())
        return [self._read[key] for key in found]


def report(results: Sequence[tuple[Scenario, Sequence[str]]], left: Mapping[str, str]) -> str:
    """What differs, as Markdown."""
    differing = [(scenario, found) for scenario, found in results if found]
    lines = [
        "# Scenarios on AWS",
        "",
        f"{len(results)} scenarios ran, {len(differing)} differ from the table; {len(left)} cannot be had by the API.",
        "",
    ]
    for scenario, found in differing:
        lines += [f"## {scenario.name}", "", f"known by: {scenario.source}", "", "```", *found, "```", ""]
    lines += ["## Without a client", "", *(f"- {name}: {reason}" for name, reason in sorted(left.items())), ""]
    return "\n".join(lines)


def compare(runner: Runner) -> list[tuple[Scenario, list[str]]]:
    """Each scenario with how it differs from the table."""
    return [(scenario, form.differences(scenario, observed, lane_of=lane_of)) for scenario, observed in runner.run()]


def main(arguments: list[str]) -> int:
    """From a command line."""
    parser = argparse.ArgumentParser(description="Run the scenarios of event source mappings by the API.")
    parser.add_argument("--target", choices=("local", "aws"), default="local")
    parser.add_argument("--role", help="ARN of the function's role; with --target aws")
    parser.add_argument("--bucket", help="name of a bucket for notes; with --target aws")
    parser.add_argument("--profile")
    parser.add_argument("--region")
    parser.add_argument("--report", type=Path, default=Path("parity.md"))
    parser.add_argument("words", nargs="*", help="only scenarios with one of these in their names")
    chosen = parser.parse_args(arguments)
    everything = [each for _, each in form.everything()]
    wanted = [each for each in everything if not chosen.words or any(word in each.name for word in chosen.words)]
    left = {each.name: each.engine_only or each.no_api for each in wanted if each.engine_only or each.no_api}
    prefix = f"kflow-parity-{secrets.token_hex(4)}-"
    if chosen.target == "aws":
        if not chosen.role or not chosen.bucket:
            parser.error("--target aws needs --role and --bucket")
        target: Target = Aws(
            role=chosen.role, bucket=chosen.bucket, prefix=prefix, profile=chosen.profile, region=chosen.region
        )
        results = compare(Runner(target, possible(wanted), prefix))
    else:
        import tempfile

        from tests.served import served

        with tempfile.TemporaryDirectory() as made, served(Path(made), KFLOW_RETRY_BACKOFF_SCALE="0.01") as node:
            (Path(made) / "notes").mkdir()
            results = compare(Runner(Local(node, Path(made) / "notes"), possible(wanted), prefix))
    chosen.report.write_text(report(results, left))
    print(f"{chosen.report}: {sum(bool(found) for _, found in results)} of {len(results)} differ")
    return 1 if any(found for _, found in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
