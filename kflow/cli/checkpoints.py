"""`kflow checkpoints`: where handlers stand, and moving them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kflow.cli.arguments import Arguments, Command, Group, Parser
from kflow.cli.live import shard_number
from kflow.cli.paths import open_folder
from kflow.cli.positions import FORMS, parse_shard, parse_start, resolve
from kflow.cli.terminal import Terminal, count
from kflow.errors import UsageError
from kflow.settings import nearest

if TYPE_CHECKING:
    from kflow.runtime.status.survey import ConsumerSurvey


def list_checkpoints(arguments: Arguments, terminal: Terminal) -> int:
    """One line a handler and shard."""
    from kflow.runtime.status import survey

    found = _chosen(survey.consumers(open_folder(arguments)), arguments)
    if arguments.json:
        terminal.json(
            [
                {
                    "function": each.function,
                    "stream": each.stream,
                    "shard_id": lane.shard_id,
                    "lane": lane.lane,
                    "next_counter": lane.checkpoint_counter,
                    "behind": lane.behind,
                    "iterator_age_ms": lane.iterator_age_ms,
                    "state": lane.state,
                }
                for each in found
                for lane in each.lanes
            ]
        )
    elif found:
        rows = [("handler", "shard", "next record", "behind", "state")]
        rows += [
            (
                each.function,
                f"{each.stream}/{shard_number(lane.shard_id)}" + (f" lane {lane.lane}" if each.factor > 1 else ""),
                f"{lane.checkpoint_counter:,}",
                f"{lane.behind:,}",
                lane.state,
            )
            for each in found
            for lane in each.lanes
        ]
        terminal.table(rows, right=(2, 3))
    else:
        terminal.line("no checkpoints: no handler has run yet")
    return 0


def set_checkpoint(arguments: Arguments, terminal: Terminal) -> int:
    """Move a handler's position, in one shard or all."""
    from kflow.runtime.status import survey
    from kflow.runtime.tools import admin

    start = parse_start(arguments.to)
    folder = open_folder(arguments)
    shard = parse_shard(arguments.shard, start)
    with admin.no_runtime(folder):
        moved = 0
        for each in _chosen(survey.consumers(folder), arguments):
            stream = folder.map(each.stream)
            for index in sorted({int(shard_number(lane.shard_id)) for lane in each.lanes}):
                if shard in (None, index):
                    with survey.opened(folder, stream, index) as reader:
                        admin.move(folder, each.function, stream, reader, index, resolve(start, reader))
                    moved += 1
    if not moved:
        raise UsageError(
            f"{arguments.handler} has no checkpoint in shard {shard}; `kflow checkpoints list` shows which"
        )
    text = f"moved {count(moved, 'checkpoint')} of {arguments.handler} to {arguments.to}"
    terminal.answer(text, {"function": arguments.handler, "moved": moved, "to": arguments.to}, json=arguments.json)
    return 0


def reset(arguments: Arguments, terminal: Terminal) -> int:
    """Forget a handler's positions: it begins at its starting position."""
    from kflow.runtime.status import survey
    from kflow.runtime.tools import admin

    folder = open_folder(arguments)
    chosen = _chosen(survey.consumers(folder), arguments)
    names = ", ".join(each.stream for each in chosen)
    question = f"Forget where {arguments.handler} stands in {names}, so that it begins at its starting position?"
    if not terminal.confirm(question, yes=arguments.yes):
        terminal.answer("nothing was changed", {"function": arguments.handler, "reset": []}, json=arguments.json)
        return 1
    with admin.no_runtime(folder):
        for each in chosen:
            admin.forget_positions(folder, each.function, folder.map(each.stream))
    value = {"function": arguments.handler, "reset": [each.stream for each in chosen]}
    terminal.answer(f"{arguments.handler} begins at its starting position in {names}", value, json=arguments.json)
    return 0


def _chosen(consumers: list[ConsumerSurvey], arguments: Arguments) -> list[ConsumerSurvey]:
    if arguments.handler is None:
        return consumers
    names = sorted({each.function for each in consumers})
    found = [each for each in consumers if each.function == arguments.handler]
    if not found:
        known = f"; handlers with checkpoints: {', '.join(names)}" if names else "; no handler has run yet"
        raise UsageError(f"no checkpoints of a handler `{arguments.handler}`{nearest(arguments.handler, names)}{known}")
    if arguments.stream is not None:
        streams = [each.stream for each in found]
        found = [each for each in found if each.stream == arguments.stream]
        if not found:
            raise UsageError(
                f"{arguments.handler} has no checkpoints in {arguments.stream}, but in {', '.join(streams)}"
            )
    return found


def _configure_list(parser: Parser) -> None:
    parser.add_argument("handler", nargs="?", metavar="HANDLER", help="of this handler only")
    parser.add_argument("--stream", metavar="NAME", help="in this stream only")


def _configure_set(parser: Parser) -> None:
    parser.add_argument("handler", metavar="HANDLER", help="name of the function")
    parser.add_argument("--to", required=True, metavar="P", help=f"the next record: {FORMS}")
    parser.add_argument("--stream", metavar="NAME", help="in this stream only")
    parser.add_argument("--shard", metavar="S", help="in this shard only: its number or id")


def _configure_reset(parser: Parser) -> None:
    parser.add_argument("handler", metavar="HANDLER", help="name of the function")
    parser.add_argument("--stream", metavar="NAME", help="in this stream only")
    parser.add_argument("--yes", action="store_true", help="do not ask")


COMMAND = Group(
    name="checkpoints",
    help="look at and move the positions of handlers",
    commands=(
        Command(
            name="list",
            help="show where each handler stands",
            run=list_checkpoints,
            configure=_configure_list,
            reads=True,
            examples=(("kflow checkpoints list", "all"), ("kflow checkpoints list bill", "of one handler")),
        ),
        Command(
            name="set",
            help="move a handler: the next record it gets; no runtime may run",
            run=set_checkpoint,
            configure=_configure_set,
            reads=True,
            examples=(
                ("kflow checkpoints set bill --to trim_horizon", "everything again"),
                ("kflow checkpoints set bill --to 2026-01-31T12:00:00Z", "since then"),
                ("kflow checkpoints set bill --to latest --shard 2", "skip what is in one shard"),
            ),
        ),
        Command(
            name="reset",
            help="forget where a handler stands: it begins at its starting position; no runtime may run",
            run=reset,
            configure=_configure_reset,
            reads=True,
            examples=(
                ("kflow checkpoints reset bill", "asks first"),
                ("kflow checkpoints reset bill --yes", "does not"),
            ),
        ),
    ),
)
