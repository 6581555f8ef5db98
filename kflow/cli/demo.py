"""`kflow demo`: the packaged example on real data, end to end.

    fresh --streams made--> running --all settled--> finished --next demo--> fresh
                             |   ^
                       killed|   |next demo goes on where it stopped
                             +---+

The runtime is this process; the producer is another, which skips what is stored already. The state is kept in
`demo.json` in the data folder, written before what it speaks of is touched, so that no kill leads to a wrong turn.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kflow.cli import packaged
from kflow.cli.arguments import Arguments, Command, Parser, add_setting_flags
from kflow.cli.demo_run import DemoListener, Producer
from kflow.cli.flights import FLIGHTS, RECORDS
from kflow.cli.live import LiveLines
from kflow.cli.progress import show_logs
from kflow.cli.terminal import Terminal, count
from kflow.errors import KflowError, UsageError
from kflow.settings import SETTINGS, FunctionSettings, Settings, load

if TYPE_CHECKING:
    from kflow.broker.folder import DataFolder
    from kflow.broker.parked import ParkedBatch
    from kflow.broker.streammap import StreamMap
    from kflow.runtime.status.survey import ConsumerSurvey

STREAM = "flights"
SHARDS = 4
HANDLERS = ("delays", "archive")
PACED_SECONDS = 10
STATE_FILE = "demo.json"


class State(msgspec.Struct, frozen=True):
    """How far the demo of a data folder is.

    Attributes:
        state: `fresh` (its stream is about to be made), `running` or `finished`.
        stream_id: of the stream it made; hexadecimal.
    """

    state: str
    stream_id: str = ""


def demo(arguments: Arguments, terminal: Terminal) -> int:
    """Run it, or go on with one that was interrupted."""
    from kflow.runtime import host

    rate = _rate(arguments.rate, terminal.is_live and not arguments.json)
    settings = _settings(arguments)
    show_logs(terminal)
    stream, resumed = prepare(settings.data_dir)
    if resumed and not arguments.json:
        terminal.line("an earlier run was interrupted: this one goes on where it stopped")
    lines = LiveLines(terminal, Path.cwd(), summary=False)
    producer = Producer(settings.data_dir, STREAM, rate)
    listener = DemoListener(terminal, producer, None if arguments.json else lines, _handled(settings.data_dir))
    try:
        code = host.run(settings, [str(packaged.functions())], listener=listener, on_ready=producer.start)
    finally:
        producer.end()
        terminal.status("")
    return _finish(settings, stream, producer, listener.seconds, code, arguments, terminal)


def _finish(
    settings: Settings,
    stream: StreamMap,
    producer: Producer,
    seconds: float,
    code: int,
    arguments: Arguments,
    terminal: Terminal,
) -> int:
    from kflow.broker.parked import ParkedStore
    from kflow.runtime.status import survey

    if producer.failure:
        raise KflowError(f"the producer failed: {producer.failure}; `kflow demo` goes on where it stopped")
    folder = _open(settings.data_dir)
    consumers = [each for each in survey.consumers(folder) if each.stream == STREAM]
    done = producer.stored == RECORDS and all(survey.is_settled(folder, each.function, stream) for each in consumers)
    if not done:
        terminal.note("interrupted: `kflow demo` goes on from here")
        return code or 130
    write_state(folder, State("finished", f"{stream.id:016x}"))
    if arguments.json:
        terminal.json(_as_json(consumers, producer, seconds))
        return 0
    parked = [e for e in ParkedStore(folder.path, folder.files, folder.fsync).list() if e.stream_id == stream.id]
    _summarise(consumers, parked, producer, seconds, folder, terminal)
    return 0


def _handled(data_dir: Path) -> dict[str, int]:
    """How many records each handler has settled in earlier runs."""
    from kflow.runtime.status import survey

    consumers = survey.consumers(_open(data_dir))
    return {each.function: each.processed for each in consumers if each.stream == STREAM}


def _as_json(consumers: list[ConsumerSurvey], producer: Producer, seconds: float) -> Mapping[str, Any]:
    return {
        "records": FLIGHTS,
        "shards": SHARDS,
        "seconds": round(seconds, 3),
        "records_per_second": round(producer.put / seconds) if seconds else 0,
        "handlers": {
            name: {"processed": each.processed, "redelivered": each.redelivered, "parked": each.parked}
            for name in HANDLERS
            for each in consumers
            if each.function == name
        },
    }


def _summarise(
    consumers: list[ConsumerSurvey],
    parked: list[ParkedBatch],
    producer: Producer,
    seconds: float,
    folder: DataFolder,
    terminal: Terminal,
) -> None:
    where = os.path.relpath(folder.path)
    rate = f"{producer.put / seconds:,.0f} records/s" if seconds else ""
    terminal.line()
    terminal.line(f"{FLIGHTS:,} flights and a broken record, {count(SHARDS, 'shard')}, {seconds:.1f} s, {rate}")
    rows = [("handler", "processed", "redelivered", "parked")]
    rows += [(e.function, f"{e.processed:,}", f"{e.redelivered:,}", f"{e.parked:,}") for e in consumers]
    terminal.table(rows, right=(1, 2, 3))
    for entry in parked:
        error = f"{entry.error.type}: {entry.error.message}" if entry.error else entry.condition.value
        terminal.line(
            f"parked #{entry.number}: {count(len(entry.records), 'record')} of {entry.function} in "
            f"{entry.stream}/{entry.shard} after {count(entry.attempts, 'attempt')}\n     {error}\n"
            f"     look at it: kflow parked show {entry.number} --data-dir {where}"
        )
    terminal.line(f"suspicious delays: kflow logs delays --data-dir {where}   archive: {where}/archive")


def _rate(text: str | None, live: bool) -> float:
    """Records a second; 0 for as fast as it goes.

    Raises:
        UsageError: `--rate` is neither a number nor `max`.
    """
    if text is None:
        return RECORDS / PACED_SECONDS if live else 0.0
    if text == "max":
        return 0.0
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate < float("inf"):
        raise UsageError(f"--rate must be records a second, above 0, or max; not {text!r}")
    return rate


def _settings(arguments: Arguments) -> Settings:
    """Variables and flags count, a project's file does not: the demo is the same wherever it is run."""
    flags = {setting.name: getattr(arguments, setting.name, None) for setting in SETTINGS}
    settings = load(Path.cwd(), overrides=flags, files=False)
    data_dir = settings.data_dir if settings.given("data_dir") else Path.cwd() / ".kflow" / "demo"
    archive = FunctionSettings(timeout=60, environment={"ARCHIVE_DIR": str(data_dir / "archive")})
    return dataclasses.replace(
        settings,
        data_dir=data_dir,
        retry_backoff_scale=settings.retry_backoff_scale if settings.given("retry_backoff_scale") else 0.0,
        functions={"archive": archive, "delays": FunctionSettings(timeout=60)},
    )


def prepare(data_dir: Path) -> tuple[StreamMap, bool]:
    """The stream to put into, and whether it is one that an interrupted run left.

    Raises:
        UsageError: a runtime runs on the folder, or the folder has a stream of that name which is not the demo's.
    """
    from kflow.broker.parked import ParkedStore
    from kflow.runtime.tools import admin

    pid = admin.lock_holder(data_dir)
    if pid is not None:
        raise UsageError(
            f"a runtime (process {pid}) runs on {data_dir}: stop it with `kflow stop --data-dir {data_dir}`"
        )
    folder = _open(data_dir, create=True)
    before = _read_state(folder)
    existing = next((each for each in folder.maps() if each.name == STREAM), None)
    if existing is not None and before is None:
        raise UsageError(
            f"{data_dir} has a stream `{STREAM}` that the demo did not make: name another folder with --data-dir"
        )
    if existing is not None and before == State("running", f"{existing.id:016x}"):
        return existing, True
    write_state(folder, State("fresh"))
    if existing is not None:
        admin.delete_stream(folder, STREAM)
    if not ParkedStore(folder.path, folder.files, folder.fsync).count():
        folder.files.remove_tree(folder.path / "parked")  # numbers begin at 1 again
    folder.files.remove_tree(folder.path / "archive")
    for name in HANDLERS:
        folder.files.discard(folder.path / "logs" / f"{name}.log")
    stream = admin.create_stream(folder, STREAM, SHARDS)
    write_state(folder, State("running", f"{stream.id:016x}"))
    return stream, False


def _open(data_dir: Path, *, create: bool = False) -> DataFolder:
    from kflow.broker.folder import DataFolder

    return DataFolder.open(data_dir, create=create)


def _read_state(folder: DataFolder) -> State | None:
    try:
        return msgspec.json.decode((folder.path / STATE_FILE).read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise UsageError(f"{folder.path / STATE_FILE} is damaged: remove {folder.path} to start afresh") from error


def write_state(folder: DataFolder, state: State) -> None:
    """Note how far the demo is; on return it survives a kill."""
    folder.files.write_replace(folder.path / STATE_FILE, msgspec.json.encode(state), sync=folder.fsync != "none")


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--rate",
        metavar="R",
        help=f"records a second, or max; default about {PACED_SECONDS} s for all on a terminal, max elsewhere",
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON and write nothing else; unpaced")
    add_setting_flags(parser, "fsync", "max_workers", "worker_start", "retry_backoff_scale")


COMMAND = Command(
    name="demo",
    help="run two handlers on 27,004 real flights; kill it and run it again: it goes on where it stopped",
    run=demo,
    configure=configure,
    examples=(
        ("kflow demo", "about 10 seconds on a terminal"),
        ("kflow demo --rate max", "as fast as it goes"),
        ("kflow demo --json", "for programs: one line at the end"),
    ),
)
