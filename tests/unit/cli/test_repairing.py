"""`kflow doctor --repair` at a terminal: it says what it will do, asks, and does no more than was agreed to."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kflow.broker.ctl import CLOSED, Ctl
from kflow.broker.files import FILES
from kflow.cli.main import main
from kflow.cli.terminal import Terminal
from tests.damaging import flip
from tests.storing import Store

Ask = Callable[..., tuple[int, str, str]]


class Keyboard(io.StringIO):
    """Somebody who answers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run `kflow doctor --repair` with an answer; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KFLOW_DATA_DIR", raising=False)
    (tmp_path / "kflow.toml").write_text("")

    def call(answer: str, *more: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        terminal = Terminal(out, err, stdin=Keyboard(answer), environ={})
        return main(("doctor", "--repair", *more), terminal=terminal), out.getvalue(), err.getvalue()

    return call


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / ".kflow")
    for number in range(3):
        made.put(b"record %03d" % number)
    return made


def test_a_sound_folder_needs_no_answer(ask: Ask, store: Store) -> None:
    assert ask("") == (0, f"nothing is damaged in {store.folder.path}\n", "")


def test_nothing_is_changed_without_a_yes(ask: Ask, store: Store) -> None:
    path = store.shard_path / f"{0:020d}.seg"
    flip(path, 64 + 82 + 70)
    before = {each: each.read_bytes() for each in store.shard_path.iterdir()}
    code, out, err = ask("n\n")
    relative = path.relative_to(store.folder.path)
    assert code == 1
    assert out == (
        f"damaged  {relative}: the block at 82 is damaged\n"
        "         will list what cannot be read, up to the next sound block, as lost: readers go on behind it\n"
        "nothing was changed\n"
    )
    assert err == f"Repair 1 fault in {store.folder.path}? [y/N] "
    assert {each: each.read_bytes() for each in store.shard_path.iterdir()} == before


def test_what_was_agreed_to_is_done_and_what_comes_to_light_is_asked_again(ask: Ask, store: Store) -> None:
    flip(store.shard_path / f"{0:020d}.seg", 64 + 82 + 70)
    flip(store.folder.stream_dir(store.stream) / "map.json", 40)
    code, out, err = ask("y\ny\n")
    assert code == 0
    assert "map.json: put back from its copy of generation 1\n" in out
    assert "0.seg: bytes 82 to 164 are listed as lost: 1 record\n" in out
    assert out.endswith("nothing is damaged any more\n")
    assert err.count("Repair 1 fault") == 2
    assert store.datas() == [b"record 000", b"record 002"]


def test_a_damaged_format_is_named_and_restored_from_its_copy(
    ask: Ask, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.folder.path / "FORMAT"
    before = path.read_bytes()
    flip(path, 30)
    out = io.StringIO()
    assert main(("doctor",), terminal=Terminal(out, io.StringIO(), environ={})) == 1
    assert f"{path} fails its checksum: `kflow doctor --repair`" in out.getvalue()
    code, said, _ = ask("n\n")
    assert (code, path.read_bytes() == before) == (1, False)
    assert "nothing was changed" in said
    code, said, _ = ask("y\n")
    assert (code, path.read_bytes()) == (0, before)
    assert said.endswith(f"nothing is damaged in {store.folder.path}\n")

    flip(path, 30)
    flip(path.with_name("FORMAT.twin"), 30)
    code, _, err = ask("y\n")
    assert code != 0
    assert "is damaged too: restore it from a copy of yours" in err


def test_what_nobody_can_repair_is_said_and_left(ask: Ask, store: Store) -> None:
    path = store.folder.stream_dir(store.stream)
    Ctl.open(str(store.shard_path), FILES, write=True).words[CLOSED] = 1
    flip(path / "map.json", 40)
    (path / "map.json.twin").unlink()
    (store.folder.path / "catalogue.db").unlink()
    code, out, _ = ask("")
    assert code == 1
    assert out.endswith("         restore it from a copy of yours\n")


def test_programs_get_what_was_done_and_what_is_left(ask: Ask, store: Store) -> None:
    path = store.folder.stream_dir(store.stream) / "map.json.twin"
    flip(path, 40)
    code, out, _ = ask("", "--yes", "--json")
    text = "its copy is damaged, or older than it"
    done = {"path": str(path), "what": text, "failed": False, "done": "the copy is written anew"}
    assert (code, json.loads(out)) == (0, {"repaired": [done], "left": []})
