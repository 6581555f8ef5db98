"""`kflow status`: is a runtime there, where does each handler stand, what is blocked and parked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from kflow.cli.arguments import Arguments, Command, Parser
from kflow.cli.live import shard_number
from kflow.cli.paths import open_folder
from kflow.cli.terminal import Terminal, count, size, span

if TYPE_CHECKING:
    from kflow.runtime.survey import ConsumerSurvey, LaneSurvey, StreamSurvey


def _handler(consumer: ConsumerSurvey) -> dict[str, Any]:
    return {
        "function": consumer.function,
        "stream": consumer.stream,
        "processed": consumer.processed,
        "redelivered": consumer.redelivered,
        "parked": consumer.parked,
        "behind": consumer.behind,
        "lanes": msgspec.to_builtins(consumer.lanes),
    }


def status(arguments: Arguments, terminal: Terminal) -> int:
    """Show all of it, from the files; what only the runtime knows is asked of it."""
    from kflow.broker.parked import ParkedStore
    from kflow.runtime import admin, survey

    folder = open_folder(arguments)
    node = admin.node_status(folder.path)
    consumers = survey.consumers(folder)
    streams = survey.streams(folder)
    parked = ParkedStore(folder.path, folder.files, folder.fsync).list()
    if arguments.json:
        terminal.json(
            {
                "data_dir": str(folder.path),
                "runtime": node,
                "streams": [_stream(each) for each in streams],
                "handlers": [_handler(each) for each in consumers],
                "parked": sum(len(entry.records) for entry in parked),
            }
        )
        return 0
    terminal.line(_runtime_line(node, str(folder.path)))
    for stream in streams:
        records = f"{count(stream.records, 'record')}, {size(stream.bytes)}"
        terminal.line(f"stream {stream.name}  {count(len(stream.shards), 'shard')}  {records}")
    running = _running(node)
    if consumers:
        rows: list[tuple[str, ...]] = [
            ("handler", "shard", "state", "behind", "age", "processed", "redelivered", "parked", "lost")
        ]
        for each in consumers:
            rows += _rows(each, running, every_shard=arguments.shards)
        terminal.table(rows, right=(3, 4, 5, 6, 7, 8))
    for each in consumers:
        for lane in each.lanes:
            if text := _trouble(each, lane):
                terminal.line(terminal.paint(text, "red"))
    if parked:
        records = count(sum(len(entry.records) for entry in parked), "record")
        terminal.line(f"{records} parked: `kflow parked list` shows them")
    return 0


def _runtime_line(node: dict[str, Any] | None, data_dir: str) -> str:
    if node is None:
        return f"no runtime on {data_dir}"
    workers = count(len(node["workers"]), "worker")
    state = "stopping" if node["stopping"] else "running"
    return f"runtime {state}  process {node['pid']}  {span(node['uptime_s'] * 1000)}  {workers}  data {data_dir}"


def _running(node: dict[str, Any] | None) -> dict[tuple[str, str, int], str]:
    """State of each lease as the runtime knows it."""
    if node is None:
        return {}
    return {(lease["function"], lease["stream"], lease["shard"]): lease["state"] for lease in node["leases"]}


def _rows(
    consumer: ConsumerSurvey, running: dict[tuple[str, str, int], str], *, every_shard: bool
) -> list[tuple[str, ...]]:
    total: tuple[str, ...] = (
        consumer.function,
        f"{consumer.stream}/*",
        _state(consumer, running),
        f"{consumer.behind:,}",
        _age(max((lane.iterator_age_ms for lane in consumer.lanes), default=0)),
        f"{consumer.processed:,}",
        f"{consumer.redelivered:,}",
        f"{consumer.parked:,}",
        f"{sum(lane.lost for lane in consumer.lanes):,}",
    )
    if not every_shard:
        return [total]
    shards: list[tuple[str, ...]] = [
        (
            "",
            f"{consumer.stream}/{shard_number(lane.shard_id)}",
            _lane_state(consumer, lane, running),
            f"{lane.behind:,}",
            _age(lane.iterator_age_ms),
            f"{lane.succeeded:,}",
            f"{max(0, lane.delivered - lane.succeeded - lane.parked):,}",
            f"{lane.parked:,}",
            f"{lane.lost:,}",
        )
        for lane in consumer.lanes
    ]
    return [total, *shards]


def _state(consumer: ConsumerSurvey, running: dict[tuple[str, str, int], str]) -> str:
    states = {_lane_state(consumer, lane, running) for lane in consumer.lanes}
    return next((state for state in ("blocked", "running", "waiting") if state in states), "idle")


def _lane_state(consumer: ConsumerSurvey, lane: LaneSurvey, running: dict[tuple[str, str, int], str]) -> str:
    if lane.error_type:
        return "blocked"
    key = (consumer.function, consumer.stream, int(shard_number(lane.shard_id)))
    if running.get(key) == "running":
        return "running"
    return "waiting" if lane.behind else "idle"


def _trouble(consumer: ConsumerSurvey, lane: LaneSurvey) -> str:
    name = f"{consumer.function} {consumer.stream}/{shard_number(lane.shard_id)}"
    if lane.suspect:
        return f"SUSPECT {name}: its batch was running when runtimes died; it runs alone"
    if not lane.error_type:
        return ""
    message = f": {lane.error_message}" if lane.error_message else ""
    return f"BLOCKED {name} attempt {lane.attempt} {lane.error_type}{message}"


def _age(milliseconds: int) -> str:
    return span(milliseconds) if milliseconds else "-"


def _stream(stream: StreamSurvey) -> dict[str, Any]:
    return {
        "stream": stream.name,
        "shards": len(stream.shards),
        "records": stream.records,
        "bytes": stream.bytes,
    }


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("--shards", action="store_true", help="a line for each shard, too")


COMMAND = Command(
    name="status",
    help="show handlers, shards, iterator age, what is in flight, blocked and parked",
    run=status,
    configure=configure,
    reads=True,
    examples=(
        ("kflow status", "a line a handler"),
        ("kflow status --shards", "a line a shard"),
        ("kflow status --json | jq .handlers", "for programs"),
    ),
)
