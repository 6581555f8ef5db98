"""`kflow event KIND [DATA...]`: a sample event, as the service of that name would send it."""

from __future__ import annotations

import json
import sys
import time

from kflow.cli.arguments import Arguments, Command, Parser, settings_of
from kflow.cli.terminal import Terminal
from kflow.errors import UsageError
from kflow.settings import nearest

_DATA = '{"id": 1}'


def event(arguments: Arguments, terminal: Terminal) -> int:
    """Write one event."""
    from kflow.events.samples import KINDS, Sample

    make = KINDS.get(arguments.kind)
    if make is None:
        raise UsageError(f"no event `{arguments.kind}`{nearest(arguments.kind, KINDS)}; there are {', '.join(KINDS)}")
    if arguments.count is not None and arguments.count < 1:
        raise UsageError(f"--count must be at least 1, not {arguments.count}")
    data = arguments.data or ["a.txt" if arguments.kind == "s3" else _DATA]
    if data == ["-"]:
        data = sys.stdin.read().splitlines()
        if not data:
            raise UsageError("standard input has no line: each is the data of a record")
    if arguments.count is not None:
        data = [data[number % len(data)] for number in range(arguments.count)]
    settings = settings_of(arguments)
    made = make(
        Sample(
            data=data,
            name=arguments.name or "",
            region=arguments.region or settings.region,
            account=settings.account,
            now_ms=time.time_ns() // 1_000_000,
        )
    )
    terminal.answer(json.dumps(made, ensure_ascii=False, indent=2), made, json=arguments.json)
    return 0


def configure(parser: Parser) -> None:
    """Add the arguments."""
    from kflow.events.samples import KINDS

    parser.add_argument("kind", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument(
        "data", nargs="*", metavar="DATA", help="of each record; for s3 the keys; - for a line each of standard input"
    )
    parser.add_argument("--count", type=int, metavar="N", help="N records: DATA is repeated")
    parser.add_argument("--name", metavar="N", help="of the stream, queue, topic, bucket or log group")
    parser.add_argument("--region", metavar="R", help="in place of the settings' region")


COMMAND = Command(
    name="event",
    help="write a sample event of a service, for `kflow invoke`, tests and other tools",
    run=event,
    configure=configure,
    reads=True,
    has_folder=False,
    examples=(
        ("kflow event kinesis '{\"id\": 1}' '{\"id\": 2}'", "a batch of two records"),
        ("kflow event sqs hello --count 10 --name jobs", "ten messages of the queue jobs"),
        ("kflow event kinesis '{\"id\": 1}' | kflow invoke delays -", "straight into a function"),
        ("kflow event sqs hello --json >> events.jsonl", "on one line"),
        ("kflow event s3 photos/1.jpg --name uploads", "an object that was created"),
    ),
)
