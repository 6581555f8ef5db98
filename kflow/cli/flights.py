"""The demo's records: the packaged flights as JSON, and one in the middle that is broken."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import msgspec

FLIGHTS = 27_004
"""Departures in the packaged file."""

RECORDS = FLIGHTS + 1
BROKEN_AFTER = 13_502
"""How many flights are put before the broken record: half of them."""

TEXTS = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})
NOT_AVAILABLE = "NA"


def records(path: Path) -> Iterator[tuple[bytes, str]]:
    """Every record with its partition key, the aircraft, in the order of the file.

    Numbers become numbers, `NA` becomes null; an aircraft that is not known has the key `NA`. The broken record is the
    flight before it, with a delay in words.
    """
    encode = msgspec.json.Encoder().encode
    with gzip.open(path, "rb") as file:
        rows = csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))
        for number, row in enumerate(rows, 1):
            flight = {name: _value(name, text) for name, text in row.items()}
            key = row["tailnum"]
            yield encode(flight), key
            if number == BROKEN_AFTER:
                yield encode(flight | {"dep_delay": "two minutes"}), key


def _value(name: str, text: str) -> str | int | None:
    if text == NOT_AVAILABLE:
        return None
    return text if name in TEXTS else int(text)
