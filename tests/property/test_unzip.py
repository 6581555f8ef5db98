"""Any zip, well made or torn: it is unpacked into its folder, or refused in Lambda's words; nothing else happens."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kflow.lambda_.control.unzip import unpack
from kflow.lambda_.errors import InvalidParameterValue
from tests.lambdaing import entry

PARTS = st.sampled_from(["a", "b", "..", ".", "", "é", "\\", "a b", "C:"])
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join).filter(bool)
KINDS = st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, 0])
ENTRIES = st.lists(st.tuples(NAMES, KINDS, st.one_of(NAMES, st.just("x" * 9))), max_size=8)


def made(entries: list[tuple[str, int, str]]) -> bytes:
    found = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two of a name
        with zipfile.ZipFile(found, "w") as archive:
            for name, kind, text in entries:
                archive.writestr(entry(name, 0o644, kind), text)
    return found.getvalue()


def check(content: bytes) -> None:
    base = Path(tempfile.mkdtemp())
    try:
        (base / "secret").write_text("s")
        try:
            unpack(content, str(base / "out"))
        except InvalidParameterValue:
            pass
        else:
            root = os.path.realpath(base / "out")
            for folder, folders, files in os.walk(base / "out"):
                for name in folders + files:
                    assert os.path.realpath(f"{folder}/{name}").startswith(root)
        assert {each.name for each in base.iterdir()} <= {"secret", "out"}
        assert (base / "secret").read_text() == "s"
    finally:
        shutil.rmtree(base)


@given(ENTRIES)
def test_whatever_names_and_links_are_in_it_nothing_comes_outside(entries: list[tuple[str, int, str]]) -> None:
    check(made(entries))


@given(ENTRIES, st.integers(0, 2000), st.integers(0, 255), st.integers(0, 2000))
def test_whatever_is_torn_or_flipped_in_it_is_refused_or_unpacked(
    entries: list[tuple[str, int, str]], at: int, bits: int, end: int
) -> None:
    content = bytearray(made(entries))
    content[at % len(content)] ^= bits
    check(bytes(content))
    check(bytes(content[: end % len(content)]))
