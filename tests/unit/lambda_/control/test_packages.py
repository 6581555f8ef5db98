"""All zips: kept and unpacked once however many use them, removed when nobody does, whole after any kill."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from kflow.errors import KflowError
from kflow.lambda_.control.facts import Code
from kflow.lambda_.control.packages import DELAY_S, Packages
from kflow.lambda_.control.unzip import CannotUnzip
from tests.lambdaing import World, zipped

APP = zipped()
DIGEST = hashlib.sha256(APP).hexdigest()


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "data")


def added(world, content=APP):
    results = []
    world.packages.add(lambda: content, results.append)
    world.host.run()
    (result,) = results
    if isinstance(result, KflowError):
        raise result
    return result


def test_a_zip_is_kept_and_unpacked_under_its_hash(world):
    code = added(world)
    assert code == Code(DIGEST, len(APP), 46)
    assert world.unpacked == [DIGEST, f"{DIGEST}.zip"]
    assert (world.path / "lambda/code" / DIGEST / "app.py").read_text().startswith("def handler")
    assert world.packages.zip(DIGEST) == f"{world.path}/lambda/code/{DIGEST}.zip"


def test_two_at_once_of_the_same_are_one(world):
    results = []
    for _ in range(2):
        world.packages.add(lambda: APP, results.append)
    world.host.run()
    assert results[0] == results[1]
    assert world.unpacked == [DIGEST, f"{DIGEST}.zip"]


def test_no_more_than_two_are_unpacked_at_a_time(world):
    for number in range(5):
        world.packages.add(lambda number=number: zipped({"a": str(number)}), lambda _: None)
    assert len(world.host.errands) == 2
    world.host.step()
    assert len(world.host.errands) == 2
    world.host.run()
    assert len(world.unpacked) == 10


def test_what_one_drops_and_another_holds_stays_and_what_nobody_holds_goes_after_a_while(world):
    code = added(world)
    world.packages.hold([code])
    world.packages.drop([code])
    world.host.advance(10**9)
    assert world.unpacked == [DIGEST, f"{DIGEST}.zip"]
    world.packages.drop([code], running_s=900)
    assert world.packages.zip(DIGEST) is None
    world.host.advance(899_000 + int(DELAY_S * 1000))
    assert world.unpacked == [DIGEST, f"{DIGEST}.zip"]
    world.host.advance(2_000)
    assert world.unpacked == []


def test_what_is_uploaded_again_before_it_goes_stays(world):
    code = added(world)
    world.packages.drop([code])
    added(world)
    world.host.advance(10**9)
    assert world.unpacked == [DIGEST, f"{DIGEST}.zip"]


def test_what_is_refused_leaves_nothing(world):
    for content in (b"PK", b"", zipped({"../evil": "x"})):
        with pytest.raises(KflowError):
            added(world, content)
    assert world.unpacked == []
    assert world.host.notices[-1] == ("warning", "a zip was refused: '../evil' leads outside")


def test_a_source_that_fails_says_so(world):
    def read():
        raise CannotUnzip("nothing there")

    results = []
    world.packages.add(read, results.append)
    world.host.run()
    assert isinstance(results[0], CannotUnzip)


def test_what_a_kill_left_half_made_is_removed_at_the_next_start_and_so_is_what_nobody_uses(world):
    added(world)
    folder = world.path / "lambda/code"
    (folder / ".99-1").mkdir()
    (folder / ".99-1" / "half").write_text("x")
    (folder / f"{DIGEST}.zip.1-2.tmp").write_text("x")
    other = hashlib.sha256(b"other").hexdigest()
    (folder / f"{other}.zip").write_bytes(b"x")
    fresh = Packages(world.host)
    fresh.hold([Code(DIGEST, 1, 1)])
    fresh.clean()
    world.host.run()
    assert world.unpacked == [DIGEST, f"{DIGEST}.zip"]


def test_a_folder_that_somebody_removed_is_unpacked_again(world):
    code = added(world)
    shutil.rmtree(world.packages.folder(code))
    assert not world.packages.is_there(code)
    world.packages.restore(code)
    assert world.packages.is_there(code)


def test_a_zip_that_is_another_one_now_is_not_unpacked(world):
    code = added(world)
    shutil.rmtree(world.packages.folder(code))
    (world.path / "lambda/code" / f"{DIGEST}.zip").write_bytes(zipped({"evil": "x"}))
    with pytest.raises(KflowError, match="upload it again"):
        world.packages.restore(code)


def test_no_name_but_a_hash_finds_a_zip(world):
    added(world)
    assert world.packages.zip(f"../code/{DIGEST}") is None
    assert world.packages.zip("") is None
