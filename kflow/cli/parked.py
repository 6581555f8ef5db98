"""`kflow parked`: records that exhausted their retries."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from kflow.cli.arguments import Arguments, Command, Group, Parser
from kflow.cli.live import printable, short
from kflow.cli.paths import open_folder
from kflow.cli.terminal import Terminal, count, moment
from kflow.errors import UsageError

if TYPE_CHECKING:
    from kflow.broker.parked import ParkedBatch, ParkedStore
    from kflow.interfaces import FunctionError


def list_parked(arguments: Arguments, terminal: Terminal) -> int:
    """One line an entry."""
    entries = _store(arguments).list()
    if arguments.handler is not None:
        entries = [entry for entry in entries if entry.function == arguments.handler]
    if arguments.json:
        terminal.json([_summary(entry) for entry in entries])
    elif entries:
        # Few have a destination: there is a column for it where one has.
        is_sent = any(entry.destination for entry in entries)
        rows = [("number", "handler", "shard", "records", "attempts", "parked", *["document"] * is_sent, "error")]
        rows += [
            (
                f"#{entry.number}",
                entry.function,
                f"{entry.stream}/{entry.shard}",
                str(len(entry.records)),
                str(entry.attempts),
                moment(entry.parked_ms),
                *[_document(entry)] * is_sent,
                _error(entry.error) if entry.error else entry.condition.value,
            )
            for entry in entries
        ]
        terminal.table(rows, right=(0, 3, 4))
    else:
        terminal.line("nothing is parked")
    return 0


def show(arguments: Arguments, terminal: Terminal) -> int:
    """Everything about one."""
    entry = _store(arguments).show(arguments.number)
    if arguments.json:
        from kflow.lambda_.documents import document

        folder = open_folder(arguments)
        terminal.json(
            {
                **_summary(entry),
                "records": [_record(entry, i) for i in range(len(entry.records))],
                "document": document(entry, region=folder.region, account=folder.account),
            }
        )
        return 0
    terminal.line(f"parked #{entry.number}  {entry.function}  {entry.stream}/{entry.shard}  {moment(entry.parked_ms)}")
    terminal.line(f"{count(len(entry.records), 'record')}, {count(entry.attempts, 'attempt')}: {entry.condition.value}")
    if entry.error is not None:
        for line in _error(entry.error, lines=True).split("\n"):
            terminal.line(_shown(line))
        for part in entry.error.trace or ():
            for line in part.rstrip("\n").split("\n"):
                terminal.line(_shown(line))
    if entry.destination:
        why = f": {_shown(entry.trouble)}" if entry.is_unsent and entry.trouble else ""
        terminal.line(f"failure document: {_document(entry)}{why}")
    for record in entry.records:
        number, key = short(str(record.sequence_number)), _shown(record.partition_key)
        terminal.line(f"{number}  {moment(record.arrival_ms)}  {key}  {printable(record.data)}")
    terminal.line(f"send it again: kflow parked redrive {entry.number}   drop it: kflow parked drop {entry.number}")
    return 0


def redrive(arguments: Arguments, terminal: Terminal) -> int:
    """Send entries to their handlers again; those that succeed are parked no more."""
    from kflow.runtime.tools import admin

    folder = open_folder(arguments)
    failed = 0
    for number in _numbers(arguments):
        error = admin.redrive(folder, number)["error"]
        if error is None:
            said = f"#{number} ok, no longer parked"
        else:
            failed += 1
            text = f"{error['type']}: {error['message']}" if error.get("message") else error["type"]
            said = f"#{number} failed again: {_shown(text)}" + (f"  {error['file']}" if error.get("file") else "")
        terminal.answer(said, {"number": number, "error": error}, json=arguments.json)
    return 1 if failed else 0


def drop(arguments: Arguments, terminal: Terminal) -> int:
    """Remove entries for good."""
    from kflow.runtime.tools import admin

    folder = open_folder(arguments)
    numbers = _numbers(arguments)
    store = _store(arguments)
    records = sum(len(store.show(number).records) for number in numbers)
    if not numbers:
        terminal.answer("nothing is parked", {"dropped": [], "records": 0}, json=arguments.json)
        return 0
    question = f"Drop {count(records, 'record')} for good?"
    if not terminal.confirm(question, yes=arguments.yes):
        terminal.answer("nothing was changed", {"dropped": [], "records": 0}, json=arguments.json)
        return 1
    for number in numbers:
        admin.drop(folder, number)
    value = {"dropped": numbers, "records": records}
    terminal.answer(f"dropped {count(records, 'record')}", value, json=arguments.json)
    return 0


def _store(arguments: Arguments) -> ParkedStore:
    from kflow.broker.parked import ParkedStore

    folder = open_folder(arguments)
    return ParkedStore(folder.path, folder.files, folder.fsync)


def _numbers(arguments: Arguments) -> list[int]:
    if arguments.all == bool(arguments.numbers):
        raise UsageError("name the numbers (`kflow parked list` shows them), or give --all")
    return [entry.number for entry in _store(arguments).list()] if arguments.all else list(arguments.numbers)


def _summary(entry: ParkedBatch) -> dict[str, Any]:
    return {
        "number": entry.number,
        "function": entry.function,
        "stream": entry.stream,
        "shard_id": entry.shard_id,
        "records": len(entry.records),
        "attempts": entry.attempts,
        "condition": entry.condition.value,
        "parked_ms": entry.parked_ms,
        "redriving": entry.claimed_by != 0,
        "destination": entry.destination or None,
        "sent": not entry.is_unsent if entry.destination else None,
        "trouble": (entry.trouble or None) if entry.is_unsent else None,
        "error": {"type": entry.error.type, "message": entry.error.message} if entry.error else None,
    }


def _document(entry: ParkedBatch) -> str:
    """Where the failure document of an entry went, or is to go; empty: nowhere."""
    if not entry.destination:
        return ""
    return f"{'not sent' if entry.is_unsent else 'sent'} to {entry.destination}"


def _record(entry: ParkedBatch, index: int) -> dict[str, Any]:
    record = entry.records[index]
    try:
        data, encoding = record.data.decode(), "utf-8"
    except UnicodeDecodeError:
        data, encoding = base64.b64encode(record.data).decode(), "base64"
    return {
        "sequence_number": str(record.sequence_number),
        "partition_key": record.partition_key,
        "arrival_ms": record.arrival_ms,
        "data": data,
        "encoding": encoding,
    }


def _error(error: FunctionError, *, lines: bool = False) -> str:
    """An error with its place: on one line, unless it may have several."""
    text = f"{error.type}: {error.message}" if error.message else error.type
    text = f"{text}  {error.file}" if error.file else text
    return text if lines else _shown(text)


def _shown(text: str) -> str:
    """A text of the user's on one line: what a terminal would obey is written out."""
    return printable(text.encode())


def _configure_list(parser: Parser) -> None:
    parser.add_argument("--handler", metavar="NAME", help="of this handler only")


def _configure_show(parser: Parser) -> None:
    parser.add_argument("number", type=int, metavar="N", help="number of the entry")


def _configure_many(parser: Parser) -> None:
    parser.add_argument("numbers", type=int, nargs="*", metavar="N", help="numbers of entries")
    parser.add_argument("--all", action="store_true", help="everything that is parked")


def _configure_drop(parser: Parser) -> None:
    _configure_many(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


COMMAND = Group(
    name="parked",
    help="look at records that exhausted their retries, send them again, drop them",
    commands=(
        Command(
            name="list",
            help="show what is parked",
            run=list_parked,
            configure=_configure_list,
            reads=True,
            examples=(("kflow parked list", "all"), ("kflow parked list --handler bill", "of one handler")),
        ),
        Command(
            name="show",
            help="show one entry: error, traceback, where its failure document went, records",
            run=show,
            configure=_configure_show,
            reads=True,
            examples=(("kflow parked show 1", "entry 1"), ("kflow parked show 1 --json", "for programs")),
        ),
        Command(
            name="redrive",
            help="send entries to their handler again, and to no other; needs a running `kflow run`",
            run=redrive,
            configure=_configure_many,
            reads=True,
            examples=(("kflow parked redrive 1", "one entry"), ("kflow parked redrive --all", "all of them")),
        ),
        Command(
            name="drop",
            help="remove entries for good",
            run=drop,
            configure=_configure_drop,
            reads=True,
            examples=(("kflow parked drop 1", "asks first"), ("kflow parked drop --all --yes", "does not")),
        ),
    ),
)
