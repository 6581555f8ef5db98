"""`kflow pull STREAM`: real records into a local stream, so that handlers can be run and debugged with them."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

from kflow.arn import stream_name
from kflow.cli.arguments import Arguments, Command, Parser, settings_of
from kflow.cli.paths import folder_of
from kflow.cli.positions import FORMS, add_choice_flags, most_of, parse_shard, parse_start
from kflow.cli.progress import Progress
from kflow.cli.remote import add_remote_flags, records, remote_of
from kflow.cli.terminal import Terminal, count
from kflow.errors import ResourceNotFound, UsageError

_BATCH = 500


def pull(arguments: Arguments, terminal: Terminal) -> int:
    """Copy records, and say how many."""
    from kflow import producing
    from kflow.runtime.tools import admin

    most = most_of(arguments)
    settings = settings_of(arguments)
    # `--data-dir` is where records go here, and no contradiction to where they come from.
    remote = remote_of(_without_folder(arguments))
    if remote is None:
        raise UsageError("say where the stream is: --profile P for real AWS, or --endpoint-url URL")
    start = parse_start(arguments.start)
    until_ms = _moment(arguments.until)
    shard = parse_shard(arguments.shard, start)
    summary = remote.summary(arguments.stream)
    name = arguments.into or stream_name(arguments.stream)
    folder = folder_of(settings, create=True)
    try:
        folder.map(name)
    except ResourceNotFound:
        kib = max(1024, summary.get("MaxRecordSizeInKiB", 1024))
        made = admin.create_stream(folder, name, summary["OpenShardCount"], max_record_bytes=kib * 1024)
        terminal.note(f"created stream {name} with {count(len(made.shards), 'shard')} in {folder.path}")
    found = records(remote, arguments.stream, start, shard=shard, follow=arguments.follow, until_ms=until_ms)
    source = islice(found, most)
    progress = Progress(terminal, "records", most)
    done = 0
    with producing.runtime(folder.path):
        while batch := list(islice(source, _BATCH if not arguments.follow else 1)):
            producing.put_many(name, [(each.data, each.partition_key or str(each.sequence_number)) for each in batch])
            done += len(batch)
            progress.update(done)
    progress.finish()
    text = f"{count(done, 'record')} of {arguments.stream} on {remote.where} into {name}"
    terminal.answer(text, {"stream": name, "records": done, "from": remote.where}, json=arguments.json)
    return 0


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError as error:
        raise UsageError(f"--to must be a time such as 2026-01-31T12:00:00Z, not {text!r}") from error


def _without_folder(arguments: Arguments) -> Arguments:
    return Arguments(**{**vars(arguments), "data_dir": None})


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("stream", metavar="STREAM", help="name or ARN of the stream there")
    parser.add_argument("--into", metavar="NAME", help="the local stream; default the same name, created if missing")
    parser.add_argument("--from", dest="start", metavar="P", default="trim_horizon", help=f"{FORMS}; default all")
    parser.add_argument("--to", dest="until", metavar="TIME", help="leave out what arrived after this")
    add_choice_flags(parser)
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    add_remote_flags(parser)


COMMAND = Command(
    name="pull",
    help="copy records of another endpoint or of real AWS into a local stream; the stream there is only read",
    run=pull,
    configure=configure,
    reads=True,
    examples=(
        ("kflow pull orders --profile prod --count 1000", "the oldest 1,000"),
        ("kflow pull orders --profile prod --from 2026-01-31T12:00:00Z --to 2026-01-31T12:05:00Z", "five minutes"),
        ("kflow pull orders --endpoint-url http://127.0.0.1:4566 --into orders-copy", "of another endpoint"),
    ),
)
