"""What a handler may count on, through the public door: a project, `kflow put`, `kflow run`."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project, project


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def put(shop: Project, first: int, last: int, key: str = "k", stream: str = "orders") -> None:
    (shop.folder / "numbers.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(first, last + 1)))
    shop.run("put", stream, "--file", "numbers.jsonl", "--key", key)


def create(shop: Project, shards: int = 1, name: str = "orders") -> None:
    shop.run("streams", "create", name, "--shards", str(shards))


def drain(shop: Project) -> str:
    done = shop.run("run", "--drain", "--timeout", "50")
    return done.stdout + done.stderr


def numbers(shop: Project, what: str = "record") -> list[int]:
    return [note["n"] for note in shop.seen(what=what)]


def test_the_event_form_gets_lambdas_event_with_its_keys_in_order(shop: Project) -> None:
    create(shop)
    shop.handler("""
        from kflow import on_stream
        @on_stream("orders")
        def bill(event, context):
            note(what="event", event=event, name=context.function_name, memory=context.memory_limit_in_mb,
                 left=context.get_remaining_time_in_millis(), arn=context.invoked_function_arn)
    """)
    put(shop, 1, 2)

    drain(shop)

    (note,) = shop.seen(what="event")
    assert list(note["event"]) == ["Records"]
    record = note["event"]["Records"][1]
    assert list(record) == [
        "kinesis", "eventSource", "eventVersion", "eventID", "eventName", "invokeIdentityArn", "awsRegion",
        "eventSourceARN",
    ]  # fmt: skip
    assert list(record["kinesis"]) == [
        "kinesisSchemaVersion", "partitionKey", "sequenceNumber", "data", "approximateArrivalTimestamp",
    ]  # fmt: skip
    assert base64.b64decode(record["kinesis"]["data"]) == b'{"n": 2}'
    assert record["kinesis"]["partitionKey"] == "k"
    assert record["eventID"] == f"shardId-000000000000:{record['kinesis']['sequenceNumber']}"
    assert len(record["kinesis"]["sequenceNumber"]) == 56
    assert record["eventSourceARN"] == "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
    assert note["name"] == "bill"
    assert note["memory"] == "128"
    assert 0 < note["left"] <= 3000
    assert note["arn"] == "arn:aws:lambda:us-east-1:123456789012:function:bill"


@pytest.mark.parametrize(
    "code",
    [
        "async def bill(record: Record) -> None:\n    await asyncio.sleep(0)\n    seen(record)",
        "def bill(record: Record, context) -> None:\n    seen(record)",
        "def bill(batch: Batch) -> None:\n    [seen(record) for record in batch]",
        "async def bill(batch: Batch) -> None:\n    [seen(record) for record in batch]",
        "def bill(record: Record[Order]) -> None:\n    note(what='record', n=record.value.n)",
        "def bill(batch: Batch[Order]) -> None:\n    [note(what='record', n=record.value.n) for record in batch]",
    ],
    ids=["async-record", "record-context", "batch", "async-batch", "typed-record", "typed-batch"],
)
def test_every_form_gets_every_record_in_order(shop: Project, code: str) -> None:
    create(shop)
    (shop.folder / "functions" / "app.py").write_text(
        "import asyncio\nfrom dataclasses import dataclass\nfrom kflow import Batch, Record, on_stream\n"
        "from note import note\n@dataclass\nclass Order:\n    n: int\n"
        "def seen(record):\n    note(what='record', n=record.json()['n'])\n"
        f"@on_stream('orders', batch_size=4)\n{code}\n"
    )
    put(shop, 1, 10)

    drain(shop)

    assert numbers(shop) == list(range(1, 11))


def test_handlers_of_one_stream_are_independent_consumers(shop: Project) -> None:
    create(shop)
    shop.handler("""
        from kflow import Record, on_stream
        @on_stream("orders")
        def bill(record: Record) -> None:
            note(what="bill", n=record.json()["n"])
        @on_stream("orders", maximum_retry_attempts=0)
        def ship(record: Record) -> None:
            raise RuntimeError("no ship")
    """)
    put(shop, 1, 3)

    drain(shop)
    put(shop, 4, 5)
    drain(shop)

    assert numbers(shop, "bill") == [1, 2, 3, 4, 5]
    summary = {entry["function"]: entry for entry in shop.json("status")["handlers"]}
    assert summary["bill"]["parked"] == 0
    assert summary["ship"]["parked"] == 5


def test_a_failing_batch_blocks_its_shard_and_is_shown_until_the_code_is_mended(shop: Project) -> None:
    create(shop, shards=2)
    shop.handler("""
        import pathlib
        from kflow import Record, on_stream
        @on_stream("orders")
        def bill(record: Record) -> None:
            n, key = record.json()["n"], record.partition_key
            if (key, n) == ("a", 2) and not pathlib.Path(__file__).with_name("mended").exists():
                raise ValueError("two")
            note(what="record", n=n, key=key)
    """)
    put(shop, 1, 3, key="a")  # shard 0
    put(shop, 1, 3, key="b")  # shard 1

    stuck = shop.run("run", "--drain", "--timeout", "2", check=1)
    before = [(note["key"], note["n"]) for note in shop.seen(what="record")]
    (shop.folder / "functions" / "mended").touch()
    drain(shop)

    assert "bill orders/0" in stuck.stdout + stuck.stderr
    assert "ValueError" in stuck.stdout + stuck.stderr
    assert sorted(before) == [("a", 1), ("b", 1), ("b", 2), ("b", 3)]
    assert [note["n"] for note in shop.seen(what="record", key="a")] == [1, 2, 3]
    assert [note["n"] for note in shop.seen(what="record", key="b")] == [1, 2, 3]


def test_a_partial_batch_response_settles_what_came_before_and_retries_the_rest(shop: Project) -> None:
    create(shop)
    shop.handler("""
        from kflow import Batch, on_stream
        @on_stream("orders", batch_size=3, maximum_retry_attempts=3, report_batch_item_failures=True)
        def bill(batch: Batch) -> None:
            for record in batch:
                n = record.json()["n"]
                note(what="record", n=n)
                if n == 6:
                    batch.failed(record)
    """)
    put(shop, 1, 6)

    drain(shop)

    assert numbers(shop) == [1, 2, 3, 4, 5, 6, 6, 6, 6, 6]
    (entry,) = shop.json("parked", "list")
    assert (entry["attempts"], entry["records"]) == (4, 1)


def test_records_younger_than_their_age_limit_reach_the_handler(shop: Project) -> None:
    create(shop)
    shop.handler("""
        from kflow import Record, on_stream
        @on_stream("orders", maximum_record_age_in_seconds=60)
        def bill(record: Record) -> None:
            note(what="record", n=record.json()["n"])
    """)
    put(shop, 1, 2)

    drain(shop)

    assert numbers(shop) == [1, 2]


def test_latest_starts_behind_what_is_there_and_is_remembered(shop: Project) -> None:
    create(shop)
    shop.handler("""
        from kflow import Record, on_stream
        @on_stream("orders", starting_position="LATEST")
        def bill(record: Record) -> None:
            note(what="record", n=record.json()["n"])
    """)
    put(shop, 1, 3)
    drain(shop)
    put(shop, 4, 5)

    drain(shop)

    assert numbers(shop) == [4, 5]


def test_a_batching_window_gathers_until_its_batch_is_full(shop: Project) -> None:
    create(shop)
    shop.handler("""
        from kflow import Batch, on_stream
        @on_stream("orders", batch_size=6, maximum_batching_window_in_seconds=300)
        def bill(batch: Batch) -> None:
            note(what="batch", numbers=[record.json()["n"] for record in batch])
    """)
    process = shop.start()
    put(shop, 1, 3)
    put(shop, 4, 6)

    shop.wait_for(lambda: shop.seen(what="batch"), "the window to end early")

    assert [note["numbers"] for note in shop.seen(what="batch")] == [[1, 2, 3, 4, 5, 6]]
    put(shop, 7, 7)
    assert shop.stop(process) == 130
    drain(shop)
    assert [note["numbers"] for note in shop.seen(what="batch")][1:] == [[7]]


def test_parked_records_can_be_sent_again_to_their_handler_alone(shop: Project) -> None:
    create(shop)
    shop.handler("""
        import pathlib
        from kflow import Record, on_stream
        @on_stream("orders", maximum_retry_attempts=0, bisect_batch_on_function_error=True)
        def bill(record: Record) -> None:
            n = record.json()["n"]
            if n == 2 and not pathlib.Path(__file__).with_name("mended").exists():
                raise ValueError("two")
            note(what="record", n=n)
    """)
    put(shop, 1, 3)
    drain(shop)
    process = shop.start()

    failed = shop.run("parked", "redrive", "1", check=1)
    (after,) = shop.json("parked", "list")
    (shop.folder / "functions" / "mended").touch()
    shop.run("parked", "redrive", "1")

    assert "ValueError" in failed.stdout + failed.stderr
    assert after["attempts"] == 2
    assert shop.json("parked", "list") == []
    assert numbers(shop)[-1] == 2
    assert shop.stop(process) == 130
    assert "(redrive)" in shop.logs()


def test_output_of_handlers_is_in_lambdas_lines(shop: Project) -> None:
    create(shop)
    shop.handler("""
        import logging, os
        from kflow import on_stream
        @on_stream("orders")
        def bill(event, context):
            print("printed")
            logging.getLogger().warning("warned")
            os.write(1, b"from C\\n")
    """)
    put(shop, 1, 1)

    drain(shop)

    lines = shop.logs().splitlines()
    assert lines[0].startswith("START RequestId: ")
    assert lines[1] == "printed"
    assert lines[2].startswith("[WARNING]\t")
    assert lines[2].endswith("\twarned")
    assert lines[3] == "from C"
    assert lines[4].startswith("END RequestId: ")
    assert "Init Duration: " in lines[5]


def test_records_of_a_key_stay_in_order_over_many_shards_and_workers(shop: Project) -> None:
    create(shop, shards=5)
    shop.handler("""
        from kflow import Record, on_stream
        @on_stream("orders", batch_size=7)
        def bill(record: Record) -> None:
            note(what="record", n=record.json()["n"], key=record.partition_key)
    """)
    process = shop.start()
    for key in ("a", "b", "c", "d", "e", "f"):
        put(shop, 1, 40, key=key)

    shop.wait_for(lambda: len(numbers(shop)) == 240)

    for key in ("a", "b", "c", "d", "e", "f"):
        assert [note["n"] for note in shop.seen(what="record", key=key)] == list(range(1, 41))
    assert shop.stop(process) == 130


def test_two_folders_may_both_have_an_app_and_a_module_beside_it(shop: Project) -> None:
    create(shop)
    for name in ("one", "two"):
        folder = shop.folder / "functions" / name
        folder.mkdir()
        (folder / "beside.py").write_text(f"NAME = {name!r}\n")
        (folder / "note.py").write_text((shop.folder / "functions" / "note.py").read_text())
        (folder / "app.py").write_text(
            "from beside import NAME\nfrom note import note\nfrom kflow import Record, on_stream\n"
            f"@on_stream('orders')\ndef {name}(record: Record) -> None:\n    note(what=NAME, n=record.json()['n'])\n"
        )
    put(shop, 1, 2)

    drain(shop)

    assert numbers(shop, "one") == [1, 2]
    assert numbers(shop, "two") == [1, 2]
