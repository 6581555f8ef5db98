"""What `kflow put` puts: lines of JSON, CSV or text, and the partition key of each."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from kflow.errors import UsageError
from kflow.settings import nearest

FORMATS = ("jsonl", "csv", "text")
_READ_BYTES = 256 * 1024
_CSV_ROWS = 500


class Keys(NamedTuple):
    """Where partition keys come from: a fixed one, a field of each record, or a new random one each."""

    fixed: str | None = None
    field: str | None = None

    def describe(self) -> str:
        """In words, for the line that says what was put."""
        if self.fixed is not None:
            return f"key {self.fixed}"
        return f"key: field {self.field}" if self.field is not None else "a random key each"


@contextmanager
def opened(path: str | None) -> Iterator[BinaryIO]:
    """A file, unpacked where it ends in `.gz`; standard input for None or `-`.

    Raises:
        UsageError: it cannot be read.
    """
    if path is None or path == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(path).open("rb") as file:
            if path.endswith(".gz"):
                with gzip.open(file, "rb") as unpacked:
                    yield unpacked  # type: ignore[misc]  # a GzipFile reads like any binary file
            else:
                yield file
    except gzip.BadGzipFile as error:
        raise UsageError(f"{path} is not gzip: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def format_of(path: str | None, wanted: str | None) -> str:
    """The format: as asked, else by the file's name, else JSON lines."""
    if wanted is not None:
        return wanted
    suffixes = Path(path).suffixes if path else []
    return "csv" if ".csv" in suffixes else "jsonl"


def batches(file: BinaryIO, form: str, keys: Keys, name: str) -> Iterator[list[tuple[bytes, str]]]:
    """Records in the batches they arrive in: a line that is typed is there at once, a file comes in large pieces.

    Args:
        file: to read to its end.
        form: one of `FORMATS`.
        keys: where partition keys come from.
        name: what messages call the file.

    Raises:
        UsageError: a line that is not in the format, or has no key; names file and line.
    """
    if form == "csv":
        yield from _csv(file, keys, name)
        return
    pick = _json_key(keys, name) if form == "jsonl" else _text_key(keys)
    number = 0
    for lines in _lines(file):
        records = []
        for line in lines:
            number += 1
            data = line.strip() if form == "jsonl" else line
            if data:
                records.append((data, pick(data, number)))
        if records:
            yield records


def given(texts: Sequence[str], keys: Keys) -> Iterator[tuple[bytes, str]]:
    """Records out of arguments."""
    pick = _json_key(keys, "DATA") if keys.field is not None else _text_key(keys)
    for number, text in enumerate(texts, 1):
        data = text.encode("utf-8", "surrogateescape")
        yield data, pick(data, number)


def _lines(file: BinaryIO) -> Iterator[list[bytes]]:
    rest = b""
    while piece := file.read1(_READ_BYTES):  # type: ignore[attr-defined]  # every buffered reader has it
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        if lines:
            yield [line.removesuffix(b"\r") for line in lines]
    if rest:
        yield [rest.removesuffix(b"\r")]


def _text_key(keys: Keys) -> Callable[[bytes, int], str]:
    if keys.field is not None:
        raise UsageError("text has no fields: give --key, or a format that has them (--format jsonl)")
    fixed = keys.fixed
    return lambda _data, _number: _random_key() if fixed is None else fixed


def _json_key(keys: Keys, name: str) -> Callable[[bytes, int], str]:
    decode = msgspec.json.Decoder().decode

    def pick(data: bytes, number: int) -> str:
        place = f"{name} line {number}" if name != "DATA" else f"DATA {number}"
        try:
            value = decode(data)
        except msgspec.DecodeError as error:
            raise UsageError(f"{place} is not JSON: {error}; --format text puts any lines") from error
        if keys.field is None:
            return _random_key() if keys.fixed is None else keys.fixed
        if not isinstance(value, dict):
            raise UsageError(f"{place} is no JSON object, so it has no field `{keys.field}`")
        if keys.field not in value:
            raise UsageError(f"{place} has no field `{keys.field}`{nearest(keys.field, value)}")
        return _as_key(value[keys.field], f"field `{keys.field}` in {place}")

    return pick


def _csv(file: BinaryIO, keys: Keys, name: str) -> Iterator[list[tuple[bytes, str]]]:
    rows = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
    encode = msgspec.json.Encoder().encode
    try:
        columns = next(rows, None)
        if columns is None:
            raise UsageError(f"{name} is empty: the first line of CSV names the columns")
        if keys.field is not None and keys.field not in columns:
            raise UsageError(
                f"{name} has no column `{keys.field}`{nearest(keys.field, columns)}; columns: {', '.join(columns)}"
            )
        at = columns.index(keys.field) if keys.field is not None else None
        records: list[tuple[bytes, str]] = []
        for row in rows:
            if not row:
                continue
            place = f"{name} line {rows.line_num}"
            if len(row) != len(columns):
                raise UsageError(f"{place} has {len(row)} values for {len(columns)} columns")
            key = keys.fixed if at is None else _as_key(row[at], f"column `{keys.field}` in {place}")
            records.append((encode(dict(zip(columns, row, strict=True))), _random_key() if key is None else key))
            if len(records) == _CSV_ROWS:
                yield records
                records = []
        if records:
            yield records
    except csv.Error as error:
        raise UsageError(f"{name} line {rows.line_num} is not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8: {error}") from error


def _as_key(value: Any, place: str) -> str:
    if isinstance(value, (dict, list)) or value is None or value == "":
        raise UsageError(f"{place} is {msgspec.json.encode(value).decode()}: a key must be text or a number")
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _random_key() -> str:
    return uuid.uuid4().hex[:16]
