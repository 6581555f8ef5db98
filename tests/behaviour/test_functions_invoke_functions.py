"""A function waits for another one by an SDK, with one place for both: it is not counted meanwhile."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import boto3

from tests.deadline import eventually
from tests.lambdaing import ROLE, zipped
from tests.served import Served, served

HANDLERS = """\
    import json
    import boto3
    import kflow

    def call(name, event):
        answer = boto3.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
        return json.loads(answer["Payload"].read())

    @kflow.on_stream("orders", timeout=30)
    def orders(event, context):
        if "Records" in event:
            open(event["Records"][0]["kinesis"]["partitionKey"], "w").write(call("bill", {"of": "batch"}))
            return None
        return ["orders", call("bill", event)]

    @kflow.on_stream("orders-2", timeout=30)
    def again(event, context):
        left = event["left"]
        return [left, *(call("again", {"left": left - 1}) if left else [])]
"""
CODE = """\
import json, boto3
def handler(event, context):
    if "next" in event:
        answer = boto3.client("lambda").invoke(FunctionName=event["next"], Payload=json.dumps({"left": 0}))
        return json.loads(answer["Payload"].read())
    return event["of"]
"""


def invoke(endpoint: Served, name: str, **event: object) -> object:
    answer = endpoint.client(service="lambda").invoke(FunctionName=name, Payload=json.dumps(event))
    return answer.get("FunctionError"), json.loads(answer["Payload"].read())


def test_a_function_and_the_one_that_it_waits_for_share_the_only_place(tmp_path: Path) -> None:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "app.py").write_text(textwrap.dedent(HANDLERS))
    with served(tmp_path, command="run", KFLOW_MAX_WORKERS="1") as endpoint:
        endpoint.client(service="lambda").create_function(
            FunctionName="bill",
            Runtime=f"python3.{sys.version_info.minor}",
            Role=ROLE,
            Handler="app.handler",
            Timeout=30,
            Code={"ZipFile": zipped({"app.py": CODE})},
            Environment={"Variables": {"PYTHONPATH": str(Path(boto3.__file__).parents[1])}},
        )
        assert invoke(endpoint, "orders", of="invocation") == (None, ["orders", "invocation"])
        assert invoke(endpoint, "again", left=2) == (None, [2, 1, 0])
        assert invoke(endpoint, "bill", next="again") == (None, [0])

        done = tmp_path / "done"
        endpoint.client().put_record(StreamName="orders", Data=b"{}", PartitionKey=str(done))
        eventually(lambda: done.exists() and done.read_text() == "batch", seconds=60, what="the batch to have run")
