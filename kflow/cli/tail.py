"""`kflow tail STREAM`: show records, and wait for more."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from kflow.cli.arguments import Arguments, Command, Parser
from kflow.cli.live import printable, short
from kflow.cli.paths import open_folder
from kflow.cli.positions import FORMS, Start, add_choice_flags, most_of, parse_shard, parse_start, resolve
from kflow.cli.remote import add_remote_flags, remote_of
from kflow.cli.remote import records as remote_records
from kflow.cli.terminal import Terminal
from kflow.errors import NoNode, ResourceNotFound, UsageError

if TYPE_CHECKING:
    from kflow.broker.block import Block
    from kflow.broker.folder import DataFolder
    from kflow.broker.reader import ShardReader
    from kflow.broker.streammap import ShardInfo, StreamMap

_POLL_SECONDS = 0.2
"""How often the end of the stream is looked at where no runtime could say that it moved: 32 bytes of memory a shard."""

_WAIT_SECONDS = 20.0
"""How long one question to the runtime waits; then the stream's map is looked at again."""


class Seen(NamedTuple):
    """One record as it is shown."""

    stream: str
    shard: int
    sequence_number: int
    partition_key: str
    arrival_ms: int
    data: bytes


def tail(arguments: Arguments, terminal: Terminal) -> int:
    """Write records until there are no more, or until interrupted."""
    follow = not arguments.no_follow
    start = parse_start(arguments.start or ("latest" if follow else "trim_horizon"))
    most = most_of(arguments)
    if (remote := remote_of(arguments)) is not None:
        shard = parse_shard(arguments.shard, start)
        found = remote_records(remote, arguments.stream, start, shard=shard, follow=follow)
        for each in islice(found, most):
            _write(Seen(arguments.stream, *each), arguments, terminal)
        return 0
    folder = open_folder(arguments)
    stream = folder.map(arguments.stream)
    shards = _shards(stream, arguments.shard, start)
    left = most
    while True:
        for record in _records(folder, stream, shards, start, follow=follow):
            _write(record, arguments, terminal)
            if left is not None:
                left -= 1
                if left == 0:
                    return 0
        if not follow:
            return 0
        # The stream was reset: what comes is in a new one of that name.
        stream = folder.map(arguments.stream)
        start, shards = Start("trim_horizon"), _shards(stream, arguments.shard, Start())


def _shards(stream: StreamMap, wanted: str | None, start: Start) -> list[ShardInfo]:
    index = parse_shard(wanted, start)
    if index is None:
        return list(stream.shards)
    found = [shard for shard in stream.shards if shard.index == index]
    if not found:
        last = max(shard.index for shard in stream.shards)
        raise UsageError(f"stream {stream.name} has no shard {index}: its shards are 0 to {last}")
    return found


def _records(
    folder: DataFolder, stream: StreamMap, shards: list[ShardInfo], start: Start, *, follow: bool
) -> Iterator[Seen]:
    """Records of the shards in turn, each shard in order; ends where the stream ends or goes away."""
    from kflow.broker.asking import around_damage
    from kflow.runtime.status import survey

    with ExitStack() as stack:
        readers = {shard.index: stack.enter_context(survey.opened(folder, stream, shard.index)) for shard in shards}
        places = {
            index: around_damage(folder, stream, index, partial(resolve, start, reader))
            for index, reader in readers.items()
        }
        offsets = {index: place.offset for index, place in places.items()}
        skips = {index: place.index for index, place in places.items()}
        follows_all = len(readers) == len(stream.shards)
        while True:
            news = False
            for index, reader in readers.items():
                shard = stream.shards[index]
                if any(offsets[parent] < readers[parent].tail for parent in shard.parents if parent in readers):
                    continue  # first all that its keys have in the shard they came from
                offsets[index] = reader.clamp(_at(offsets[index])).offset
                if offsets[index] >= reader.tail:
                    continue
                for block in around_damage(folder, stream, index, partial(reader.read, offsets[index])):
                    news = True
                    yield from _of_block(stream, shard, block, skips[index])
                    offsets[index], skips[index] = block.end, 0
            if news:
                continue
            if not follow:
                return
            current = _current(folder, stream)
            if current is None:
                return
            if len(current.shards) == len(stream.shards):
                _wait(folder, stream, readers, offsets)
                continue
            stream = current
            if not follows_all:
                continue
            for born in stream.shards[len(readers) :]:
                readers[born.index] = stack.enter_context(survey.opened(folder, stream, born.index))
                offsets[born.index] = skips[born.index] = 0


def _at(offset: int) -> Any:
    from kflow.records import Position

    return Position(offset, 0)


def _of_block(stream: StreamMap, shard: ShardInfo, block: Block, skip: int) -> Iterator[Seen]:
    from kflow.broker.sequence import STEP, number

    first = number(shard.created_s, shard.index, block.first_counter, block.arrival_ms)
    datas, keys = block.columns()
    for i in range(skip, block.count):
        yield Seen(stream.name, shard.index, first + i * STEP, keys[i], block.arrival_ms, datas[i])


def _wait(folder: DataFolder, stream: StreamMap, readers: dict[int, ShardReader], offsets: dict[int, int]) -> None:
    """Until some shard has more, or it is time to look whether the stream is still there."""
    from kflow.broker import handshake, linking

    wanted = {str(index): offset for index, offset in offsets.items()}
    try:
        link = linking.connect(folder.socket_path, handshake.own_hello(""), timeout_s=_WAIT_SECONDS)
        try:
            link.ask(1, "wait", {"stream_id": stream.id, "generation": stream.generation, "offsets": wanted})
        finally:
            link.close()
    except (TimeoutError, ResourceNotFound):
        return
    except (NoNode, OSError):  # none runs, or it went away: look now and then
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and all(r.tail <= offsets[index] for index, r in readers.items()):
            time.sleep(_POLL_SECONDS)


def _current(folder: DataFolder, stream: StreamMap) -> StreamMap | None:
    """The stream's map as it is now, with shards that came to be meanwhile; None where the stream is gone."""
    return next((each for each in folder.maps() if each.id == stream.id), None)


def _write(record: Seen, arguments: Arguments, terminal: Terminal) -> None:
    if not arguments.json:
        moment = datetime.fromtimestamp(record.arrival_ms / 1000).astimezone().strftime("%H:%M:%S.%f")[:-3]
        head = f"{record.stream}/{record.shard}  {short(str(record.sequence_number))}  {moment}  {record.partition_key}"
        text = f"{head}  {printable(record.data)}"
        terminal.line(text[: terminal.width] if terminal.is_live else text)
        return
    try:
        data, encoding = record.data.decode(), "utf-8"
    except UnicodeDecodeError:
        data, encoding = base64.b64encode(record.data).decode(), "base64"
    terminal.json(
        {
            "stream": record.stream,
            "shard_id": f"shardId-{record.shard:012d}",
            "sequence_number": str(record.sequence_number),
            "partition_key": record.partition_key,
            "arrival_ms": record.arrival_ms,
            "data": data,
            "encoding": encoding,
        }
    )


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("stream", metavar="STREAM", help="name of the stream")
    parser.add_argument(
        "--from", dest="start", metavar="P", help=f"{FORMS}; default latest, with --no-follow trim_horizon"
    )
    add_choice_flags(parser)
    parser.add_argument("--no-follow", action="store_true", help="stop at the end")
    add_remote_flags(parser)


COMMAND = Command(
    name="tail",
    help="show the records of a stream as they come",
    run=tail,
    configure=configure,
    reads=True,
    examples=(
        ("kflow tail orders", "what comes from now on"),
        ("kflow tail orders --from trim_horizon --no-follow", "what is there"),
        ("kflow tail orders --from 2026-01-31T12:00:00Z --json", "since then, for programs"),
        ("kflow tail orders --profile prod", "of real AWS"),
    ),
)
