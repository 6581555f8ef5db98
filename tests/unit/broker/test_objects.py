from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kflow.broker.files import Files
from kflow.broker.objecterrors import (
    BucketAlreadyOwnedByYou,
    BucketNotEmpty,
    InvalidBucketName,
    InvalidKey,
    InvalidRange,
    KeyTooLong,
    NoSuchBucket,
    NoSuchKey,
)
from kflow.broker.objects import About, Objects
from kflow.errors import StorageError, StorageFull

MARKDOWN = About(content_type="text/markdown", headers={"cache-control": "no-cache"}, metadata={"by": "ada"})


def objects(folder: Path, files: Files | None = None) -> Objects:
    made = Objects(files or Files(), folder / "s3", sync=False)
    made.ensure_bucket("code")
    return made


def ours(folder: Path, kind: str) -> list[str]:
    try:
        return sorted(os.listdir(folder / "s3" / "code" / ".objects" / kind))
    except FileNotFoundError:
        return []


def test_an_object_is_a_plain_file(tmp_path: Path) -> None:
    put = objects(tmp_path).put("code", "in/a folder/é.zip", b"zip")
    assert (tmp_path / "s3" / "code" / "in" / "a folder" / "é.zip").read_bytes() == b"zip"
    assert (put.size, put.etag) == (3, "adcdbd79a8d84175c229b192aadc02f2")
    assert objects(tmp_path).get("code", "in/a folder/é.zip") == (put, b"zip")
    assert ours(tmp_path, "about") == ours(tmp_path, "data") == ours(tmp_path, "tmp") == []


def test_a_file_put_there_by_hand_is_an_object(tmp_path: Path) -> None:
    made = objects(tmp_path)
    (tmp_path / "s3" / "code" / "by").mkdir()
    (tmp_path / "s3" / "code" / "by" / "hand").write_bytes(b"zip")
    assert made.get("code", "by/hand")[1] == b"zip"
    assert made.head("code", "by/hand").etag == "adcdbd79a8d84175c229b192aadc02f2"
    assert made.list("code").keys == ["by/hand"]
    (tmp_path / "s3" / "code" / "by" / "hand").write_bytes(b"other")
    assert made.head("code", "by/hand").etag == "795f3202b17cb6bc3d4b771d8c6c9eaf"


def test_a_folder_made_by_hand_is_a_bucket(tmp_path: Path) -> None:
    made = objects(tmp_path)
    (tmp_path / "s3" / "mine").mkdir()
    (tmp_path / "s3" / "Not_a_bucket").mkdir()
    assert [each.name for each in made.buckets()] == ["code", "mine"]
    made.put("mine", "a", b"")
    assert made.list("mine").keys == ["a"]


def test_what_is_said_of_an_object_comes_back(tmp_path: Path) -> None:
    put = objects(tmp_path).put("code", "a", b"zip", MARKDOWN)
    assert put.about == MARKDOWN
    assert objects(tmp_path).head("code", "a") == put


def test_an_etag_that_is_given_is_kept(tmp_path: Path) -> None:
    objects(tmp_path).put("code", "a", b"zip", About(etag="0123456789abcdef0123456789abcdef-2"))
    assert objects(tmp_path).head("code", "a").etag == "0123456789abcdef0123456789abcdef-2"


def test_putting_again_replaces_content_and_what_is_said_of_it(tmp_path: Path) -> None:
    made = objects(tmp_path)
    made.put("code", "a", b"zip", MARKDOWN)
    made.put("code", "a", b"zip")
    assert made.head("code", "a").about == About()
    assert ours(tmp_path, "about") == []


def test_a_file_changed_by_hand_loses_what_was_said_of_it(tmp_path: Path) -> None:
    objects(tmp_path).put("code", "a", b"zip", MARKDOWN)
    (tmp_path / "s3" / "code" / "a").write_bytes(b"zap")
    os.utime(tmp_path / "s3" / "code" / "a", ns=(1, 1))
    assert objects(tmp_path).head("code", "a").about == About()


def test_a_file_that_was_copied_keeps_what_was_said_of_it(tmp_path: Path) -> None:
    objects(tmp_path).put("code", "a", b"zip", MARKDOWN)
    os.utime(tmp_path / "s3" / "code" / "a", ns=(1, 1))
    assert objects(tmp_path).head("code", "a").about == MARKDOWN


def test_a_damaged_description_leaves_the_object(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    objects(tmp_path).put("code", "a", b"zip", MARKDOWN)
    (name,) = ours(tmp_path, "about")
    (tmp_path / "s3" / "code" / ".objects" / "about" / name).write_bytes(b'{"crc":"00000000","key":"a"}')
    assert objects(tmp_path).get("code", "a")[1] == b"zip"
    assert objects(tmp_path).head("code", "a").about == About()
    assert "its content type and metadata are lost" in caplog.text


@pytest.mark.parametrize(
    "key",
    [
        *("/", "a/", "//a", "a//b", ".", "..", "../up", "a/../b", "./a", ".objects/data/=a", ".OBJECTS", "a\0b"),
        *("é" * 128, "x" * 256, "/etc/passwd", "~" * 1024, "\n", "%2e%2e/"),
    ],
)
def test_keys_that_no_path_can_be_are_kept_all_the_same(tmp_path: Path, key: str) -> None:
    made = objects(tmp_path)
    made.put("code", key, b"content", MARKDOWN)
    assert made.get("code", key)[1] == b"content"
    assert made.head("code", key).about == MARKDOWN
    assert made.list("code").keys == [key]
    assert sorted(os.listdir(tmp_path)) == ["s3"]
    assert os.listdir(tmp_path / "s3") == ["code"]
    assert made.delete("code", key)
    assert made.list("code").keys == []
    assert ours(tmp_path, "about") == ours(tmp_path, "data") == []


def test_a_long_key_without_a_description_is_listed(tmp_path: Path) -> None:
    objects(tmp_path).put("code", "/" * 1024, b"")
    objects(tmp_path).put("code", "/" * 1024, b"again")
    assert objects(tmp_path).list("code").keys == ["/" * 1024]


@pytest.mark.parametrize("order", [("a", "a/b", "a/b/c"), ("a/b/c", "a/b", "a"), ("a/b", "a", "a/b/c")])
def test_a_key_may_be_the_beginning_of_another(tmp_path: Path, order: tuple[str, ...]) -> None:
    made = objects(tmp_path)
    for key in order:
        made.put("code", key, key.encode())
    assert [made.get("code", key)[1] for key in order] == [key.encode() for key in order]
    assert made.list("code").keys == ["a", "a/b", "a/b/c"]
    made.put("code", order[-1], b"new")
    assert made.get("code", order[-1])[1] == b"new"
    for key in order:
        assert made.delete("code", key)
        assert not made.delete("code", key)
    assert made.list("code").keys == []


def test_an_object_that_had_to_be_escaped_stays_one(tmp_path: Path) -> None:
    made = objects(tmp_path)
    made.put("code", "a", b"file")
    made.put("code", "a/b", b"escaped")
    made.delete("code", "a")
    made.put("code", "a/b", b"new")
    assert made.get("code", "a/b")[1] == b"new"
    assert made.list("code").keys == ["a/b"]


class Folding(Files):
    """A file system that takes `A` for `a`, as far as is looked at."""

    def stat(self, path: str | os.PathLike[str], /) -> os.stat_result:
        if ".probe-" in os.fspath(path):
            path = os.fspath(path).replace(".probe-", ".Probe-")
        return super().stat(path)


def test_where_case_is_folded_capital_letters_are_escaped(tmp_path: Path) -> None:
    made = objects(tmp_path, Folding())
    for key in ("Read.me", "read.me", "caf\u00e9", "cafe\u0301"):
        made.put("code", key, key.encode())
    assert sorted(each for each in os.listdir(tmp_path / "s3" / "code") if each != ".objects") == ["read.me"]
    assert ours(tmp_path, "data") == ["=%52ead.me", "=caf%C3%A9", "=cafe%CC%81"]
    assert made.get("code", "Read.me")[1] == b"Read.me"
    assert made.list("code").keys == ["Read.me", "cafe\u0301", "caf\u00e9", "read.me"]


def test_nothing_is_read_or_written_through_a_link(tmp_path: Path) -> None:
    made = objects(tmp_path)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    (tmp_path / "s3" / "code" / "folder").symlink_to(tmp_path / "secret")
    (tmp_path / "s3" / "code" / "file").symlink_to(tmp_path / "secret" / "key")
    os.mkfifo(tmp_path / "s3" / "code" / "pipe")
    for key in ("folder/key", "file", "pipe"):
        with pytest.raises(NoSuchKey, match=r"^The specified key does not exist\.$"):
            made.get("code", key)
    assert made.list("code").keys == []
    made.put("code", "folder/key", b"mine")
    made.put("code", "file", b"mine")
    assert (tmp_path / "secret" / "key").read_bytes() == b"secret"
    assert made.get("code", "folder/key")[1] == made.get("code", "file")[1] == b"mine"


@pytest.mark.parametrize(
    "name",
    [
        *("ab", "a" * 64, "Upper", "under_score", "-a-", "a..b", "192.168.5.4", "xn--a", "sthree-a", "amzn-s3-demo-a"),
        *("a-s3alias", "a--ol-s3", "abc.mrap", "a--x-s3", "..", ".", "", "a/b", "a\0b", "abc\n"),
    ],
)
def test_names_that_are_none_of_a_bucket_are_refused(tmp_path: Path, name: str) -> None:
    made = objects(tmp_path)
    with pytest.raises(InvalidBucketName, match=r"^The specified bucket is not valid\.$"):
        made.create_bucket(name)
    with pytest.raises(NoSuchBucket, match=r"^The specified bucket does not exist$"):
        made.get(name, "a")


@pytest.mark.parametrize("name", ["abc", "a" * 63, "1.2.3", "a.b-c.9", "0-0"])
def test_names_of_buckets(tmp_path: Path, name: str) -> None:
    made = objects(tmp_path)
    made.create_bucket(name)
    assert made.has_bucket(name)
    with pytest.raises(BucketAlreadyOwnedByYou):
        made.create_bucket(name)


def test_only_an_empty_bucket_is_deleted(tmp_path: Path) -> None:
    made = objects(tmp_path)
    made.put("code", "a/b", b"", MARKDOWN)
    with pytest.raises(BucketNotEmpty):
        made.delete_bucket("code")
    made.delete("code", "a/b")
    made.delete_bucket("code")
    assert made.buckets() == []
    assert os.listdir(tmp_path / "s3") == []
    with pytest.raises(NoSuchBucket):
        made.delete_bucket("code")


def test_all_buckets_can_be_removed(tmp_path: Path) -> None:
    made = objects(tmp_path)
    made.put("code", "a/b", b"")
    made.put("code", "a/", b"")
    made.clear()
    made.clear()
    assert made.buckets() == []
    assert os.listdir(tmp_path) == []


def test_keys_that_are_none(tmp_path: Path) -> None:
    made = objects(tmp_path)
    with pytest.raises(InvalidKey):
        made.put("code", "", b"")
    with pytest.raises(InvalidKey):
        made.put("code", "\ud800", b"")
    with pytest.raises(KeyTooLong):
        made.put("code", "é" * 513, b"")


def test_a_part_of_an_object(tmp_path: Path) -> None:
    made = objects(tmp_path)
    made.put("code", "a", b"0123456789")
    assert made.get("code", "a", 3, 4)[1] == b"3456"
    assert made.get("code", "a", 8)[1] == made.get("code", "a", 8, 100)[1] == made.get("code", "a", -2)[1] == b"89"
    assert made.get("code", "a", -100)[1] == b"0123456789"
    assert made.get("code", "a", 0, 0)[1] == b""
    with pytest.raises(InvalidRange):
        made.get("code", "a", 10)
    made.put("code", "empty", b"")
    assert made.get("code", "empty")[1] == b""


def test_content_may_come_in_pieces(tmp_path: Path) -> None:
    made = objects(tmp_path)
    put = made.put("code", "a", (b"%d" % number for number in range(10)))
    assert (put.size, put.etag) == (10, "781e5e245d69b566979b86e28d23f2c7")
    assert made.get("code", "a")[1] == b"0123456789"


def test_an_open_object_stays_what_it_was(tmp_path: Path) -> None:
    made = objects(tmp_path)
    made.put("code", "a", b"old", MARKDOWN)
    with made.open("code", "a") as opened:
        made.put("code", "a", b"newer")
        assert opened.object.about == MARKDOWN
        assert opened.read(0, 10) == b"old"


def test_the_folder_of_the_last_object_goes_with_it(tmp_path: Path) -> None:
    made = objects(tmp_path)
    made.put("code", "a/b/c", b"")
    made.put("code", "a/d", b"")
    made.delete("code", "a/b/c")
    assert sorted(os.listdir(tmp_path / "s3" / "code")) == [".objects", "a"]
    assert os.listdir(tmp_path / "s3" / "code" / "a") == ["d"]


def test_keys_are_listed_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    made = objects(tmp_path)
    wanted = ["!", "A", "a", "a!", "a-b", "a.txt", "a/", "a/b", "a/b/c", "a0", "b", "é", "ﬀ", "😀"]
    for key in reversed(wanted):
        made.put("code", key, b"")
    assert made.list("code").keys == wanted
    assert sorted(wanted, key=str.encode) == wanted


def test_a_listing_has_pages(tmp_path: Path) -> None:
    made = objects(tmp_path)
    for key in ("a", "a/", "a/1", "a/2", "b/1", "b/2", "c"):
        made.put("code", key, b"")
    first = made.list("code", limit=3)
    assert first == (["a", "a/", "a/1"], [], "a/1")
    assert made.list("code", after=first.last, limit=3) == (["a/2", "b/1", "b/2"], [], "b/2")
    assert made.list("code", after="b/2", limit=3) == (["c"], [], "")
    assert made.list("code", prefix="b/") == (["b/1", "b/2"], [], "")
    assert made.list("code", prefix="b/1", after="b/1") == ([], [], "")
    assert made.list("code", prefix="a") == (["a", "a/", "a/1", "a/2"], [], "")
    assert made.list("code", after="a/") == (["a/1", "a/2", "b/1", "b/2", "c"], [], "")


def test_a_listing_sums_up_what_is_behind_a_delimiter(tmp_path: Path) -> None:
    made = objects(tmp_path)
    for key in ("a", "a/1", "a/2", "b/1", "b/2/3", "b/2/4", "c"):
        made.put("code", key, b"")
    assert made.list("code", delimiter="/") == (["a", "c"], ["a/", "b/"], "")
    assert made.list("code", delimiter="/", prefix="b/") == (["b/1"], ["b/2/"], "")
    assert made.list("code", delimiter="/", limit=2) == (["a"], ["a/"], "a/")
    assert made.list("code", delimiter="/", limit=2, after="a/") == (["c"], ["b/"], "")
    assert made.list("code", delimiter="/", after="a/1") == (["c"], ["a/", "b/"], "")
    assert made.list("code", delimiter="2/") == (["a", "a/1", "a/2", "b/1", "c"], ["b/2/"], "")


class Full(Files):
    """A disk that is full from a file on."""

    def __init__(self, what: str) -> None:
        self.what = what

    def pwrite(self, fd: int, content: bytes, offset: int, /) -> int:
        if content.startswith(b"new"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().pwrite(fd, content, offset)

    __slots__ = ("what",)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    objects(tmp_path).put("code", "a", b"old", MARKDOWN)
    with pytest.raises(StorageFull, match="cannot put code/a: the disk is full"):
        objects(tmp_path, Full("x")).put("code", "a", b"new")
    assert objects(tmp_path).get("code", "a")[1] == b"old"
    assert objects(tmp_path).head("code", "a").about == MARKDOWN
    assert ours(tmp_path, "tmp") == []


class Dies(Exception):
    pass


class Killed(Files):
    """Every call that changes something dies, from the n-th one on."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Dies

    def pwrite(self, fd: int, content: bytes, offset: int, /) -> int:
        self._count()
        return super().pwrite(fd, content, offset)

    def replace(self, source: str | os.PathLike[str], target: str | os.PathLike[str], /) -> None:
        self._count()
        super().replace(source, target)

    def unlink(self, path: str | os.PathLike[str], /) -> None:
        self._count()
        super().unlink(path)

    def mkdir(self, path: str | os.PathLike[str], mode: int = 0o777, /) -> None:
        self._count()
        super().mkdir(path, mode)


@pytest.mark.parametrize("key", ["a/b", "a/", "a/" + "é" * 200])
@pytest.mark.parametrize("is_new_plain", [False, True])
def test_a_kill_between_any_two_writes_leaves_old_or_new(tmp_path: Path, key: str, is_new_plain: bool) -> None:
    old, new = MARKDOWN, About() if is_new_plain else About(content_type="text/html")
    seen = set()
    for kill_at in range(40):
        made = objects(tmp_path)
        made.put("code", key, b"content", old)
        try:
            objects(tmp_path, Killed(kill_at)).put("code", key, b"changed", new)
        except Dies:
            pass
        else:
            break
        found, content = objects(tmp_path).get("code", key)
        assert (content, found.about) in ((b"content", old), (b"changed", new))
        seen.add(content)
        assert objects(tmp_path).list("code").keys == [key]
    else:
        pytest.fail("it never came to an end")
    assert b"content" in seen


def test_what_an_earlier_process_left_half_written_is_removed(tmp_path: Path) -> None:
    made = objects(tmp_path)
    made.put("code", "a", b"")
    (tmp_path / "s3" / "code" / ".objects" / "tmp" / "object.0-0.tmp").write_bytes(b"half")
    objects(tmp_path).put("code", "a", b"")
    assert ours(tmp_path, "tmp") == []


def test_many_threads_put_and_delete_beside_each_other(tmp_path: Path) -> None:
    made = objects(tmp_path)

    def work(number: int) -> None:
        for turn in range(20):
            about = About(content_type=f"text/{number}-{turn}")
            made.put("code", "shared/one", b"%d-%d" % (number, turn), about)
            made.put("code", f"folder/{number}", b"x")
            made.delete("code", f"folder/{number}")
            with made.open("code", "shared/one") as opened:
                assert opened.object.about.content_type.encode() == b"text/" + opened.read(0, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert made.list("code").keys == ["shared/one"]
    assert not (tmp_path / "s3" / "code" / "folder").exists()


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    class Failing(Files):
        __slots__ = ()

        def listdir(self, path: str | os.PathLike[str], /) -> list[str]:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(StorageError, match="cannot list code: "):
        objects(tmp_path, Failing()).list("code")


class Unwritable(Files):
    """A folder that is mounted read-only."""

    def open(self, path, flags, mode=0o777):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", os.fspath(path))
        return os.open(path, flags, mode)


def test_objects_are_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    put = objects(tmp_path).put("code", "Zip", b"zip")
    read_only = Objects(Unwritable(), tmp_path / "s3")
    assert read_only.get("code", "Zip") == (put, b"zip")
    assert read_only.list("code").keys == ["Zip"]


class NoMark(Files):
    """The disk is full when a bucket's mark is written."""

    def write_new(self, path, content, *, sync):
        if os.fspath(path).endswith("created"):
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write_new(path, content, sync=sync)


def test_a_bucket_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="cannot make the bucket code"):
        objects(tmp_path, NoMark())
    assert not Objects(Files(), tmp_path / "s3").has_bucket("code")


def test_what_a_kill_left_of_removed_buckets_goes_with_the_next_change(tmp_path: Path) -> None:
    (tmp_path / "s3.1f-0.tmp" / "code").mkdir(parents=True)
    (tmp_path / "s3" / ".other.1f-1.tmp" / "in").mkdir(parents=True)
    objects(tmp_path)
    assert os.listdir(tmp_path) == ["s3"]
    assert os.listdir(tmp_path / "s3") == ["code"]


def test_where_the_buckets_folder_is_a_link_it_is_emptied_and_stays_one(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    os.symlink(tmp_path / "big", tmp_path / "s3")
    made = objects(tmp_path)
    made.put("code", "zip", b"zip")
    made.clear()
    assert os.readlink(tmp_path / "s3") == str(tmp_path / "big")
    assert os.listdir(tmp_path / "big") == []


def test_an_object_that_was_deleted_does_not_come_back_after_a_loss_of_power(tmp_path: Path) -> None:
    synced: list[str] = []

    class Noting(Files):
        def sync_folder(self, path):
            synced.append(os.path.relpath(path, tmp_path))
            super().sync_folder(path)

    made = Objects(Noting(), tmp_path / "s3")
    made.ensure_bucket("code")
    made.put("code", "in/zip", b"zip")
    synced.clear()
    assert made.delete("code", "in/zip")
    assert synced == ["s3/code/in"]


def test_a_bucket_that_is_removed_under_an_object_does_not_come_back(tmp_path: Path) -> None:
    made = objects(tmp_path)

    def pieces():
        yield b"half"
        made.clear()
        yield b"of it"

    with pytest.raises(NoSuchBucket):
        made.put("code", "in/zip", pieces())
    assert made.buckets() == []
