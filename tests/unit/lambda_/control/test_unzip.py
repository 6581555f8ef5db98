"""A zip, checked and unpacked: what becomes of good ones, and that no bad one leaves its folder or fills the disk."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile

import pytest

from kflow.lambda_.control import unzip
from kflow.lambda_.control.unzip import CannotUnzip, EmptyZip, TooLargeUnpacked, unpack
from tests.lambdaing import entry, zipped

COULD_NOT = "Could not unzip uploaded file. Please check your file, then try to upload again."


def made(*entries, method=zipfile.ZIP_DEFLATED):
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", method) as archive:
        for info, text in entries:
            archive.writestr(info, text)
    return found.getvalue()


def link(name, target):
    return entry(name, 0o777, stat.S_IFLNK), target


def file(name, text="x", mode=0o644):
    return entry(name, mode), text


def refused(content, tmp_path, kind=CannotUnzip):
    with pytest.raises(kind) as caught:
        unpack(content, f"{tmp_path}/out")
    return caught.value


def test_files_and_folders_are_made_with_their_content_and_modes(tmp_path):
    content = made(file("app.py", "a"), file("bin/bootstrap", "#!", 0o755), (entry("empty/", 0o755, stat.S_IFDIR), ""))
    assert unpack(content, f"{tmp_path}/out") == 3
    out = tmp_path / "out"
    assert (out / "app.py").read_text() == "a"
    assert stat.S_IMODE((out / "app.py").stat().st_mode) == 0o644
    assert stat.S_IMODE((out / "bin/bootstrap").stat().st_mode) == 0o755
    assert (out / "empty").is_dir()


def test_a_file_that_has_no_mode_is_a_plain_one_and_one_without_rights_can_be_read(tmp_path):
    content = bytearray(made(file("bare.py"), file("shut", "x", 0o000), file("rooted", "x", 0o4755)))
    first = content.index(b"PK\x01\x02")
    content[first + 38 : first + 42] = bytes(4)
    unpack(bytes(content), f"{tmp_path}/out")
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "out").iterdir()}
    assert modes == {"bare.py": 0o644, "shut": 0o400, "rooted": 0o755}


def test_of_two_files_of_a_name_the_last_one_counts(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = made(file("a", "1"), file("a", "2"))
    unpack(content, f"{tmp_path}/out")
    assert (tmp_path / "out" / "a").read_text() == "2"


def test_links_that_stay_inside_are_made(tmp_path):
    unpack(made(file("lib/real.so", "so"), link("lib/short.so", "real.so"), link("top", "lib/")), f"{tmp_path}/out")
    assert (tmp_path / "out/lib/short.so").read_text() == "so"
    assert (tmp_path / "out/top/real.so").read_text() == "so"


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "C:/evil", "C:evil", "..", "a/" + "b" * 256]
)
def test_names_that_lead_outside_or_are_too_long_are_refused(tmp_path, name):
    error = refused(made(file(name)), tmp_path)
    assert str(error) == COULD_NOT
    assert error.code == "InvalidParameterValueException"
    assert os.listdir(tmp_path) == []


def test_a_path_that_is_very_deep_is_refused(tmp_path):
    assert "too long" in refused(made(file("a/" * 201 + "f")), tmp_path).why


@pytest.mark.parametrize(
    "links",
    [
        [link("out", "../elsewhere")],
        [link("out", "/etc/passwd")],
        [link("p/q/r", "../.."), link("s", "p/q/r/../x")],  # inside by its letters, and not by where it leads
        [link("out", "")],
        [link("out", "x" * 5000)],
    ],
)
def test_links_that_lead_outside_are_refused(tmp_path, links):
    assert str(refused(made(file("f"), *links), tmp_path)) == COULD_NOT


def test_no_file_is_written_through_a_link(tmp_path):
    (tmp_path / "target").mkdir()
    error = refused(made(link("door", str(tmp_path / "target")), file("door/evil")), tmp_path)
    assert "door is a folder and something else too" in error.why
    assert os.listdir(tmp_path / "target") == []


def test_what_is_a_file_and_a_folder_is_refused(tmp_path):
    assert str(refused(made(file("a"), file("a/b")), tmp_path)) == COULD_NOT


def test_devices_are_refused(tmp_path):
    assert "neither a file" in refused(made((entry("fifo", 0o644, stat.S_IFIFO), "")), tmp_path).why


def test_nothing_and_a_zip_of_nothing_are_refused_as_empty(tmp_path):
    for content in (b"", made(), made((entry("d/", 0o755, stat.S_IFDIR), ""))):
        assert str(refused(content, tmp_path, EmptyZip)) == "Uploaded file must be a non-empty zip"


def test_what_is_no_zip_is_refused(tmp_path):
    whole = zipped()
    for content in (b"PK", b"\0" * 100, whole[:-10], whole[30:]):
        assert str(refused(content, tmp_path)) == COULD_NOT


def test_damaged_content_is_refused(tmp_path):
    content = bytearray(made(file("a", os.urandom(1000)), method=zipfile.ZIP_STORED))
    content[500] ^= 0xFF
    assert "CRC" in refused(bytes(content), tmp_path).why


def test_encrypted_files_are_refused(tmp_path):
    content = bytearray(zipped({"a": "x"}))
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    assert "is encrypted" in refused(bytes(content), tmp_path).why


def test_packings_that_only_some_programs_know_are_refused(tmp_path):
    info = entry("a", 0o644)
    info.compress_type = zipfile.ZIP_LZMA
    assert "packed in a way" in refused(made((info, "x")), tmp_path).why


def test_a_zip_that_says_it_comes_to_too_much_is_refused_before_anything_is_written(tmp_path):
    content = bytearray(made(file("a")))
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 262_144_001)
    error = refused(bytes(content), tmp_path, TooLargeUnpacked)
    assert str(error) == "Unzipped size must be smaller than 262144000 bytes"
    assert os.listdir(tmp_path) == []


def test_a_zip_whose_list_lies_of_a_size_is_refused(tmp_path):
    content = bytearray(made(file("a", b"\0" * 100_000)))
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 10)  # the size that the list says
    assert str(refused(bytes(content), tmp_path)) == COULD_NOT


def test_what_is_written_is_counted_too(tmp_path, monkeypatch):
    content = made(file("a", b"\0" * 600_000), file("b", b"\0" * 600_000))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = unzip.read(archive, len(content))
        monkeypatch.setattr(unzip, "UNPACKED_BYTES", 1_000_000)
        with pytest.raises(TooLargeUnpacked):
            unzip._write(archive, found, f"{tmp_path}/out", sync=False)


def test_entries_that_overlap_are_refused(tmp_path):
    content = bytearray(made(file("a", os.urandom(5000))))
    at = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    listed = bytes(content[at:end])
    doubled = content[:at] + listed * 3 + content[end:]
    record = doubled.index(b"PK\x05\x06")
    doubled[record + 8 : record + 12] = struct.pack("<HH", 3, 3)
    doubled[record + 12 : record + 16] = struct.pack("<I", len(listed) * 3)
    assert str(refused(bytes(doubled), tmp_path)) == COULD_NOT


def test_more_entries_than_any_package_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unzip, "ENTRIES", 2)
    assert "3 entries" in refused(made(file("a"), file("b"), file("c")), tmp_path).why


@pytest.mark.parametrize("count", [3, 65])
def test_all_of_it_can_be_made_durable(tmp_path, count):
    content = made(*(file(f"d/f{number}") for number in range(count)), link("l", "d"))
    assert unpack(content, f"{tmp_path}/out", sync=True) == count + 1
    assert len(os.listdir(tmp_path / "out" / "l")) == count
