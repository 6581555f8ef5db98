"""`kflow streams`: list, create, describe, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kflow.cli.arguments import Arguments, Command, Group, Parser, settings_of
from kflow.cli.paths import folder_of, open_folder
from kflow.cli.terminal import Terminal, count, size

if TYPE_CHECKING:
    from kflow.runtime.survey import StreamSurvey


def list_streams(arguments: Arguments, terminal: Terminal) -> int:
    """One line a stream."""
    from kflow.runtime import survey

    streams = survey.streams(open_folder(arguments))
    if arguments.json:
        terminal.json([_summary(each) for each in streams])
    elif streams:
        rows = [("stream", "shards", "records", "bytes", "retention")]
        rows += [
            (
                each.name,
                str(len(each.shards)),
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
    from kflow.runtime import admin

    settings = settings_of(arguments, streams=None)
    defaults = settings.stream(arguments.name)
    folder = folder_of(settings, create=True)
    shards = defaults.shards if arguments.shards is None else arguments.shards
    hours = defaults.retention_hours if arguments.retention_hours is None else arguments.retention_hours
    kib = arguments.max_record_size_in_kib or defaults.max_record_size_in_kib
    created = admin.create_stream(folder, arguments.name, shards, retention_hours=hours, max_record_bytes=kib * 1024)
    terminal.line(f"created stream {created.name} with {count(len(created.shards), 'shard')} in {folder.path}")
    return 0


def describe(arguments: Arguments, terminal: Terminal) -> int:
    """Everything about one."""
    from kflow.runtime import survey

    folder = open_folder(arguments)
    stream = survey.stream(folder, folder.map(arguments.name))
    if arguments.json:
        shards = [
            {
                "shard_id": shard.shard_id,
                "starting_hash_key": str(shard.start),
                "ending_hash_key": str(shard.end),
                "open": shard.is_open,
                "records": shard.records,
                "bytes": shard.bytes,
                "last_arrival_ms": shard.last_arrival_ms or None,
            }
            for shard in stream.shards
        ]
        terminal.json({**_summary(stream), "shards": shards})
        return 0
    terminal.line(f"{stream.name}  id {stream.id}  retention {stream.retention_hours} h")
    terminal.line(f"{count(stream.records, 'record')}, {size(stream.bytes)}, records up to {size(stream.max_record)}")
    rows = [("shard", "state", "records", "bytes", "first hash key")]
    rows += [
        (
            shard.shard_id,
            "open" if shard.is_open else "closed",
            f"{shard.records:,}",
            size(shard.bytes),
            f"{shard.start:032x}",
        )
        for shard in stream.shards
    ]
    terminal.table(rows, right=(2, 3))
    return 0


def delete(arguments: Arguments, terminal: Terminal) -> int:
    """Delete one, with its records, positions and parked records."""
    from kflow.runtime import admin

    folder = open_folder(arguments)
    stream = folder.map(arguments.name)
    question = f"Delete stream {stream.name} in {folder.path}, with its records?"
    if not terminal.confirm(question, yes=arguments.yes):
        terminal.line("nothing was changed")
        return 1
    admin.delete_stream(folder, stream.name)
    terminal.line(f"deleted stream {stream.name}")
    return 0


def _summary(stream: StreamSurvey) -> dict[str, Any]:
    return {
        "stream": stream.name,
        "id": stream.id,
        "shards": len(stream.shards),
        "records": stream.records,
        "bytes": stream.bytes,
        "retention_hours": stream.retention_hours,
        "max_record_size_in_kib": stream.max_record // 1024,
    }


def _name(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the stream")


def _name_and_yes(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _configure_create(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("--shards", type=int, metavar="N", help="1 to 1000; default: the settings', else 1")
    parser.add_argument("--retention-hours", type=int, metavar="H", help="24 to 8760; default: the settings', else 24")
    parser.add_argument("--max-record-size-in-kib", type=int, metavar="KIB", help="1024 to 10240; default 1024")


COMMAND = Group(
    name="streams",
    help="list, create, describe and delete streams",
    commands=(
        Command(
            name="list",
            help="show every stream with what it holds",
            run=list_streams,
            reads=True,
            examples=(("kflow streams list", "of the project here"), ("kflow streams list --json", "for programs")),
        ),
        Command(
            name="create",
            help="create a stream",
            run=create,
            configure=_configure_create,
            examples=(
                ("kflow streams create orders --shards 4", "four shards"),
                ("kflow streams create films --max-record-size-in-kib 10240", "records up to 10 MiB"),
            ),
        ),
        Command(
            name="describe",
            help="show a stream's shards and what they hold",
            run=describe,
            configure=_name,
            reads=True,
            examples=(("kflow streams describe orders", "shards, ranges, records"),),
        ),
        Command(
            name="delete",
            help="delete a stream with its records",
            run=delete,
            configure=_name_and_yes,
            examples=(
                ("kflow streams delete orders", "asks first"),
                ("kflow streams delete orders --yes", "does not"),
            ),
        ),
    ),
)
