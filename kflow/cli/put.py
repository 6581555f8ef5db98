"""`kflow put STREAM`: put records from arguments, files or standard input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from kflow.cli.arguments import Arguments, Command, Parser
from kflow.cli.live import shard_number
from kflow.cli.progress import Progress
from kflow.cli.remote import add_remote_flags, remote_of
from kflow.cli.sources import FORMATS, Keys, batches, format_of, given, opened
from kflow.cli.terminal import Terminal, count
from kflow.errors import KflowError, UsageError

if TYPE_CHECKING:
    from kflow.records import Placed

Records = list[tuple[bytes, str]]
PutMany = Callable[[str, Records], "list[Placed]"]

_BATCH = 500
_BATCHES_PER_SECOND = 20
"""How finely `--rate` is spread."""


def put(arguments: Arguments, terminal: Terminal) -> int:
    """Put everything, then say what went where."""
    keys = _keys(arguments)
    _check(arguments)
    with ExitStack() as stack:
        put_many = _putter(arguments, stack)
        if arguments.data:
            records = given(arguments.data, keys)
            if arguments.count is not None:
                records = cycle(list(records))
            source: Iterator[Records] = iter(lambda: list(islice(records, _BATCH)), [])
        else:
            file = stack.enter_context(opened(arguments.file))
            name = arguments.file if arguments.file not in (None, "-") else "standard input"
            source = batches(file, format_of(arguments.file, arguments.format), keys, name)
        if arguments.count is not None:
            source = _first(source, arguments.count)
        if arguments.rate is not None:
            source = _paced(source, arguments.rate)
        placed, last = _put_all(arguments, terminal, source, put_many)
    if not arguments.json:
        terminal.line(_said(arguments.stream, placed, last, keys))
    return 0


def _put_all(
    arguments: Arguments, terminal: Terminal, source: Iterator[Records], put_many: PutMany
) -> tuple[dict[str, int], tuple[str, Placed] | None]:
    """Records by shard, and the last record's key and place."""
    progress = Progress(terminal, "records", arguments.count)
    shards: dict[str, int] = {}
    last: tuple[str, Placed] | None = None
    done = 0
    try:
        for records in source:
            for start in range(0, len(records), _BATCH):
                part = records[start : start + _BATCH]
                placed = put_many(arguments.stream, part)
                for (_, key), place in zip(part, placed, strict=True):
                    shards[place.shard_id] = shards.get(place.shard_id, 0) + 1
                    last = (key, place)
                    if arguments.json:
                        _write(arguments.stream, key, place, terminal)
                done += len(part)
                progress.update(done)
    except KflowError as error:
        if not done:
            raise
        progress.finish()
        terminal.note(f"{count(done, 'record')} before this error were put")
        raise error from None
    progress.finish()
    return shards, last


def _keys(arguments: Arguments) -> Keys:
    if arguments.key is not None and arguments.key_field is not None:
        raise UsageError("--key gives all records one key, --key-field takes it from each record: give one of them")
    if arguments.key == "":
        raise UsageError("--key must have 1 to 256 characters")
    return Keys(arguments.key, arguments.key_field)


def _check(arguments: Arguments) -> None:
    if arguments.data and arguments.file is not None:
        raise UsageError("give DATA or --file, not both")
    if arguments.count is not None and arguments.count < 1:
        raise UsageError(f"--count must be at least 1, not {arguments.count}")
    if arguments.rate is not None and not 0 < arguments.rate < float("inf"):
        raise UsageError(f"--rate must be records a second, above 0, not {arguments.rate:g}")


def _putter(arguments: Arguments, stack: ExitStack) -> PutMany:
    """`put_many`, bound to the folder that was named, where one was; else to what the target rule finds."""
    from kflow import producing

    target: str | None = arguments.target
    if (remote := remote_of(arguments)) is not None:
        if target is not None:
            raise UsageError("--target says where records go, as --endpoint-url and --profile do: give one of them")
        return partial(producing.put_many_by, remote.client, ordered=arguments.ordered)
    if arguments.data_dir is not None:
        if target not in (None, "local"):
            raise UsageError(f"--data-dir is a local folder, --target {target} is not: give one of them")
        path = Path(arguments.data_dir).absolute()
        if not (path / "FORMAT").is_file():
            raise UsageError(f"{path} holds no kflow data; `kflow streams create {arguments.stream}` there begins it")
        stack.enter_context(producing.runtime(path))
        target = "local"
    return lambda stream, records: producing.put_many(stream, records, ordered=arguments.ordered, target=target)


def _first(source: Iterator[Records], limit: int) -> Iterator[Records]:
    left = limit
    for records in source:
        yield records[:left]
        left -= len(records)
        if left <= 0:
            return


def _paced(source: Iterator[Records], rate: float) -> Iterator[Records]:
    """The same records in pieces, each held back until it is due. A clock that is late is made good, not forgotten."""
    size = max(1, min(_BATCH, int(rate / _BATCHES_PER_SECOND)))
    records = chain.from_iterable(source)
    begun, sent = time.monotonic(), 0
    while piece := list(islice(records, size)):
        time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        yield piece
        sent += len(piece)


def _write(stream: str, key: str, place: Placed, terminal: Terminal) -> None:
    terminal.json(
        {
            "stream": stream,
            "shard_id": place.shard_id,
            "sequence_number": str(place.sequence_number),
            "partition_key": key,
        }
    )


def _said(stream: str, shards: dict[str, int], last: tuple[str, Placed] | None, keys: Keys) -> str:
    total = sum(shards.values())
    if last is None:
        return "0 records: there was nothing to put"
    if total == 1:
        key, place = last
        return f"1 record, {stream}/{shard_number(place.shard_id)}, key {key}, sequence number {place.sequence_number}"
    return f"{count(total, 'record')}, {count(len(shards), 'shard')}, {keys.describe()}"


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("stream", metavar="STREAM", help="name of the stream; it must exist")
    parser.add_argument(
        "data", nargs="*", default=[], metavar="DATA", help="one record each; without any, --file or standard input"
    )
    parser.add_argument("--file", metavar="F", help="a file, also .gz; - is standard input")
    parser.add_argument("--format", choices=FORMATS, help="of file or input: default by its name, else jsonl")
    parser.add_argument("--key-field", metavar="F", help="take the partition key from this field or column")
    parser.add_argument("--key", metavar="K", help="one partition key for all records; default a random one each")
    parser.add_argument("--count", type=int, metavar="N", help="N records: DATA is repeated, a file ends earlier")
    parser.add_argument("--rate", type=float, metavar="R", help="at most R records a second")
    parser.add_argument("--ordered", action="store_true", help="on AWS: keep the order of each key, a call a record")
    parser.add_argument("--target", metavar="T", help="local, aws or a URL, in place of what kflow.target() finds")
    add_remote_flags(parser)


COMMAND = Command(
    name="put",
    help="put records into a stream",
    run=put,
    configure=configure,
    reads=True,
    examples=(
        ("kflow put orders '{\"id\": 1}' --key-field id", "one record"),
        ("kflow put orders --file orders.jsonl --key-field id", "a record a line"),
        ("kflow put orders --file orders.csv.gz --key-field id", "CSV, each row as a JSON object"),
        ("my-source | kflow put orders --format text", "each line as it comes"),
        ("kflow put orders '{\"id\": 1}' --count 1000 --rate 50", "for 20 seconds"),
        ("kflow put orders '{\"id\": 1}' --endpoint-url http://127.0.0.1:4566", "into another endpoint's stream"),
    ),
)
