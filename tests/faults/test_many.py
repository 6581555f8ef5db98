"""Many shards with few descriptors, many handlers with few workers."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.writing import writing
from tests.project import KFLOW, Project, project

in_project = contextmanager(project)

SHARDS = 1_000
DESCRIPTORS = 1_024


def run_with_few_descriptors(shop: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command under a hard limit: nothing it starts may have more either."""
    return subprocess.run(
        ["/bin/sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *KFLOW, *arguments],
        cwd=shop.folder,
        env=shop.environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.parametrize("factor", [1, 4])
def test_a_thousand_shards_are_consumed_with_a_thousand_descriptors(tmp_path: Path, factor: int) -> None:
    with in_project(tmp_path, max_workers=2) as shop:
        with writing(DataFolder.open(shop.data_dir, create=True, fsync="none")) as log:
            stream = log.create_stream("orders", SHARDS)
            keys = [f"key-{n}" for n in range(3_000)]
            log.append(stream, Encoder(stream).encode_many(keys, [json.dumps({"n": n}).encode() for n in range(3_000)]))
        shop.handler(f"""
            from kflow import Batch, on_stream
            @on_stream("orders", batch_size=1000, parallelization_factor={factor})
            def bill(batch: Batch) -> None:
                for record in batch:
                    note(n=record.json()["n"])
        """)

        done = run_with_few_descriptors(shop, "run", "--drain", "--timeout", "100")

        assert done.returncode == 0, done.stdout + done.stderr
        assert sorted(note["n"] for note in shop.seen()) == list(range(3_000))


@pytest.mark.skipif(sys.platform != "linux", reason="a fresh interpreter for each of 200 handlers takes minutes")
def test_two_hundred_handlers_of_one_stream_share_a_few_workers(tmp_path: Path) -> None:
    with in_project(tmp_path, max_workers=4) as shop:
        shop.run("streams", "create", "orders", "--shards", "1")
        shop.handler(
            "from kflow import on_stream\n"
            + "".join(
                f"@on_stream('orders')\ndef handler_{number}(event, context):\n"
                f"    note(handler={number}, records=len(event['Records']))\n"
                for number in range(200)
            )
        )
        (shop.folder / "three.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"n": 3}\n')
        shop.run("put", "orders", "--file", "three.jsonl", "--key", "k")

        shop.run("run", "--drain", "--timeout", "110", seconds=120)

        seen = dict.fromkeys(range(200), 0)
        for note in shop.seen():
            seen[note["handler"]] += note["records"]
        assert set(seen.values()) == {3}
