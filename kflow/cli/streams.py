"""`kflow streams`: list, create, describe, split, merge, scale, delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from kflow.cli import remote_streams, resharded
from kflow.cli.arguments import Arguments, Command, Group, Parser, settings_of
from kflow.cli.paths import folder_of, open_folder
from kflow.cli.remote import Remote, add_remote_flags, remote_of
from kflow.cli.terminal import Terminal, count, size

if TYPE_CHECKING:
    from kflow.broker.streammap import ShardInfo
    from kflow.runtime.status.survey import ShardSurvey, StreamSurvey

Run = Callable[[Arguments, Terminal], int]


def list_streams(arguments: Arguments, terminal: Terminal) -> int:
    """One line a stream."""
    from kflow.runtime.status import survey

    streams = survey.streams(open_folder(arguments))
    if arguments.json:
        terminal.json([_summary(each) for each in streams])
    elif streams:
        rows = [("stream", "shards", "records", "bytes", "retention")]
        rows += [
            (
                each.name,
                str(sum(shard.is_open for shard in each.shards)),
                f"{each.records:,}",
                size(each.bytes),
                f"{each.retention_hours} h",
            )
            for each in streams
        ]
        terminal.table(rows, right=(1, 2, 3, 4))
    else:
        terminal.line("no streams: `kflow streams create NAME --shards N` makes one")
    return 0


def create(arguments: Arguments, terminal: Terminal) -> int:
    """Create one."""
    from kflow.runtime.tools import admin

    settings = settings_of(arguments, streams=None)
    defaults = settings.stream(arguments.name)
    folder = folder_of(settings, create=True)
    shards = defaults.shards if arguments.shards is None else arguments.shards
    hours = defaults.retention_hours if arguments.retention_hours is None else arguments.retention_hours
    kib = arguments.max_record_size_in_kib or defaults.max_record_size_in_kib
    created = admin.create_stream(folder, arguments.name, shards, retention_hours=hours, max_record_bytes=kib * 1024)
    text = f"created stream {created.name} with {count(len(created.shards), 'shard')} in {folder.path}"
    terminal.answer(text, {"stream": created.name, "shards": len(created.shards)}, json=arguments.json)
    return 0


def describe(arguments: Arguments, terminal: Terminal) -> int:
    """Everything about one."""
    from kflow.runtime.status import survey

    folder = open_folder(arguments)
    found = folder.map(arguments.name)
    stream = survey.stream(folder, found)
    rows = list(zip(found.shards, stream.shards, strict=True))
    if arguments.json:
        terminal.json({**_summary(stream), "shards": [_shard(info, shard) for info, shard in rows]})
        return 0
    closed = len(rows) - len(found.open_shards)
    terminal.line(f"{stream.name}  id {stream.id}  retention {stream.retention_hours} h")
    terminal.line(f"{count(stream.records, 'record')}, {size(stream.bytes)}, records up to {size(stream.max_record)}")
    terminal.line(f"{count(len(found.open_shards), 'open shard')}" + (f", {closed} closed" if closed else ""))
    table = [("shard", "state", "records", "bytes", "first hash key", "parents")]
    table += [
        (
            shard.shard_id,
            "open" if info.is_open else "closed",
            f"{shard.records:,}",
            size(shard.bytes),
            f"{shard.start:032x}",
            ", ".join(map(str, info.parents)) or "-",
        )
        for info, shard in rows
    ]
    terminal.table(table if closed else [row[:-1] for row in table], right=(2, 3))
    return 0


def split(arguments: Arguments, terminal: Terminal) -> int:
    """Split a shard."""
    from kflow.runtime.tools import sharding

    done = sharding.split(open_folder(arguments), arguments.name, arguments.shard, arguments.at)
    return resharded.show(arguments, terminal, **msgspec.structs.asdict(done))


def merge(arguments: Arguments, terminal: Terminal) -> int:
    """Merge two shards."""
    from kflow.runtime.tools import sharding

    done = sharding.merge(open_folder(arguments), arguments.name, arguments.shard, arguments.adjacent)
    return resharded.show(arguments, terminal, **msgspec.structs.asdict(done))


def scale(arguments: Arguments, terminal: Terminal) -> int:
    """Have another number of open shards."""
    from kflow.runtime.tools import sharding

    done = sharding.scale(open_folder(arguments), arguments.name, arguments.shards)
    return resharded.show(arguments, terminal, **msgspec.structs.asdict(done))


def delete(arguments: Arguments, terminal: Terminal) -> int:
    """Delete one, with its records, positions and parked records."""
    from kflow.runtime.tools import admin

    folder = open_folder(arguments)
    stream = folder.map(arguments.name)
    question = f"Delete stream {stream.name} in {folder.path}, with its records?"
    if not terminal.confirm(question, yes=arguments.yes):
        terminal.line("nothing was changed")
        return 1
    admin.delete_stream(folder, stream.name)
    terminal.answer(f"deleted stream {stream.name}", {"deleted": stream.name}, json=arguments.json)
    return 0


def _shard(info: ShardInfo, shard: ShardSurvey) -> dict[str, Any]:
    from kflow.broker.sequence import number, shard_id

    return {
        "shard_id": shard.shard_id,
        "starting_hash_key": str(info.start),
        "ending_hash_key": str(info.end),
        "parents": [shard_id(parent) for parent in info.parents],
        "starting_sequence_number": str(number(info.created_s, info.index, 0, info.created_s * 1000)),
        "ending_sequence_number": None if info.closed is None else str(info.closed),
        "open": info.is_open,
        "records": shard.records,
        "bytes": shard.bytes,
        "last_arrival_ms": (shard.last_arrival_ms or None) if shard.bytes else None,
    }


def _summary(stream: StreamSurvey) -> dict[str, Any]:
    return {
        "stream": stream.name,
        "id": stream.id,
        "shards": len(stream.shards),
        "open_shards": sum(shard.is_open for shard in stream.shards),
        "records": stream.records,
        "bytes": stream.bytes,
        "retention_hours": stream.retention_hours,
        "max_record_size_in_kib": stream.max_record // 1024,
    }


def _either(here: Run, elsewhere: Callable[[Remote, Arguments, Terminal], int]) -> Run:
    """Runs a command where the flags say."""

    def run(arguments: Arguments, terminal: Terminal) -> int:
        remote = remote_of(arguments)
        return here(arguments, terminal) if remote is None else elsewhere(remote, arguments, terminal)

    return run


def _name(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the stream; its ARN where it is elsewhere")
    add_remote_flags(parser)


def _name_and_yes(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _configure_split(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("shard", metavar="SHARD", help="its number, or its id")
    parser.add_argument(
        "--at",
        metavar="HASH_KEY",
        help="where the upper half begins: a decimal number up to 2**128 - 2; default: the middle of the shard's range",
    )


def _configure_merge(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("shard", metavar="SHARD", help="the one with the lower hash keys: its number, or its id")
    parser.add_argument("adjacent", metavar="ADJACENT", help="the one whose hash keys follow")


def _configure_scale(parser: Parser) -> None:
    _name(parser)
    parser.add_argument(
        "--shards", type=int, metavar="N", required=True, help="how many: at most double of what is open, at least half"
    )


def _configure_create(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("--shards", type=int, metavar="N", help="1 to 1000; default: the settings', else 1")
    parser.add_argument("--retention-hours", type=int, metavar="H", help="24 to 8760; default: the settings', else 24")
    parser.add_argument("--max-record-size-in-kib", type=int, metavar="KIB", help="1024 to 10240; default 1024")


COMMAND = Group(
    name="streams",
    help="list, create, describe, split, merge, scale and delete streams",
    commands=(
        Command(
            name="list",
            help="show every stream with what it holds",
            run=_either(list_streams, remote_streams.list_streams),
            configure=add_remote_flags,
            reads=True,
            examples=(
                ("kflow streams list", "of the project here"),
                ("kflow streams list --json", "for programs"),
                ("kflow streams list --profile prod", "of real AWS"),
            ),
        ),
        Command(
            name="create",
            help="create a stream",
            run=_either(create, remote_streams.create),
            configure=_configure_create,
            reads=True,
            examples=(
                ("kflow streams create orders --shards 4", "four shards"),
                ("kflow streams create films --max-record-size-in-kib 10240", "records up to 10 MiB"),
            ),
        ),
        Command(
            name="describe",
            help="show a stream's shards and what they hold",
            run=_either(describe, remote_streams.describe),
            configure=_name,
            reads=True,
            examples=(("kflow streams describe orders", "shards, ranges, records"),),
        ),
        Command(
            name="split",
            help="split a shard in two; producers and handlers go on",
            run=_either(split, remote_streams.split),
            configure=_configure_split,
            reads=True,
            examples=(
                ("kflow streams split orders 0", "in the middle of its hash keys"),
                ("kflow streams split orders 0 --at 1000", "the upper half begins at hash key 1000"),
            ),
        ),
        Command(
            name="merge",
            help="merge two shards whose hash keys are neighbours; producers and handlers go on",
            run=_either(merge, remote_streams.merge),
            configure=_configure_merge,
            reads=True,
            examples=(("kflow streams merge orders 1 2", "shard 2 begins where shard 1 ends"),),
        ),
        Command(
            name="scale",
            help="split and merge until there are N open shards of even ranges; producers and handlers go on",
            run=_either(scale, remote_streams.scale),
            configure=_configure_scale,
            reads=True,
            examples=(("kflow streams scale orders --shards 8", "from 4 to 16 shards are open now"),),
        ),
        Command(
            name="delete",
            help="delete a stream with its records",
            run=_either(delete, remote_streams.delete),
            configure=_name_and_yes,
            reads=True,
            examples=(
                ("kflow streams delete orders", "asks first"),
                ("kflow streams delete orders --yes", "does not"),
            ),
        ),
    ),
)
