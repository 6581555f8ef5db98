"""Each command against a data folder of its own: what it writes, and its exit code."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from kflow.broker import layout
from kflow.broker.checkpoints import SlotFile
from kflow.broker.files import FILES, Files
from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.broker.parked_batch import ParkedRecord
from kflow.broker.slots import Slot, SlotState
from kflow.broker.writing import writing
from kflow.cli import demo
from kflow.cli.main import main
from kflow.cli.terminal import Terminal
from kflow.interfaces import FunctionError
from kflow.records import Position
from tests.parking import parked

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `kflow` in an empty project; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    for name in ("KFLOW_DATA_DIR", "KFLOW_TARGET", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KINESIS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "kflow.toml").write_text("")

    def call(*argv: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = main(argv, terminal=Terminal(out, err, stdin=io.StringIO(), environ={}))
        return code, out.getvalue(), err.getvalue()

    return call


@pytest.fixture
def orders(run: Run, tmp_path: Path) -> DataFolder:
    """A stream of two shards with four records: three in shard 1, one in shard 0."""
    assert run("streams", "create", "orders", "--shards", "2")[0] == 0
    (tmp_path / "orders.jsonl").write_text('{"id": 1}\n{"id": 2}\n{"id": 3}\n{"id": 6}\n')
    assert run("put", "orders", "--file", "orders.jsonl", "--key-field", "id")[0] == 0
    return DataFolder.open(tmp_path / ".kflow")


# ---------------------------------------------------------------------- streams


def test_streams_are_created_listed_described_and_deleted(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / ".kflow"
    assert run("streams", "create", "orders", "--shards", "2") == (
        0,
        f"created stream orders with 2 shards in {folder}\n",
        "",
    )
    assert run("streams", "list") == (
        0,
        "stream  shards  records  bytes  retention\norders       2        0    0 B       24 h\n",
        "",
    )
    (described,) = json.loads(run("streams", "list", "--json")[1])
    assert described == {
        "stream": "orders",
        "id": described["id"],
        "shards": 2,
        "open_shards": 2,
        "records": 0,
        "bytes": 0,
        "retention_hours": 24,
        "max_record_size_in_kib": 1024,
    }
    shards = json.loads(run("streams", "describe", "orders", "--json")[1])["shards"]
    assert [shard["starting_hash_key"] for shard in shards] == ["0", str(1 << 127)]
    assert run("streams", "delete", "orders", "--yes") == (0, "deleted stream orders\n", "")
    assert run("streams", "list") == (0, "no streams: `kflow streams create NAME --shards N` makes one\n", "")


def test_a_stream_gets_what_the_settings_say(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kflow.toml").write_text("[streams.orders]\nshards = 3\nretention_hours = 48\n")
    run("streams", "create", "orders")
    (described,) = json.loads(run("streams", "list", "--json")[1])
    assert (described["shards"], described["retention_hours"]) == (3, 48)


def test_a_stream_that_exists_is_not_created_again(run: Run, orders: DataFolder) -> None:
    assert run("streams", "create", "orders") == (
        2,
        "",
        "error: Stream orders under account 123456789012 already exists.\n",
    )


def test_an_unknown_stream_names_the_nearest_and_the_line_that_creates_it(run: Run, orders: DataFolder) -> None:
    expected = (
        "error: Stream order under account 123456789012 not found. Did you mean orders? "
        "To create it: kflow streams create order --shards 1\n"
    )
    assert run("tail", "order") == (2, "", expected)
    assert run("put", "order", "x", "--key", "k") == (2, "", expected)
    assert run("streams", "describe", "order") == (2, "", expected)


def test_deleting_asks_first(run: Run, orders: DataFolder) -> None:
    code, _, err = run("streams", "delete", "orders")
    assert code == 2
    assert err.endswith("Say so with --yes: there is no terminal to ask at\n")


def test_a_folder_without_data_says_how_to_begin(run: Run, tmp_path: Path) -> None:
    assert run("status") == (
        2,
        "",
        (
            f"error: {tmp_path / '.kflow'} holds no kflow data; `kflow run` or `kflow streams create NAME` begins it, "
            "--data-dir names another folder\n"
        ),
    )


def test_another_layout_is_refused_and_never_misread(run: Run, orders: DataFolder) -> None:
    layout.write(orders.path, FILES, msgspec.structs.replace(orders.format, layout=9))
    code, _, err = run("streams", "list")
    assert code == 2
    assert "is of layout 9" in err


# ---------------------------------------------------------------------- put and tail


def test_put_says_how_many_went_where(run: Run, orders: DataFolder, tmp_path: Path) -> None:
    assert run("put", "orders", "--file", "orders.jsonl", "--key-field", "id")[1] == (
        "4 records, 2 shards, key: field id\n"
    )
    assert run("put", "orders", "a", "b", "--key", "k")[1] == "2 records, 1 shard, key k\n"
    assert run("put", "orders", "x", "--count", "5")[1].startswith("5 records, ")
    (tmp_path / "empty").write_text("")
    assert run("put", "orders", "--file", "empty")[1] == "0 records: there was nothing to put\n"


def test_put_says_the_key_it_used(run: Run, orders: DataFolder) -> None:
    run("streams", "create", "clicks")
    code, out, _ = run("put", "clicks", '{"id": 7}')
    place = json.loads(run("tail", "clicks", "--no-follow", "--json")[1])
    assert (code, out) == (
        0,
        f"1 record, clicks/0, key {place['partition_key']}, sequence number {place['sequence_number']}\n",
    )


def test_options_may_stand_before_the_data(run: Run, orders: DataFolder) -> None:
    assert run("put", "orders", "--key", "k", "a", "--count", "2")[1] == "2 records, 1 shard, key k\n"


def test_put_writes_a_line_of_json_a_record(run: Run, orders: DataFolder) -> None:
    first, second = run("put", "orders", "a", "b", "--key", "k", "--json")[1].splitlines()
    assert json.loads(first) == {
        "stream": "orders",
        "shard_id": "shardId-000000000001",
        "sequence_number": json.loads(first)["sequence_number"],
        "partition_key": "k",
    }
    assert int(json.loads(first)["sequence_number"]) < int(json.loads(second)["sequence_number"])


def test_records_before_a_bad_line_are_put_and_counted(run: Run, orders: DataFolder, tmp_path: Path) -> None:
    lines = [f'{{"id": {number}}}' for number in range(40_000)] + ["{"]
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    code, _, err = run("put", "orders", "--file", "bad.jsonl", "--key-field", "id")
    put, error = err.splitlines()
    assert code == 2
    assert put.endswith(" records before this error were put")
    assert error.startswith("error: bad.jsonl line 40001 is not JSON: ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--key", "k", "--key-field", "f"], "--key gives all records one key, --key-field takes it from each record"),
        (["x", "--file", "f"], "give DATA or --file, not both"),
        (["x", "--count", "0"], "--count must be at least 1, not 0"),
        (["x", "--rate", "0"], "--rate must be records a second, above 0, not 0"),
        (["x", "--rate", "fast"], "argument --rate: invalid float value: 'fast'; see `kflow put --help`"),
        (["--file", "none.jsonl"], "cannot read none.jsonl: No such file or directory"),
        (["x", "--target", "lokal"], "target= must be `local`, `aws` or a URL, not 'lokal'; did you mean `local`?"),
        (["x", "--key", "k" * 257], "256"),
        (["x", "--key", ""], "--key must have 1 to 256 characters"),
    ],
)
def test_put_refuses_with_the_fix(run: Run, orders: DataFolder, argv: list[str], message: str) -> None:
    code, _, err = run("put", "orders", *argv)
    assert code == 2
    assert message in err


def test_tail_shows_records_with_their_shard_number_time_and_key(run: Run, orders: DataFolder) -> None:
    code, out, _ = run("tail", "orders", "--no-follow")
    assert code == 0
    assert len(out.splitlines()) == 4
    for line in out.splitlines():
        place, number, moment, key, data = line.split("  ")
        assert place in ("orders/0", "orders/1")
        assert number.startswith("49…")
        assert len(moment) == len("11:30:45.792")
        assert data == f'{{"id": {key}}}'


def test_tail_writes_bytes_that_are_no_text_in_base64(run: Run, orders: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\n")
    run("put", "orders", "--file", "bytes", "--format", "text", "--key", "k")
    records = [json.loads(line) for line in run("tail", "orders", "--no-follow", "--json")[1].splitlines()]
    (found,) = [record for record in records if record["encoding"] == "base64"]
    assert found == {
        "stream": "orders",
        "shard_id": "shardId-000000000001",
        "sequence_number": found["sequence_number"],
        "partition_key": "k",
        "arrival_ms": found["arrival_ms"],
        "data": "//4=",
        "encoding": "base64",
    }


def test_tail_begins_where_it_is_told(run: Run, orders: DataFolder) -> None:
    records = [json.loads(line) for line in run("tail", "orders", "--no-follow", "--json")[1].splitlines()]
    shard = [record for record in records if record["shard_id"] == records[-1]["shard_id"]]
    from_second = run("tail", "orders", "--no-follow", "--from", shard[1]["sequence_number"], "--json")[1]
    assert [json.loads(line) for line in from_second.splitlines()] == shard[1:]
    assert run("tail", "orders", "--no-follow", "--from", "latest") == (0, "", "")
    assert len(run("tail", "orders", "--no-follow", "--from", "2020-01-01")[1].splitlines()) == 4
    assert run("tail", "orders", "--no-follow", "--from", "2200-01-01") == (0, "", "")
    assert len(run("tail", "orders", "--from", "trim_horizon", "--count", "3")[1].splitlines()) == 3


def test_tail_refuses_a_shard_that_is_not_there(run: Run, orders: DataFolder) -> None:
    assert run("tail", "orders", "--shard", "2") == (
        2,
        "",
        "error: stream orders has no shard 2: its shards are 0 to 1\n",
    )


# ---------------------------------------------------------------------- what handlers left


def slot_file(folder: DataFolder) -> SlotFile:
    stream = folder.map("orders")
    return SlotFile.open(
        folder.path, "bill", stream.id, files=Files(), stream="orders", create_for=[0, 1], initial=lambda _shard: Slot()
    )


@pytest.fixture
def handled(orders: DataFolder) -> DataFolder:
    """`bill` has settled one record of each shard; in shard 1 its next batch fails."""
    slots = slot_file(orders)
    slots.store(0, 0, Slot(checkpoint_counter=2, succeeded=1, delivered=1, invocations=1))
    slots.store(
        1,
        0,
        Slot(
            checkpoint_counter=2,
            state=SlotState.FAILED,
            attempt=4,
            succeeded=1,
            delivered=7,
            failures=4,
            error_type="ValueError",
            error_message="no",
        ),
    )
    slots.close()
    (orders.path / "logs" / "bill.log").write_text("one\ntwo\n")
    return orders


def park(folder: DataFolder, *, message: str = "division by zero", key: str = "5") -> None:
    stream = folder.map("orders")
    record = ParkedRecord(b'{"id": 5}', key, 49 << 179, 1_700_000_000_000, "shardId-000000000001")
    error = FunctionError(type="ZeroDivisionError", message=message, trace=("  File one\n",), file="/project/app.py:11")
    ParkedStore(folder.path, Files()).park(
        parked(stream_id=stream.id, shard=1, shard_id="shardId-000000000001", records=(record,), error=error)
    )


def test_status_says_who_is_blocked_and_by_what(run: Run, handled: DataFolder) -> None:
    park(handled)
    code, out, _ = run("status")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == f"no runtime on {handled.path}"
    assert lines[1].startswith("stream orders  2 shards  4 records, ")
    assert lines[2].split() == [
        "handler",
        "shard",
        "state",
        "behind",
        "age",
        "processed",
        "redelivered",
        "parked",
        "lost",
    ]
    assert lines[3].split()[:4] == ["bill", "orders/*", "blocked", "2"]
    assert lines[4] == "BLOCKED bill orders/1 attempt 4 ValueError: no"
    assert lines[5] == "1 record parked: `kflow parked list` shows them"


def test_status_for_programs(run: Run, handled: DataFolder) -> None:
    found = json.loads(run("status", "--json")[1])
    assert (found["runtime"], found["parked"]) == (None, 0)
    assert found["streams"][0]["records"] == 4
    (bill,) = found["handlers"]
    assert [lane["error_type"] for lane in bill["lanes"]] == ["", "ValueError"]


def test_checkpoints_are_listed_set_and_reset(run: Run, handled: DataFolder) -> None:
    listed = json.loads(run("checkpoints", "list", "bill", "--json")[1])
    assert [(each["next_counter"], each["state"]) for each in listed] == [(2, "idle"), (2, "failed")]
    assert run("checkpoints", "set", "bill", "--to", "latest") == (0, "moved 2 checkpoints of bill to latest\n", "")
    assert [each["behind"] for each in json.loads(run("checkpoints", "list", "--json")[1])] == [0, 0]
    assert run("checkpoints", "set", "bill", "--to", "trim_horizon", "--shard", "1") == (
        0,
        "moved 1 checkpoint of bill to trim_horizon\n",
        "",
    )
    slots = slot_file(handled)
    moved = slots.load(1)
    slots.close()
    assert (moved.checkpoint, moved.checkpoint_counter, moved.state) == (Position(0, 0), 1, SlotState.IDLE)
    assert (moved.succeeded, moved.delivered, moved.error_type) == (1, 7, "")
    assert run("checkpoints", "reset", "bill", "--yes") == (
        0,
        "bill begins at its starting position in orders\n",
        "",
    )
    assert run("checkpoints", "list") == (0, "no checkpoints: no handler has run yet\n", "")


def test_checkpoints_of_an_unknown_handler_name_the_nearest(run: Run, handled: DataFolder) -> None:
    assert run("checkpoints", "set", "bil", "--to", "latest") == (
        2,
        "",
        "error: no checkpoints of a handler `bil`; did you mean `bill`?; handlers with checkpoints: bill\n",
    )


def test_checkpoints_are_not_moved_under_a_running_runtime(run: Run, handled: DataFolder) -> None:
    lock = handled.runtime_lock()
    lock.acquire(0, announce=True)
    try:
        code, _, err = run("checkpoints", "set", "bill", "--to", "latest")
    finally:
        lock.release()
    assert code == 2
    assert err.endswith("`kflow stop` first\n")


def test_logs_end_with_the_last_lines(run: Run, handled: DataFolder) -> None:
    assert run("logs", "bill") == (0, "one\ntwo\n", "")
    assert run("logs", "bill", "-n", "1") == (0, "two\n", "")
    assert run("logs", "bill", "-n", "0") == (0, "", "")
    assert run("logs", "bill", "-n", "1", "--json") == (
        0,
        '{"function":"bill","type":"output","text":"two"}\n',
        "",
    )
    assert run("logs", "bil") == (
        2,
        "",
        "error: no log of a handler `bil`; did you mean `bill`?; handlers with a log: bill\n",
    )


def test_logs_go_back_over_rotated_files(run: Run, handled: DataFolder) -> None:
    (handled.path / "logs" / "bill.log.1").write_text("minus one\nzero\n")
    assert run("logs", "bill", "-n", "3") == (0, "zero\none\ntwo\n", "")
    assert run("logs", "bill") == (0, "minus one\nzero\none\ntwo\n", "")


def test_logs_of_all_handlers_say_whose_a_line_is(run: Run, handled: DataFolder) -> None:
    (handled.path / "logs" / "shipping.log").write_text("three\nunfinished")
    assert run("logs") == (0, "bill      one\nbill      two\nshipping  three\nshipping  unfinished\n", "")
    assert run("logs", "shipping", "-n", "1") == (0, "three\nunfinished\n", "")
    code, out, _ = run("logs", "-n", "1", "--json")
    assert code == 0
    assert [json.loads(line)["function"] for line in out.splitlines()] == ["bill", "shipping", "shipping"]


def test_logs_where_no_handler_has_run(run: Run, orders: DataFolder) -> None:
    assert run("logs") == (2, "", "error: there are no logs: no handler has run yet\n")
    assert run("logs", "bill")[2] == "error: no log of a handler `bill`; no handler has run yet\n"


def test_what_a_terminal_would_obey_in_parked_records_is_written_out(run: Run, orders: DataFolder) -> None:
    park(orders, message="\x1b[31mred\nand more\r", key="\x07")
    _, line = run("parked", "list")[1].splitlines()
    assert line.endswith("ZeroDivisionError: \\x1b[31mred\\nand more\\r  /project/app.py:11")
    shown = run("parked", "show", "1")[1].splitlines()
    assert shown[2:5] == ["ZeroDivisionError: \\x1b[31mred", "and more\\r  /project/app.py:11", "  File one"]
    assert "  \\x07  {" in shown[5]


def test_parked_records_are_listed_shown_and_dropped(run: Run, orders: DataFolder) -> None:
    assert run("parked", "list") == (0, "nothing is parked\n", "")
    park(orders)
    code, out, _ = run("parked", "list")
    assert code == 0
    heading, line = out.splitlines()
    assert heading.split() == ["number", "handler", "shard", "records", "attempts", "parked", "error"]
    assert line.split()[:5] == ["#1", "bill", "orders/1", "1", "3"]
    assert line.endswith("ZeroDivisionError: division by zero  /project/app.py:11")
    assert '{"id": 5}' in run("parked", "show", "1")[1]
    shown = json.loads(run("parked", "show", "1", "--json")[1])
    assert shown["error"] == {"type": "ZeroDivisionError", "message": "division by zero"}
    assert shown["records"] == [
        {
            "sequence_number": str(49 << 179),
            "partition_key": "5",
            "arrival_ms": 1_700_000_000_000,
            "data": '{"id": 5}',
            "encoding": "utf-8",
        }
    ]
    assert run("parked", "drop", "1", "--yes") == (0, "dropped 1 record\n", "")
    assert run("parked", "show", "1") == (
        2,
        "",
        "error: there is no parked batch 1; `kflow parked list` shows what there is\n",
    )


def test_a_redrive_needs_a_runtime(run: Run, orders: DataFolder) -> None:
    park(orders)
    assert run("parked", "redrive", "1") == (
        2,
        "",
        "error: a redrive needs the handler: start the runtime with `kflow run`, then try again\n",
    )


def test_numbers_or_all_must_be_given(run: Run, orders: DataFolder) -> None:
    message = "error: name the numbers (`kflow parked list` shows them), or give --all\n"
    assert run("parked", "drop") == (2, "", message)
    assert run("parked", "drop", "1", "--all") == (2, "", message)


def test_reset_empties_streams_positions_and_parked_records(run: Run, handled: DataFolder) -> None:
    park(handled)
    assert run("reset", "--yes") == (0, "emptied 1 stream: orders\n", "")
    assert json.loads(run("streams", "list", "--json")[1])[0]["records"] == 0
    assert run("checkpoints", "list") == (0, "no checkpoints: no handler has run yet\n", "")
    assert run("parked", "list") == (0, "nothing is parked\n", "")


def test_reset_names_and_empties_the_streams_of_all_places(run: Run, orders: DataFolder) -> None:
    with writing(orders) as log:
        log.create_stream("orders", 1, account="999999999999", region="eu-west-1")
    before = {each.id for each in orders.live_maps()}
    found = json.loads(run("reset", "--yes", "--json")[1])
    assert found == {"emptied": ["orders", "orders (999999999999 eu-west-1)"]}
    after = {each.id for each in orders.live_maps()}
    assert (len(after), before & after) == (2, set())


def test_reset_of_one_stream_leaves_the_others(run: Run, orders: DataFolder) -> None:
    run("streams", "create", "other")
    run("put", "other", "x")
    run("reset", "--stream", "orders", "--yes")
    found = {each["stream"]: each["records"] for each in json.loads(run("streams", "list", "--json")[1])}
    assert found == {"orders": 0, "other": 1}


# ---------------------------------------------------------------------- the rest


def test_stop_says_that_nothing_runs(run: Run, orders: DataFolder) -> None:
    assert run("stop") == (0, f"nothing runs on {orders.path}\n", "")


def test_config_show_names_values_and_origins(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kflow.toml").write_text('plugins = ["a.b"]\n')
    lines = run("config", "show", "--data-dir", "data")[1].splitlines()
    assert lines[0] == f"project file: {tmp_path / 'kflow.toml'}"
    found = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert found["data_dir"] == [str(tmp_path / "data"), "--data-dir"]
    assert found["plugins"] == ["a.b", "kflow.toml"]
    assert found["fsync"] == ["interval", "default"]
    shown = json.loads(run("config", "show", "--json")[1])
    assert shown["settings"]["plugins"] == {"value": ["a.b"], "origin": "kflow.toml"}


def test_a_wrong_setting_stops_every_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kflow.toml").write_text("max_worker = 3\n")
    message = "error: unknown setting max_worker in kflow.toml; did you mean `max_workers`?\n"
    for argv in (["config", "show"], ["streams", "list"], ["check"], ["run"], ["plugins"]):
        assert run(*argv) == (2, "", message)


def test_check_lists_the_handlers(run: Run, tmp_path: Path) -> None:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "app.py").write_text(
        "from kflow import on_stream\n\n@on_stream('orders', batch_size=10)\ndef bill(event, context):\n    pass\n"
    )
    assert run("check") == (
        0,
        (
            "handler  place               form   source  options\n"
            "bill     functions/app.py:4  event  orders  batch 10\n"
            "ok: 1 handler, 0 plugins\n"
        ),
        "",
    )


def test_check_shows_the_users_own_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from kflow import on_stream\nimport not_there\n\non_stream\n")
    code, _, err = run("check", "app.py")
    assert code == 2
    assert "app.py" in err
    assert "not_there" in err
    assert "line 2" in err or "app.py:2" in err


def test_no_handlers_says_where_they_were_looked_for(run: Run, tmp_path: Path) -> None:
    assert run("check") == (
        2,
        "",
        (
            f"error: no handlers: there is no folder `functions` in {tmp_path}; name a file, a folder or a module "
            "(`kflow run app.py`), or set `handlers` in [tool.kflow]\n"
        ),
    )


def test_run_refuses_a_timeout_without_drain(run: Run) -> None:
    assert run("run", "--timeout", "5") == (
        2,
        "",
        "error: --timeout says how long --drain may take: give both, or neither\n",
    )


def test_plugins_of_the_settings_are_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "metrics.py").write_text(
        "from kflow.plugins import hookimpl\n\n@hookimpl\ndef batch_done(outcome):\n    pass\n"
    )
    (tmp_path / "kflow.toml").write_text('plugins = ["metrics.py"]\n')
    (found,) = [each for each in json.loads(run("plugins", "--json")[1]) if each["name"] == "metrics"]
    assert found == {"name": "metrics", "origin": str(tmp_path / "metrics.py"), "hooks": ["batch_done"]}


def test_doctor_finds_nothing_wrong_with_a_healthy_folder(run: Run, orders: DataFolder) -> None:
    code, out, _ = run("doctor", "--json")
    found = {each["what"]: each for each in json.loads(out)}
    assert (code, [each for each in found.values() if each["state"] == "wrong"]) == (0, [])
    assert found["data folder"]["text"] == f"{orders.path}, fsync interval"
    assert found["streams"]["text"] == "1 stream, 4 records"
    assert found["runtime"]["text"] == "none runs"


def test_doctor_exits_with_1_where_something_is_wrong(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kflow.toml").write_text("port = -1\n")
    code, out, _ = run("doctor")
    assert code == 1
    assert out.splitlines()[-1] == (
        "wrong    settings      port in kflow.toml must be a whole number from 0 to 65535, not -1"
    )


# ---------------------------------------------------------------------- demo, before anything runs


def test_the_demo_leaves_a_stream_alone_that_is_not_its_own(run: Run, tmp_path: Path) -> None:
    run("streams", "create", "flights", "--data-dir", "own")
    assert run("demo", "--data-dir", "own") == (
        2,
        "",
        (
            f"error: {tmp_path / 'own'} has a stream `flights` that the demo did not make: "
            "name another folder with --data-dir\n"
        ),
    )


def test_the_demo_is_refused_where_a_runtime_runs(run: Run, orders: DataFolder) -> None:
    lock = orders.runtime_lock()
    lock.acquire(0, announce=True)
    try:
        code, _, err = run("demo", "--data-dir", ".kflow")
    finally:
        lock.release()
    assert code == 2
    assert err.startswith("error: a runtime (process ")


@pytest.mark.parametrize("rate", ["0", "-1", "fast", "inf"])
def test_a_rate_is_a_number_or_max(run: Run, rate: str) -> None:
    assert run("demo", f"--rate={rate}") == (
        2,
        "",
        f"error: --rate must be records a second, above 0, or max; not {rate!r}\n",
    )


def test_an_interrupted_demo_is_resumed_and_a_finished_one_begun_anew(run: Run, tmp_path: Path) -> None:
    first, resumed = demo.prepare(tmp_path / "data")
    assert (len(first.shards), resumed) == (4, False)
    again, resumed = demo.prepare(tmp_path / "data")
    assert (again.id, resumed) == (first.id, True)
    demo.write_state(DataFolder.open(tmp_path / "data"), demo.State("finished", f"{first.id:016x}"))
    fresh, resumed = demo.prepare(tmp_path / "data")
    assert fresh.id != first.id
    assert not resumed


def test_a_demo_killed_while_it_began_anew_begins_anew(run: Run, tmp_path: Path) -> None:
    first, _ = demo.prepare(tmp_path / "data")
    demo.write_state(DataFolder.open(tmp_path / "data"), demo.State("fresh"))
    second, resumed = demo.prepare(tmp_path / "data")
    assert second.id != first.id
    assert not resumed


def test_data_of_the_demo_is_no_stranger_in_the_projects_data_folder(run: Run, tmp_path: Path) -> None:
    demo.prepare(tmp_path / ".kflow" / "demo")
    assert run("streams", "create", "orders")[0] == 0


# ---------------------------------------------------------------------- for programs


def test_what_changes_something_says_what_it_did_to_programs_too(run: Run, handled: DataFolder) -> None:
    park(handled)
    for arguments, answer in (
        (("parked", "drop", "1", "--yes"), {"dropped": [1], "records": 1}),
        (("parked", "drop", "--all", "--yes"), {"dropped": [], "records": 0}),
        (("checkpoints", "set", "bill", "--to", "latest"), {"function": "bill", "moved": 2, "to": "latest"}),
        (("checkpoints", "reset", "bill", "--yes"), {"function": "bill", "reset": ["orders"]}),
        (("reset", "--yes"), {"emptied": ["orders"]}),
        (("stop",), {"stopped": None}),
    ):
        code, out, err = run(*arguments, "--json")
        assert (code, json.loads(out), err) == (0, answer, ""), arguments


def test_every_command_that_reads_or_changes_data_answers_in_json() -> None:
    """`demo` has its own."""
    from kflow.cli.arguments import Group
    from kflow.cli.main import TABLE, command

    without = []
    for name, _ in TABLE:
        found = command(name)
        for each in found.commands if isinstance(found, Group) else [found]:
            parser = each.parser(name)
            if not any("--json" in action.option_strings for action in parser._actions):
                without.append(f"{name} {each.name}")
    assert without == []
