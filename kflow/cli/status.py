"""`kflow status`: is a runtime there, where does each handler stand, what is blocked, damaged, lost and parked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from kflow import limits
from kflow.arn import consumer_name
from kflow.cli.arguments import Arguments, Command, Parser
from kflow.cli.live import printable, shard_number
from kflow.cli.paths import open_folder
from kflow.cli.terminal import Terminal, count, moment, size, span

if TYPE_CHECKING:
    from kflow.runtime.status.survey import ConsumerSurvey, LaneSurvey, StreamSurvey

MOST_TROUBLES = 20
"""So many lines of trouble are shown; a thousand blocked shards are one trouble."""
MOST_TEXT = 200
"""So many characters of an error are shown."""
_WORST = (
    "damaged",
    "suspect",
    "blocked",
    "storage",
    "functionless",
    "throttled",
    "running",
    "backoff",
    "look-ahead",
    "window",
    "parents",
    "waiting",
    "tumbling",
)
"""States of lanes, the one that speaks for all of them first."""


_QUEUE_STATES = {
    "functionless": "waits for its function",
    "gone": "waits for its queue",
    "idle": "all is settled",
    "paused": "waits after a trouble",
    "throttled": "may not run now",
    "window": "a batching window is open",
}


class Lease(NamedTuple):
    """What the runtime says of a lane."""

    state: str = ""
    due_in_ms: int | None = None
    detail: str = ""
    error: dict[str, str] | None = None


class Leases:
    """What the runtime says of all lanes; nothing where none runs. It may be of another version, and say less."""

    def __init__(self, node: dict[str, Any] | None) -> None:
        self._found = {
            (each["function"], each["stream"], each["shard"], each.get("lane", 0)): Lease(
                each["state"], each.get("due_in_ms"), each.get("detail", ""), each.get("error")
            )
            for each in (node["leases"] if node else ())
        }
        consumers: list[list[str]] = node.get("consumers", []) if node else []
        self._consumers = {(function, stream): arn for function, stream, arn in consumers}
        self._reads = {(function, stream) for function, stream in (node.get("reads", ()) if node else ())}

    def registered(self, consumer: ConsumerSurvey) -> str | None:
        """The ARN of the registered consumer that a handler reads as; None for none, and where no runtime runs."""
        return self._consumers.get((consumer.function, consumer.stream))

    def of(self, consumer: ConsumerSurvey, lane: LaneSurvey) -> Lease:
        """Of one lane."""
        shard = int(shard_number(lane.shard_id))
        found = self._found.get((consumer.function, consumer.stream, shard, lane.lane))
        if found is None and (consumer.function, consumer.stream) in self._reads:
            return Lease(lane.state if lane.state in ("drained", "expired") else "news")
        return found or Lease()


def status(arguments: Arguments, terminal: Terminal) -> int:
    """Show all of it, from the files; what only the runtime knows is asked of it."""
    from kflow.broker.parked import ParkedStore
    from kflow.runtime.status import survey
    from kflow.runtime.tools import admin

    folder = open_folder(arguments)
    node = admin.node_status(folder.path)
    leases = Leases(node)
    consumers = survey.consumers(folder)
    streams = survey.streams(folder)
    parked = sum(len(entry.records) for entry in ParkedStore(folder.path, folder.files, folder.fsync).list())
    space = folder.files.statvfs(folder.path)
    free = space.f_bavail * space.f_frsize
    if arguments.json:
        terminal.json(
            {
                "data_dir": str(folder.path),
                "layout": folder.format.layout,
                "fsync": folder.fsync,
                "free_bytes": free,
                "runtime": node,
                "streams": [_stream(each) for each in streams],
                "handlers": [_handler(each, leases) for each in consumers],
                "parked": parked,
            }
        )
        return 0
    terminal.line(_runtime_line(node, str(folder.path)))
    for stream in streams:
        terminal.line(_stream_line(stream))
    if consumers:
        write_table(terminal, consumers, leases, shards=arguments.shards or arguments.lanes, lanes=arguments.lanes)
    queues: list[dict[str, Any]] = node.get("queues", []) if node else []  # an older runtime has none
    if queues:
        _write_queues(terminal, queues)
    troubles = [_no_space(free)] if free < limits.FREE_BYTES else []
    troubles += [text for each in streams for text in _stream_troubles(each)]
    troubles += [_positions(each) for each in consumers if each.trouble]
    troubles += [text for each in consumers for lane in each.lanes for text in _troubles(each, lane, leases)]
    troubles += [text for each in streams for text in _past_losses(each)]  # last: nothing can be done about them
    for text in troubles[:MOST_TROUBLES]:
        terminal.line(terminal.paint(text, "yellow" if text.startswith("LOST ") else "red"))
    if len(troubles) > MOST_TROUBLES:
        terminal.line(f"and {len(troubles) - MOST_TROUBLES:,} more of these: `kflow status --json` has all")
    if parked:
        terminal.line(f"{count(parked, 'record')} parked: `kflow parked list` shows them")
    return 0


# ---------------------------------------------------------------------- lines


def _write_queues(terminal: Terminal, queues: Sequence[dict[str, Any]]) -> None:
    """The mappings of queues; their totals are of this runtime."""
    rows: list[tuple[Any, ...]] = [("handler", "queue", "state", "processed", "redelivered", "last error")]
    for each in sorted(queues, key=lambda each: (each["function"], each["queue"])):
        error = each["error"]
        text = "" if error is None else " ".join(f"{error['type']}: {error['message']}".split())[:MOST_TEXT]
        totals = (f"{each['processed']:,}", f"{each['redelivered']:,}")
        rows.append((each["function"], each["queue"], _QUEUE_STATES.get(each["state"], each["state"]), *totals, text))
    terminal.table(rows, right=(3, 4))


def _runtime_line(node: dict[str, Any] | None, data_dir: str) -> str:
    if node is None:
        return f"no runtime on {data_dir}"
    workers = count(len(node["workers"]), "worker")
    state = "stopping" if node["stopping"] else "draining" if node.get("draining") else "running"
    line = f"runtime {state}  process {node['pid']}  {span(node['uptime_s'] * 1000)}  {workers}  data {data_dir}"
    endpoint = node.get("endpoint")  # an older runtime has none
    return f"{line}  endpoint {endpoint}" if endpoint else line


def _stream_line(stream: StreamSurvey) -> str:
    shards = count(stream.open_shards, "shard")
    closed = len(stream.shards) - stream.open_shards
    past = f" and {closed:,} closed" if closed else ""
    return f"stream {stream.name}  {shards}{past}  {count(stream.records, 'record')}, {size(stream.bytes)}"


def _no_space(free: int) -> str:
    return f"FULL  {size(free)} are free, and below {size(limits.FREE_BYTES)} puts are refused; handlers go on"


def _stream_troubles(stream: StreamSurvey) -> Iterable[str]:
    for shard in stream.shards:
        name = f"{stream.name}/{shard_number(shard.shard_id)}"
        if shard.trouble:
            yield f"DAMAGED {name}: {_with_advice(shard.trouble)}"


def _past_losses(stream: StreamSurvey) -> Iterable[str]:
    for shard in stream.shards:
        name = f"{stream.name}/{shard_number(shard.shard_id)}"
        for each in shard.lost:
            what = count(each.records, "record") if each.records else "nothing that was counted"
            yield f"LOST {name}: {what} by {each.reason}, found {moment(each.at_ms)}, from counter {each.first_counter}"


def _positions(consumer: ConsumerSurvey) -> str:
    return f"DAMAGED {consumer.function} {consumer.stream}: {_with_advice(consumer.trouble)}"


def _with_advice(trouble: str) -> str:
    return trouble if "kflow doctor" in trouble else f"{trouble}; `kflow doctor` says more"


def _troubles(consumer: ConsumerSurvey, lane: LaneSurvey, leases: Leases) -> Iterable[str]:
    name = f"{consumer.function} {_place(consumer, lane)}"
    lease = leases.of(consumer, lane)
    if lane.trouble:
        yield f"DAMAGED {name}: {_with_advice(lane.trouble)}"
    if lease.detail:
        yield f"STORAGE {name} waits: {lease.detail}"
    if lane.suspect:
        yield f"SUSPECT {name}: its batch was running when runtimes died; it runs alone"
    elif lane.is_blocked:
        due = f"  next attempt in {span(lease.due_in_ms)}" if lease.due_in_ms is not None else ""
        yield f"BLOCKED {name} attempt {lane.attempt} {_error(lane, lease)}{due}"


def _error(lane: LaneSurvey, lease: Lease) -> str:
    """The last failure in one line: as the runtime knows it, else the beginning of it, which the slot keeps."""
    kind, message = lane.error_type, lane.error_message
    if lease.error is not None and lease.error["type"].startswith(kind):
        kind, message = lease.error["type"], lease.error["message"]
    text = f"{kind}: {message}" if message else kind
    line = printable(text.partition("\n")[0].encode())
    return line if len(line) <= MOST_TEXT else line[:MOST_TEXT] + "…"


# ---------------------------------------------------------------------- table


def write_table(
    terminal: Terminal, consumers: Sequence[ConsumerSurvey], leases: Leases, *, shards: bool, lanes: bool
) -> None:
    """A row a handler; below it a row a shard, or a row a lane."""
    dropped = any(each.dropped for each in consumers)
    heading = ("handler", "shard", "state", "behind", "age", "processed", "redelivered", "parked")
    rows: list[tuple[str, ...]] = [(*heading, *(("dropped",) if dropped else ()), "lost")]
    for consumer in consumers:
        registered = consumer_name(leases.registered(consumer) or "")
        place = f"{consumer.stream}/*" + (f" ({registered})" if registered else "")
        rows.append(_row(consumer.function, place, consumer, consumer.lanes, leases, dropped=dropped))
        for group in _groups(consumer, lanes=lanes) if shards else ():
            place = _place(consumer, group[0]) if lanes else f"{consumer.stream}/{shard_number(group[0].shard_id)}"
            rows.append(_row("", place, consumer, group, leases, dropped=dropped))
    terminal.table(rows, right=range(3, len(rows[0])))


def _groups(consumer: ConsumerSurvey, *, lanes: bool) -> list[list[LaneSurvey]]:
    """The lanes by shard, or each by itself."""
    if lanes:
        return [[lane] for lane in consumer.lanes]
    found: dict[str, list[LaneSurvey]] = {}
    for lane in consumer.lanes:
        found.setdefault(lane.shard_id, []).append(lane)
    return list(found.values())


def _row(
    function: str, place: str, consumer: ConsumerSurvey, lanes: Sequence[LaneSurvey], leases: Leases, *, dropped: bool
) -> tuple[str, ...]:
    def total(name: str) -> str:
        return f"{sum(getattr(lane, name) for lane in lanes):,}"

    about = "~" if len(lanes) == 1 and not lanes[0].exact else ""  # over the lanes of a shard the shares add up
    age = max((lane.iterator_age_ms for lane in lanes), default=0)
    return (
        function,
        place,
        _state_of(consumer, lanes, leases),
        about + total("behind"),
        span(age) if age else "-",
        total("succeeded"),
        total("redelivered"),
        total("parked"),
        *((total("dropped"),) if dropped else ()),
        total("lost"),
    )


def _state_of(consumer: ConsumerSurvey, lanes: Sequence[LaneSurvey], leases: Leases) -> str:
    if consumer.trouble and len(lanes) == len(consumer.lanes):
        return "damaged"
    states = {lane_state(lane, leases.of(consumer, lane)) for lane in lanes}
    first = next((state for state in _WORST if state in states), None)
    if first is None:
        past = states - {"expired"} or states
        return past.pop() if len(past) == 1 else "idle"
    if len(lanes) == 1:
        due = leases.of(consumer, lanes[0]).due_in_ms
        return f"{first} {span(due)}" if due is not None else first
    return first


def lane_state(lane: LaneSurvey, lease: Lease) -> str:
    """What a lane is up to, in one word: what is wrong with it, else what the runtime says, else what its slot says."""
    if lane.trouble:
        return "damaged"
    if lane.suspect:
        return "suspect"
    if lane.is_blocked:
        return "blocked"
    if lease.detail:
        return "storage"
    if lease.state == "running" or (lease.state in _WORST and lane.behind):
        return lease.state
    if lane.state in ("drained", "expired"):
        return lane.state
    if lane.window_start_s and not lane.behind:
        return "tumbling"  # all is read, and a window is open
    return "waiting" if lane.behind else "idle"


def _place(consumer: ConsumerSurvey, lane: LaneSurvey) -> str:
    shard = f"{consumer.stream}/{shard_number(lane.shard_id)}"
    return f"{shard} lane {lane.lane}" if consumer.factor > 1 else shard


# ---------------------------------------------------------------------- for programs


def _stream(stream: StreamSurvey) -> dict[str, Any]:
    return {
        "stream": stream.name,
        "shards": len(stream.shards),
        "open_shards": stream.open_shards,
        "records": stream.records,
        "bytes": stream.bytes,
        "stored": sum(shard.stored for shard in stream.shards),
        "lost": stream.lost,
        "damage": [
            {"shard_id": shard.shard_id, **msgspec.to_builtins(each)} for shard in stream.shards for each in shard.lost
        ],
        "trouble": [{"shard_id": shard.shard_id, "text": shard.trouble} for shard in stream.shards if shard.trouble],
    }


def _handler(consumer: ConsumerSurvey, leases: Leases) -> dict[str, Any]:
    return {
        "function": consumer.function,
        "stream": consumer.stream,
        "consumer_arn": leases.registered(consumer),
        "factor": consumer.factor,
        "state": _state_of(consumer, consumer.lanes, leases),
        "processed": consumer.processed,
        "redelivered": consumer.redelivered,
        "parked": consumer.parked,
        "dropped": consumer.dropped,
        "lost": consumer.lost,
        "behind": consumer.behind,
        "iterator_age_ms": consumer.iterator_age_ms,
        "trouble": consumer.trouble,
        "blocked": sum(lane.is_blocked for lane in consumer.lanes),
        "lanes": [_lane(consumer, lane, leases) for lane in consumer.lanes],
    }


def _lane(consumer: ConsumerSurvey, lane: LaneSurvey, leases: Leases) -> dict[str, Any]:
    lease = leases.of(consumer, lane)
    fields: dict[str, Any] = msgspec.to_builtins(lane)
    return {**fields, "waits_for": lease.state or None, "due_in_ms": lease.due_in_ms, "detail": lease.detail}


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("--shards", action="store_true", help="a line for each shard, too")
    parser.add_argument("--lanes", action="store_true", help="a line for each lane of each shard, too")


COMMAND = Command(
    name="status",
    help="show handlers, shards, iterator age, what is in flight, blocked, damaged, lost and parked",
    run=status,
    configure=configure,
    reads=True,
    examples=(
        ("kflow status", "a line a handler"),
        ("kflow status --shards", "a line a shard"),
        ("kflow status --lanes", "a line a lane, with parallelization_factor"),
        ("kflow status --json | jq .handlers", "for programs"),
    ),
)
