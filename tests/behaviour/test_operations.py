"""What people and programs see of a running system: status, metrics, logs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project import KFLOW, Project, project

ORDERS = """
    import sys, time
    from kflow import Record, on_stream

    @on_stream("orders")
    def stuck(record: Record) -> None:
        if record.json()["bad"]:
            raise ValueError("no quantity: a customer must say how many of them are wanted, or none is sent")

    @on_stream("orders", parallelization_factor=4)
    def wide(event, context):
        note(what="wide", count=len(event["Records"]))

    @on_stream("orders", maximum_retry_attempts=0, batch_size=1, on_failure="drop")
    def careless(event, context):
        raise KeyError("quantity")

    @on_stream("orders", batch_size=1000, maximum_batching_window_in_seconds=300)
    def patient(event, context):
        pass
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path, retry_backoff_scale=10)


def metric(shop: Project, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    total = 0.0
    path = shop.data_dir / "metrics.prom"
    for line in path.read_text().splitlines() if path.exists() else ():
        sample, _, value = line.rpartition(" ")
        wanted = all(f'{label}="{text}"' in sample for label, text in labels.items())
        if sample.partition("{")[0] == name and wanted:
            total += float(value)
    return total


def test_status_and_metrics_say_what_is_the_matter(shop: Project) -> None:
    shop.handler(ORDERS)
    shop.run("streams", "create", "orders", "--shards", "2")
    lines = [json.dumps({"id": number, "bad": number == 17}) for number in range(41)]
    (shop.folder / "orders.jsonl").write_text("\n".join(lines))
    shop.run("put", "orders", "--file", "orders.jsonl", "--key-field", "id")
    process = shop.start()

    def settled() -> dict[str, Any] | None:
        found = shop.json("status")
        by_name = {each["function"]: each for each in found["handlers"]}
        done = (by_name["stuck"]["blocked"], by_name["careless"]["dropped"], by_name["wide"]["processed"])
        return {**found, **by_name} if done == (1, 41, 41) else None

    found = shop.wait_for(settled, "stuck to be blocked, careless to drop all, wide to get all")
    stuck, wide, careless, patient = (found[name] for name in ("stuck", "wide", "careless", "patient"))
    (lane,) = [each for each in stuck["lanes"] if each["error_type"]]
    assert (stuck["state"], lane["error_type"], lane["attempt"] >= 1) == ("blocked", "ValueError", True)
    assert lane["behind"] >= 1
    assert stuck["iterator_age_ms"] > 0
    assert (wide["factor"], len(wide["lanes"]), wide["behind"], wide["state"]) == (4, 8, 0, "idle")
    assert sorted({each["lane"] for each in wide["lanes"]}) == [0, 1, 2, 3]
    assert (careless["dropped"], careless["parked"], careless["redelivered"], careless["lost"]) == (41, 0, 0, 0)
    assert (patient["state"], patient["behind"]) == ("window", 41)
    assert all(each["due_in_ms"] > 0 for each in patient["lanes"] if each["behind"])
    assert found["runtime"]["pid"] == process.pid
    assert (found["layout"], found["parked"]) == (2, 0)
    assert (found["streams"][0]["stored"], found["streams"][0]["lost"], found["streams"][0]["damage"]) == (41, 0, [])

    text = shop.run("status", "--lanes").stdout
    (blocked,) = [line for line in text.splitlines() if line.startswith("BLOCKED stuck orders/")]
    assert "ValueError: no quantity: a customer must say how many of them are wanted, or none is sent" in blocked
    assert " attempt " in blocked
    assert "orders/1 lane 3" in text
    assert "dropped" in text.splitlines()[2]

    shop.wait_for(lambda: metric(shop, "kflow_dropped_records_total", function="careless") == 41, "metrics")
    assert metric(shop, "kflow_up") == 1
    assert metric(shop, "kflow_blocked_lanes", function="stuck") == 1
    assert metric(shop, "kflow_lanes", function="wide", state="news") == 8
    assert shop.stop(process) == 130
    assert metric(shop, "kflow_up") == 0
    assert metric(shop, "kflow_records_total") == 41
    assert metric(shop, "kflow_succeeded_records_total", function="wide") == 41
    assert metric(shop, "kflow_failed_invocations_total", function="careless") == 41
    assert metric(shop, "kflow_behind_records", function="patient") == 41
    assert "careless          0" in " ".join(shop.output().split("stopped after")[1].splitlines())
    assert "dropped" in shop.output().split("stopped after")[1]


LOUD = """
    import time
    from kflow import on_stream

    @on_stream("orders", batch_size=1)
    def loud(event, context):
        number = event["Records"][0]["kinesis"]["partitionKey"]
        for part in range(6):
            print((f"{number}.{part} " + "x" * 1_000_000 + "\\n") * 1, end="")
        time.sleep(0.25)  # longer than a worker goes without a look at the size of its log
"""


def test_logs_are_rotated_and_followed(shop: Project) -> None:
    """Six invocations of 6 MB each: two to a file of 10 MiB, and a bit."""
    shop.handler(LOUD)
    shop.run("streams", "create", "orders")
    shop.run("put", "orders", "first", "--key", "0")
    process = shop.start()
    log = shop.data_dir / "logs" / "loud.log"
    shop.wait_for(lambda: log.exists() and b"REPORT" in log.read_bytes(), "the first invocation")
    follower = subprocess.Popen(
        [*KFLOW, "logs", "loud", "-f", "-n", "1", "--json"],
        cwd=shop.folder,
        env=shop.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    try:
        assert json.loads(follower.stdout.readline())["type"] == "report"
        (shop.folder / "more.jsonl").write_text("".join(f'{{"id": {number}}}\n' for number in range(1, 6)))
        shop.run("put", "orders", "--file", "more.jsonl", "--key-field", "id")
        seen: list[str] = []
        reports: list[dict[str, Any]] = []
        while len(reports) < 5:
            line = json.loads(follower.stdout.readline())
            if line["type"] == "output":
                seen.append(line["text"][:3])
            elif line["type"] == "report":
                reports.append(line)
    finally:
        follower.kill()
        follower.wait()
        follower.stdout.close()
    assert seen == [f"{number}.{part}" for number in range(1, 6) for part in range(6)]
    assert all(each["duration_ms"] >= 250 and each["memory_size_mb"] == 128 for each in reports)
    assert shop.stop(process) == 130
    files = sorted(each for each in log.parent.glob("loud.log*") if each.suffix != ".idx")
    assert [each.name for each in files] == ["loud.log", "loud.log.1", "loud.log.2"]
    assert all(each.stat().st_size < 17 << 20 for each in files)
    whole = [line for each in files for line in each.read_text().splitlines() if line.startswith("REPORT ")]
    assert len(whole) == 6
    assert len(shop.run("logs", "loud", "-n", "15").stdout.splitlines()) == 15  # of two files
