"""What `kflow put` reads, and the keys it gives."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path

import pytest

from kflow.cli.sources import Keys, batches, format_of, given, opened
from kflow.errors import UsageError


def read(text: bytes, form: str, keys: Keys | None = None) -> list[tuple[bytes, str]]:
    file = io.BufferedReader(io.BytesIO(text))
    return [record for batch in batches(file, form, keys or Keys(field="id"), "f") for record in batch]


def refused(text: bytes, form: str, keys: Keys | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        read(text, form, keys)
    return str(caught.value)


def test_json_lines_are_put_as_they_stand_with_the_key_of_a_field() -> None:
    assert read(b'{"id": "a",  "n": 1}\n\n {"id": 2}\r\n{"id": true}', "jsonl") == [
        (b'{"id": "a",  "n": 1}', "a"),
        (b'{"id": 2}', "2"),
        (b'{"id": true}', "true"),
    ]


def test_a_csv_row_becomes_a_json_object_of_texts() -> None:
    assert read(b'\xef\xbb\xbfid,name\n7,"O\'Hare, Chicago"\n\n8,"two\nlines"\n', "csv") == [
        (b'{"id":"7","name":"O\'Hare, Chicago"}', "7"),
        (b'{"id":"8","name":"two\\nlines"}', "8"),
    ]


def test_text_is_any_line() -> None:
    assert read(b"one\ntwo", "text", Keys(fixed="k")) == [(b"one", "k"), (b"two", "k")]


def test_without_a_key_each_record_has_a_random_one() -> None:
    (_, first), (_, second) = read(b"1\n2\n", "jsonl", Keys())
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert first != second


def test_lines_arrive_in_the_pieces_they_come_in() -> None:
    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.pieces = [b'{"id": 1}\n{"id"', b": 2}\n"]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:
            piece = self.pieces.pop(0) if self.pieces else b""
            buffer[: len(piece)] = piece
            return len(piece)

    found = list(batches(io.BufferedReader(Slow()), "jsonl", Keys(field="id"), "f"))
    assert found == [[(b'{"id": 1}', "1")], [(b'{"id": 2}', "2")]]


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        (b'{"id": 1}\n{"idd": 2}\n', "jsonl", "f line 2 has no field `id`; did you mean `idd`?"),
        (b'{"id": null}', "jsonl", "field `id` in f line 1 is null: a key must be text or a number"),
        (b'{"id": [1]}', "jsonl", "field `id` in f line 1 is [1]: a key must be text or a number"),
        (b'{"id": ""}', "jsonl", 'field `id` in f line 1 is "": a key must be text or a number'),
        (b"3", "jsonl", "f line 1 is no JSON object, so it has no field `id`"),
        (b"idd,name\n1,a\n", "csv", "f has no column `id`; did you mean `idd`?; columns: idd, name"),
        (b"id,name\n1\n", "csv", "f line 2 has 1 values for 2 columns"),
        (b"id,name\n,a\n", "csv", 'column `id` in f line 2 is "": a key must be text or a number'),
        (b"", "csv", "f is empty: the first line of CSV names the columns"),
        (b"x", "text", "text has no fields: give --key, or a format that has them (--format jsonl)"),
    ],
)
def test_bad_input_names_its_line_and_the_fix(text: bytes, form: str, message: str) -> None:
    assert refused(text, form) == message


def test_what_is_no_json_names_the_format_that_takes_it() -> None:
    message = refused(b"{", "jsonl")
    assert message.startswith("f line 1 is not JSON: ")
    assert message.endswith("; --format text puts any lines")


def test_arguments_are_records() -> None:
    assert list(given(['{"id": 1}', '{"id": 2}'], Keys(field="id"))) == [(b'{"id": 1}', "1"), (b'{"id": 2}', "2")]
    assert list(given(["any text"], Keys(fixed="k"))) == [(b"any text", "k")]


@pytest.mark.parametrize(
    ("path", "wanted", "form"),
    [
        ("a.csv", None, "csv"),
        ("a.csv.gz", None, "csv"),
        ("a.json", None, "jsonl"),
        (None, None, "jsonl"),
        ("a.csv", "text", "text"),
    ],
)
def test_the_format_is_the_one_asked_for_or_by_name(path: str | None, wanted: str | None, form: str) -> None:
    assert format_of(path, wanted) == form


def test_gzip_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": 1}\n'))
    with opened(str(path)) as file:
        assert list(batches(file, "jsonl", Keys(field="id"), "f")) == [[(b'{"id": 1}', "1")]]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"cannot read .*/none.jsonl: No such file or directory"),
        opened(str(tmp_path / "none.jsonl")),
    ):
        pass
