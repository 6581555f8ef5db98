"""`import kflow` runs in Lambda and in each worker: it must not load what only the runtime needs."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    "asyncio",
    "boto3",
    "botocore",
    "concurrent.futures",
    "email",
    "http",
    "importlib.metadata",
    "multiprocessing",
    "numpy",
    "pluggy",
    "pydantic",
    "sqlite3",
    "ssl",
    "subprocess",
    "unittest",
    "urllib.request",
    "xml",
}


def loaded_by(statement: str) -> set[str]:
    """Modules that a fresh interpreter has after `statement`, and had not before it."""
    lines = [
        "import json, sys",
        "before = set(sys.modules)",
        statement,
        "print(json.dumps([*set(sys.modules) - before]))",
    ]
    output = subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True).stdout
    return set(json.loads(output))


def test_import_kflow_loads_nothing_heavy() -> None:
    assert loaded_by("import kflow") & HEAVY == set()


def test_import_kflow_loads_no_third_party_package_but_msgspec_and_what_that_loads() -> None:
    packages = {name.partition(".")[0] for name in loaded_by("import kflow") - loaded_by("import msgspec")}
    assert packages - sys.stdlib_module_names == {"kflow"}


def test_declaring_a_handler_loads_nothing_heavy() -> None:
    assert (
        loaded_by(
            "from kflow import Batch, Record, on_stream\n"
            "@on_stream('orders', batch_size=10)\n"
            "def bill(record: Record): pass\n"
        )
        & HEAVY
        == set()
    )


def test_declaring_a_handler_of_a_queue_loads_nothing_heavy() -> None:
    assert (
        loaded_by(
            "from kflow import Message, Messages, on_queue\n"
            "@on_queue('jobs', batch_size=10)\n"
            "def work(message: Message): pass\n"
        )
        & HEAVY
        == set()
    )
