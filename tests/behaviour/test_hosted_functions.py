"""Functions in runtime processes of their own: uploaded, invoked, fed from streams, seen failing."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
import shutil
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.runtime.lifeline import identify
from tests.deadline import eventually
from tests.lambdaing import ARN, ROLE, zipped
from tests.served import Served, served

OWN = f"python3.{sys.version_info.minor}"
HAS_CLIENT = importlib.util.find_spec("awslambdaric") is not None
HAS_NODE = shutil.which("node") is not None
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
CODE = """\
import collections, decimal, json, logging, os, sys, time
calls = 0
def handler(event, context):
    global calls
    calls += 1
    do = event.get("do")
    if do == "raise":
        raise ValueError("no such Ärger")
    if do == "exit":
        os._exit(event["status"])
    if do == "leave":
        sys.exit(0)
    if do == "die":
        os.kill(os.getpid(), 11)
    if do == "sleep":
        time.sleep(60)
    if do == "grow":
        bytearray(b"x") * (300 << 20)
        kept = [b"x" * (10 << 20) for _ in range(30)]
        time.sleep(60)
    if do == "return":
        return {"large": "x" * 6_291_557, "set": {1}, "none": None}[event["what"]] if event["what"] != "many" else {
            "nan": float("nan"), "decimal": decimal.Decimal("1.10"), "tuple": (1, 2), "text": "Ä",
            "named": collections.namedtuple("P", "x y")(1, 2), "bytes": b"raw", 3: "key"}
    if do == "where":
        return {"cwd": os.getcwd(), "names": sorted(os.environ), "tmp": os.environ["TMPDIR"], "pid": os.getpid(),
                "path": sys.path[0], "trace": os.environ["_X_AMZN_TRACE_ID"]}
    if do == "context":
        return {name: getattr(context, name) for name in (
            "aws_request_id", "function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb",
            "log_group_name", "log_stream_name", "tenant_id")} | {
            "left": context.get_remaining_time_in_millis(), "identity": context.identity.cognito_identity_id,
            "custom": context.client_context and context.client_context.custom,
            "app": context.client_context and context.client_context.client.app_title}
    if do == "levels":
        print(json.dumps({"level": "debug", "n": 1}))
        print(json.dumps({"level": "error", "n": 2}))
    if do == "log":
        print("printed")
        logging.getLogger().warning("logged")
        print("two\\nlines")
        sys.stderr.write("stderr\\n")
    return {"calls": calls, "pid": os.getpid()}
"""
BROKEN = "import nowhere_to_be_found\n"
BOOTSTRAP = f"""#!{sys.executable}
import http.client, json, os, sys
host = os.environ["AWS_LAMBDA_RUNTIME_API"]
print("bootstrap of", os.environ["_HANDLER"], flush=True)
while True:
    connection = http.client.HTTPConnection(host)  # another one each time, as a shell's curl does it
    connection.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = connection.getresponse()
    event, request_id = json.loads(answer.read()), answer.headers["Lambda-Runtime-Aws-Request-Id"]
    connection.close()
    if event.get("do") == "exit":
        sys.exit(event["status"])
    connection = http.client.HTTPConnection(host)
    where, body = "response", [b'{{"got":', json.dumps(event).encode(), b"}}"]
    if event.get("do") == "fail":
        where, body = "error", [b'{{"errorMessage":"own words","errorType":"Own.Kind","trace":["a"]}}']
    path = f"/2018-06-01/runtime/invocation/{{request_id}}/{{where}}"
    connection.request("POST", path, iter(body), encode_chunked=True, headers={{"Transfer-Encoding": "chunked"}})
    connection.getresponse().read()
    connection.close()
"""
SCRIPT = """\
exports.handler = async (event, context) => {
  if (event.do === "raise") throw new TypeError("no such thing");
  if (event.do === "exit") process.exit(event.status);
  console.log("logged", { a: 1 });
  return { event, name: context.functionName, left: context.getRemainingTimeInMillis() > 0 };
};
exports.callback = (event, context, callback) => setTimeout(() => callback(null, "called back"), 1);
exports.nothing = () => {};
exports.never = (event, context, callback) => {};
"""
HANDLER = 'import kflow\n\n@kflow.on_stream("declared")\ndef declared(event, context):\n    print("here")\n'
WITHOUT = "raise ImportError('hidden: the function runs without it')\n"


class Lab:
    """A runtime, and functions uploaded to it."""

    def __init__(self, endpoint: Served) -> None:
        self.endpoint = endpoint
        self.client = endpoint.client(service="lambda")
        self.kinesis = endpoint.client(service="kinesis")

    def create(self, name: str, files: dict[str, str | bytes], **parameters: Any) -> None:
        given = {"Runtime": OWN, "Role": ROLE, "Handler": "app.handler", "MemorySize": 256}
        code = {"ZipFile": executable(files)}
        self.client.create_function(FunctionName=name, Code=code, **{**given, **parameters})
        self.client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0})

    def invoke(self, name: str, event: Any = None, **parameters: Any) -> tuple[Any, str | None, str]:
        """What it returned, `FunctionError`, and the end of its log."""
        payload = json.dumps({} if event is None else event)
        answer = self.client.invoke(FunctionName=name, Payload=payload, LogType="Tail", **parameters)
        assert answer["StatusCode"] == 200
        log = base64.b64decode(answer["LogResult"]).decode()
        return json.loads(answer["Payload"].read()), answer.get("FunctionError"), log

    def log(self, name: str) -> str:
        return (self.endpoint.data_dir / "logs" / f"{name}.log").read_text()


def executable(files: dict[str, str | bytes]) -> bytes:
    """A zip in which `bootstrap` may be executed."""
    if "bootstrap" not in files:
        return zipped(files)
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = (0o100755) << 16
            archive.writestr(info, text)
    return found.getvalue()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("hosted")
    (folder / "functions").mkdir()
    (folder / "functions" / "app.py").write_text(HANDLER)
    (folder / "hidden").mkdir()
    (folder / "hidden" / "runtime_client.py").write_text(WITHOUT)
    with served(folder, command="run", KFLOW_RETRY_BACKOFF_SCALE="0") as endpoint:
        yield Lab(endpoint)


@pytest.fixture(scope="module", params=["awslambdaric", "own"])
def function(request: pytest.FixtureRequest, lab: Lab) -> str:
    """A Python function; by AWS's client of the Runtime API, and by kflow's own."""
    if request.param == "own":
        hidden = str(lab.endpoint.folder / "hidden")
        lab.create("own", {"app.py": CODE}, Timeout=1, Environment={"Variables": {"PYTHONPATH": hidden}})
        return "own"
    if not HAS_CLIENT:
        pytest.skip("awslambdaric is not installed: pip install 'kflow-streams[ric]'")
    lab.create("awss", {"app.py": CODE}, Timeout=1)
    return "awss"


def test_one_process_takes_one_invocation_after_the_other(lab: Lab, function: str) -> None:
    first, error, _ = lab.invoke(function)
    second, _, _ = lab.invoke(function)
    assert error is None
    assert second == {"calls": first["calls"] + 1, "pid": first["pid"]}


def test_results_are_written_as_lambda_writes_them(lab: Lab, function: str) -> None:
    answer = lab.client.invoke(FunctionName=function, Payload=b'{"do":"return","what":"many"}')
    text = "\\u00c4" if sys.version_info < (3, 12) else "Ä"
    assert answer["Payload"].read().decode() == (
        f'{{"nan": NaN, "decimal": 1.10, "tuple": [1, 2], "text": "{text}", "named": {{"x": 1, "y": 2}}, '
        '"bytes": "raw", "3": "key"}'
    )
    assert lab.invoke(function, {"do": "return", "what": "none"})[0] is None


def test_the_context_is_lambdas(lab: Lab, function: str) -> None:
    client_context = base64.b64encode(b'{"custom":{"a":\n1},"client":{"app_title":"t"}}').decode()
    said, _, _ = lab.invoke(function, {"do": "context"}, ClientContext=client_context)
    assert UUID.fullmatch(said.pop("aws_request_id"))
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", said.pop("log_stream_name"))
    assert 0 < said.pop("left") <= 1000
    assert said == {
        "function_name": function,
        "function_version": "$LATEST",
        "invoked_function_arn": f"{ARN}:{function}",
        "memory_limit_in_mb": "256",
        "log_group_name": f"/aws/lambda/{function}",
        "tenant_id": None,
        "identity": None,
        "custom": {"a": 1},
        "app": "t",
    }


def test_it_runs_in_its_code_with_nothing_of_the_shell(lab: Lab, function: str) -> None:
    said, _, _ = lab.invoke(function, {"do": "where"})
    assert said["cwd"] == said["path"]
    assert (Path(said["cwd"]) / "app.py").read_text() == CODE
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", said["trace"])
    assert not {"HOME", "USER", "PYTEST_CURRENT_TEST", "_LAMBDA_TELEMETRY_LOG_FD"} & set(said["names"])
    assert {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_LAMBDA_RUNTIME_API", "KFLOW_DATA_DIR"} <= set(said["names"])
    assert Path(said["tmp"]).is_dir()


def test_an_exception_is_told_and_the_process_kept(lab: Lab, function: str) -> None:
    before, _, _ = lab.invoke(function)
    said, error, log = lab.invoke(function, {"do": "raise"})
    assert error == "Unhandled"
    request_id = said.pop("requestId")
    assert UUID.fullmatch(request_id)
    (trace,) = said.pop("stackTrace")
    assert re.fullmatch(r'  File ".*/app\.py", line 8, in handler\n    raise ValueError\("no such Ärger"\)\n', trace), (
        trace
    )
    assert said == {"errorMessage": "no such Ärger", "errorType": "ValueError"}
    lines = log.split("\n")
    assert lines[:3] == [
        f"START RequestId: {request_id} Version: $LATEST",
        "[ERROR] ValueError: no such Ärger",
        "Traceback (most recent call last):",
    ]
    assert lines[3].startswith('\xa0\xa0File "')
    assert lines[4] == '\xa0\xa0\xa0\xa0raise ValueError("no such Ärger")'
    assert lines[5] == f"END RequestId: {request_id}"
    after, _, _ = lab.invoke(function)
    assert after["pid"] == before["pid"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"do": "exit", "status": 127}, "Runtime exited with error: exit status 127"),
        ({"do": "exit", "status": 0}, "Runtime exited without providing a reason"),
        ({"do": "leave"}, "Runtime exited without providing a reason"),
        ({"do": "die"}, "Runtime exited with error: signal: segmentation fault"),
        ({"do": "grow"}, "Runtime exited with error: signal: killed"),
    ],
    ids=["exit 127", "exit 0", "sys.exit", "segfault", "memory"],
)
def test_a_process_that_ends_fails_its_invocation_and_a_new_one_takes_the_next(
    lab: Lab, function: str, event: dict[str, Any], reason: str
) -> None:
    said, error, log = lab.invoke(function, event)
    request_id = re.findall(r"START RequestId: (\S+)", log)[0]
    assert error == "Unhandled"
    said["errorMessage"] = said["errorMessage"].removesuffix(" (core dumped)")
    assert said == {"errorType": "Runtime.ExitError", "errorMessage": f"RequestId: {request_id} Error: {reason}"}
    assert "Status: error\tError Type: Runtime.ExitError\t" in log
    assert lab.invoke(function)[0]["calls"] == 1


def test_a_timeout_kills_the_process(lab: Lab, function: str) -> None:
    said, error, log = lab.invoke(function, {"do": "sleep"})
    request_id = re.findall(r"START RequestId: (\S+)", log)[0]
    assert error == "Unhandled"
    assert said == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {request_id} Error: Task timed out after 1.00 seconds",
    }
    assert f" {request_id} Task timed out after 1.00 seconds\n" in log
    assert "\tDuration: 1000.00 ms\tBilled Duration: 1000 ms\t" in log
    assert lab.invoke(function)[0]["calls"] == 1


def test_a_result_that_is_too_large_or_no_json_is_an_error(lab: Lab, function: str) -> None:
    said, error, _ = lab.invoke(function, {"do": "return", "what": "large"})
    assert (said, error) == (
        {
            "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
            "errorType": "Function.ResponseSizeTooLarge",
        },
        "Unhandled",
    )
    said, error, _ = lab.invoke(function, {"do": "return", "what": "set"})
    assert (said["errorType"], said["errorMessage"], said["stackTrace"], error) == (
        "Runtime.MarshalError",
        "Unable to marshal response: Object of type set is not JSON serializable",
        [],
        "Unhandled",
    )


@pytest.mark.parametrize("client", ["awslambdaric", "own"])
def test_a_start_that_fails_is_told_without_a_request_id(lab: Lab, client: str) -> None:
    if client == "awslambdaric" and not HAS_CLIENT:
        pytest.skip("awslambdaric is not installed: pip install 'kflow-streams[ric]'")
    variables = {"PYTHONPATH": str(lab.endpoint.folder / "hidden")} if client == "own" else {"STAGE": "dev"}
    name = f"broken-{client}"
    lab.create(name, {"app.py": BROKEN}, Environment={"Variables": variables})
    said, error, log = lab.invoke(name)
    assert error == "Unhandled"
    assert said == {
        "errorMessage": "Unable to import module 'app': No module named 'nowhere_to_be_found'",
        "errorType": "Runtime.ImportModuleError",
        "requestId": "",
        "stackTrace": [],
    }
    assert "[ERROR] Runtime.ImportModuleError: Unable to import module 'app'" in log
    assert "\tPhase: init\tStatus: error\tError Type: Runtime.ImportModuleError\n" in log
    files = {"app.py": "handler = 1 +\n"}
    code = lab.client.update_function_code(FunctionName=name, ZipFile=executable(files))
    assert code["CodeSize"] > 0
    lab.client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0})
    said, _, _ = lab.invoke(name)
    assert said["errorType"] == "Runtime.UserCodeSyntaxError"
    assert said["errorMessage"].startswith("Syntax error in module 'app': invalid syntax")


def test_what_it_writes_stands_in_order_between_start_and_end(lab: Lab, function: str) -> None:
    lab.invoke(function)
    _, _, log = lab.invoke(function, {"do": "log"})
    request_id = re.findall(r"START RequestId: (\S+)", log)[0]
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(
        rf"START RequestId: {request_id} Version: \$LATEST\nprinted\n\[WARNING\]\t{stamp}\t{request_id}\tlogged\n"
        rf"two\nlines\nstderr\nEND RequestId: {request_id}\nREPORT RequestId: {request_id}\tDuration: \d+\.\d\d ms\t"
        r"Billed Duration: \d+ ms\tMemory Size: 256 MB\tMax Memory Used: \d+ MB\t\n",
        log,
    ), log
    assert log in lab.log(function)


def test_a_log_in_json_has_lambdas_lines_as_objects(lab: Lab) -> None:
    lab.create("json", {"app.py": CODE}, LoggingConfig={"LogFormat": "JSON", "LogGroup": "/app/all"})
    _, _, log = lab.invoke("json", {"do": "log"})
    lines = log.splitlines()
    objects = [json.loads(line) for line in lines if line.startswith("{")]
    assert [each.get("type", each.get("level")) for each in objects] == [
        "platform.initStart",
        "platform.start",
        "WARNING",
        "platform.report",
    ]
    start, logged, report = objects[1:]
    assert start["record"] == {"requestId": logged["requestId"], "version": "$LATEST"}
    assert (logged["message"], logged["logger"]) == ("logged", "root")
    assert report["record"]["status"] == "success"
    assert set(report["record"]["metrics"]) == {
        "durationMs",
        "billedDurationMs",
        "memorySizeMB",
        "maxMemoryUsedMB",
        "initDurationMs",
    }
    assert "printed" in lines
    assert log in lab.log("json")


def test_a_json_log_has_the_lines_of_the_level_that_is_asked_for(lab: Lab) -> None:
    def kinds(event: dict[str, Any]) -> list[tuple[str, str | None]]:
        objects = [json.loads(line) for line in lab.invoke("levels", event)[2].splitlines() if line.startswith("{")]
        return [(each["type"].removeprefix("platform."), each["record"].get("status")) for each in objects]

    lab.create("levels", {"app.py": CODE}, LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "DEBUG"})
    assert kinds({}) == [
        ("initStart", None),
        ("initRuntimeDone", "success"),
        ("initReport", "success"),
        ("start", None),
        ("runtimeDone", "success"),
        ("report", "success"),
    ]
    done = json.loads(lab.invoke("levels")[2].splitlines()[1])["record"]
    assert set(done["metrics"]) == {"durationMs", "producedBytes"}
    assert done["metrics"]["producedBytes"] > 10
    lab.client.update_function_configuration(
        FunctionName="levels", LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "WARN"}
    )
    lab.client.get_waiter("function_updated_v2").wait(FunctionName="levels", WaiterConfig={"Delay": 0})
    assert lab.invoke("levels", {"do": "levels"})[2] == '{"level": "error", "n": 2}\n'
    assert kinds({"do": "exit", "status": 3})[-2:] == [("runtimeDone", "error"), ("report", "error")]


def test_functions_that_name_a_log_group_share_it_and_have_a_log_each(lab: Lab) -> None:
    """`json` has written to it already."""
    lab.create("shares", {"app.py": CODE}, LoggingConfig={"LogGroup": "/app/all"})
    context, _, _ = lab.invoke("shares", {"do": "context"})
    assert context["log_group_name"] == "/app/all"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/shares\[\$LATEST\][0-9a-f]{32}", context["log_stream_name"])
    logs = lab.endpoint.client(service="logs")
    names = [each["logGroupName"] for each in logs.describe_log_groups()["logGroups"]]
    assert "/app/all" in names
    assert "/aws/lambda/shares" not in names
    streams = [each["logStreamName"] for each in logs.describe_log_streams(logGroupName="/app/all")["logStreams"]]
    assert [each[11:].partition("[")[0] for each in streams] == ["json", "shares"]
    found = logs.get_log_events(logGroupName="/app/all", logStreamName=context["log_stream_name"], startFromHead=True)
    assert "".join(each["message"] for each in found["events"]) == lab.log("shares")
    (event,) = logs.filter_log_events(logGroupName="/app/all", filterPattern="printed")["events"]
    assert event["logStreamName"] == streams[0]


def test_a_bootstrap_runs_however_it_speaks_http(lab: Lab) -> None:
    lab.create("custom", {"bootstrap": BOOTSTRAP}, Runtime="provided.al2023", Handler="my.handler")
    assert lab.invoke("custom", {"a": 1})[:2] == ({"got": {"a": 1}}, None)
    assert lab.invoke("custom", {"do": "fail"})[:2] == (
        {"errorMessage": "own words", "errorType": "Own.Kind", "trace": ["a"]},
        "Unhandled",
    )
    said, _, _ = lab.invoke("custom", {"do": "exit", "status": 7})
    assert said["errorType"] == "Runtime.ExitError"
    assert said["errorMessage"].endswith(" Error: Runtime exited with error: exit status 7")
    assert lab.invoke("custom", {"a": 2})[0] == {"got": {"a": 2}}
    assert lab.log("custom").count("bootstrap of my.handler\n") == 2
    assert "INIT_START Runtime Version: provided:al2023." in lab.log("custom")


def test_what_cannot_be_run_says_why(lab: Lab) -> None:
    lab.create("empty", {"other": "x"}, Runtime="provided.al2023")
    said, error, _ = lab.invoke("empty")
    assert (said["errorType"], error) == ("Runtime.InvalidEntrypoint", "Unhandled")
    assert said["errorMessage"].endswith(
        " Error: the runtime provided.al2023 needs a file `bootstrap` in the code, or in a layer"
    )
    lab.create("damaged", {"bootstrap": b"\x7fELF nothing"}, Runtime="provided.al2023")
    said, _, _ = lab.invoke("damaged")
    assert said["errorMessage"].endswith("/bootstrap: exec format error")
    lab.create("ruby", {"app.rb": "1"}, Runtime="ruby3.3")
    said, _, _ = lab.invoke("ruby")
    assert said["errorMessage"].endswith(
        " Error: kflow cannot run the runtime ruby3.3: it runs python3.X, nodejsX.x and provided.*"
    )


@pytest.mark.skipif(not HAS_NODE, reason="`node` is not on PATH")
def test_a_function_of_node_runs(lab: Lab) -> None:
    lab.create("js", {"index.js": SCRIPT}, Runtime="nodejs22.x", Handler="index.handler")
    said, _, log = lab.invoke("js", {"a": "Ä"})
    assert said == {"event": {"a": "Ä"}, "name": "js", "left": True}
    assert re.search(r"Z\t[-0-9a-f]{36}\tINFO\tlogged { a: 1 }\n", log), log
    said, error, log = lab.invoke("js", {"do": "raise"})
    assert (said["errorType"], said["errorMessage"], error) == ("TypeError", "no such thing", "Unhandled")
    assert said["trace"][0] == "TypeError: no such thing"
    assert "\tERROR\tInvoke Error \t{" in log
    said, _, _ = lab.invoke("js", {"do": "exit", "status": 3})
    assert said["errorMessage"].endswith(" Error: Runtime exited with error: exit status 3")
    for name, wanted in (("callback", "called back"), ("nothing", None), ("never", None)):
        lab.create(f"js-{name}", {"index.js": SCRIPT}, Runtime="nodejs22.x", Handler=f"index.{name}")
        assert lab.invoke(f"js-{name}")[0] == wanted
    files = {"index.mjs": "export default 1;", "package.json": '{"exports": "./index.mjs"}'}
    layer = zipped({f"nodejs/node_modules/one/{name}": text for name, text in files.items()})
    made = lab.client.publish_layer_version(LayerName="one", Content={"ZipFile": layer})["LayerVersionArn"]
    source = "import one from 'one'; export const handler = async (event) => event.a + one;"
    lab.create("esm", {"index.mjs": source}, Runtime="nodejs22.x", Layers=[made])
    said, _, _ = lab.invoke("esm", {"a": 1})
    assert said["errorType"] == "Runtime.ImportModuleError"
    lab.client.update_function_configuration(FunctionName="esm", Handler="index.handler")
    lab.client.get_waiter("function_updated_v2").wait(FunctionName="esm", WaiterConfig={"Delay": 0})
    assert lab.invoke("esm", {"a": 1})[0] == 2


def test_records_of_a_stream_come_as_lambdas_event_and_a_crash_is_an_attempt(lab: Lab) -> None:
    code = textwrap.dedent("""\
        import base64, json, os
        def handler(event, context):
            with open(os.environ["SEEN"], "a") as file:
                file.write(json.dumps([os.getpid(), event]) + "\\n")
            if any(base64.b64decode(each["kinesis"]["data"]) == b"bad" for each in event["Records"]):
                os._exit(4)
    """)
    seen = lab.endpoint.folder / "seen.jsonl"
    lab.create("reader", {"app.py": code}, Environment={"Variables": {"SEEN": str(seen)}})
    lab.kinesis.create_stream(StreamName="orders", ShardCount=1)
    stream = eventually(lambda: active(lab.kinesis, "orders"))
    lab.client.create_event_source_mapping(
        FunctionName="reader",
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        MaximumRetryAttempts=1,
        BatchSize=1,
    )
    lab.kinesis.put_record(StreamName="orders", Data=b"\x00good", PartitionKey='"k"')
    lab.kinesis.put_record(StreamName="orders", Data=b"bad", PartitionKey="k")
    lab.kinesis.put_record(StreamName="orders", Data=b"last", PartitionKey="k")
    eventually(lambda: seen.exists() and len(seen.read_text().splitlines()) >= 4, seconds=30, what="four attempts")
    calls = [json.loads(line) for line in seen.read_text().splitlines()]
    (first,) = calls[0][1]["Records"]
    number = first["kinesis"].pop("sequenceNumber")
    assert first["kinesis"].pop("approximateArrivalTimestamp") > 1_700_000_000
    assert first == {
        "kinesis": {"kinesisSchemaVersion": "1.0", "partitionKey": '"k"', "data": "AGdvb2Q="},
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000000:{number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": ROLE,
        "awsRegion": "us-east-1",
        "eventSourceARN": stream,
    }
    datas = [base64.b64decode(each[1]["Records"][0]["kinesis"]["data"]) for each in calls]
    assert datas == [b"\x00good", b"bad", b"bad", b"last"]
    assert calls[0][0] == calls[1][0] != calls[2][0] != calls[3][0]
    assert "Runtime exited with error: exit status 4" in lab.log("reader")


def test_a_tumbling_window_hands_its_state_from_call_to_call_and_ends_with_one_without_records(lab: Lab) -> None:
    code = textwrap.dedent("""\
        import json, os
        def handler(event, context):
            with open(os.environ["SEEN"], "a") as file:
                file.write(json.dumps(event) + "\\n")
            return {"state": {"count": event["state"].get("count", 0) + len(event["Records"])}}
    """)
    seen = lab.endpoint.folder / "windows.jsonl"
    lab.create("counts", {"app.py": code}, Environment={"Variables": {"SEEN": str(seen)}})
    lab.kinesis.create_stream(StreamName="clicks", ShardCount=1)
    stream = eventually(lambda: active(lab.kinesis, "clicks"))
    for number in range(3):
        lab.kinesis.put_record(StreamName="clicks", Data=b"%d" % number, PartitionKey="k")
    lab.client.create_event_source_mapping(
        FunctionName="counts",
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        BatchSize=1,
        TumblingWindowInSeconds=1,
    )

    def calls() -> list[Any]:
        return [json.loads(line) for line in seen.read_text().splitlines()] if seen.exists() else []

    def is_over() -> bool:
        starts = {call["window"]["start"] for call in calls()}
        ended = {call["window"]["start"] for call in calls() if call["isFinalInvokeForWindow"]}
        return sum(len(call["Records"]) for call in calls()) == 3 and starts == ended

    eventually(is_over, seconds=30, what="three records, and the end of their windows")
    states: dict[str, dict[str, int]] = {}
    for call in calls():
        assert list(call) == [
            *["Records", "window", "state", "shardId", "eventSourceARN"],
            *["isFinalInvokeForWindow", "isWindowTerminatedEarly"],
        ]
        assert (call["shardId"], call["eventSourceARN"]) == ("shardId-000000000000", stream)
        start = call["window"]["start"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", start)
        assert call["state"] == states.get(start, {})
        assert bool(call["Records"]) is not call["isFinalInvokeForWindow"]
        states[start] = {"count": states.get(start, {}).get("count", 0) + len(call["Records"])}


def active(kinesis: Any, name: str) -> str | None:
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    return str(summary["StreamARN"]) if summary["StreamStatus"] == "ACTIVE" else None


def test_the_end_of_a_decorated_handlers_log_is_told_too(lab: Lab) -> None:
    _, error, log = lab.invoke("declared", {"Records": []})
    assert error is None
    assert re.match(r"START RequestId: \S+ Version: \$LATEST\nhere\nEND RequestId: ", log), log


def test_a_functions_process_ends_with_its_worker(lab: Lab) -> None:
    lab.create("short", {"app.py": CODE})
    said, _, _ = lab.invoke("short", {"do": "where"})
    assert os.path.isdir(said["tmp"])
    lab.client.delete_function(FunctionName="short")
    eventually(lambda: identify(said["pid"]) is None and not os.path.exists(said["tmp"]), what="the process to end")
