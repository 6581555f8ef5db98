"""What only the node knows: its process, each lease, each worker. For `status`; positions are in the slots."""

from __future__ import annotations

import os
from typing import Any

from kflow.runtime.node.node import Node
from kflow.runtime.plan.leases import Lease, LeaseState, Place

WAITS: dict[str, str] = {
    "alone": "it has just run by itself",
    "backoff": "a failed batch waits for its next attempt",
    "damage": "the log is damaged here, and the runtime quarantines it",
    "drained": "its shard is closed, and all is settled",
    "due": "it waits for its time",
    "functionless": "there is no function of that name",
    "idle": "all is settled",
    "lane": "it has a batch, and waits for a worker",
    "look-ahead": "it is far ahead of the slowest lane of its shard",
    "news": "all is settled",
    "parents": "the shards that this one was made of are not drained",
    "ready": "it waits for a worker",
    "retired": "it gave its worker up to others",
    "storage": "the storage refuses a write",
    "suspect": "its batch was running when runtimes died: it waits to run alone",
    "throttled": "its function may not run: its reserved concurrency is used up, or 0",
    "tumbling": "an open tumbling window waits for its next record or its end",
    "unread": "it was given back before it was read",
    "window": "a batching window is open",
}
"""Why a lease is not running, by its reason or its state."""


def node_report(node: Node, uptime_s: float, now: float) -> dict[str, Any]:
    """All of it, as JSON holds it, but for leases that wait for news or have drained their shard.

    There may be tens of thousands of those, and the loop does nothing else meanwhile.

    Args:
        node: in its own thread.
        uptime_s: since when it runs.
        now: monotonic seconds.
    """
    table = node.table
    news, drained = LeaseState.NEWS, LeaseState.DRAINED
    return {
        "pid": os.getpid(),
        "epoch": node.options.epoch,
        "uptime_s": round(uptime_s, 3),
        "stopping": table.stopping,
        "draining": node.is_draining,
        "data_dir": str(node.folder.path),
        "endpoint": node.endpoint,
        "fsync": node.folder.fsync,
        "max_workers": table.max_workers,
        "reads": [
            [name, stream.name]
            for name, plan in node.functions.items()
            for trigger, stream in zip(plan.handler.triggers, plan.maps, strict=True)
            if trigger.enabled
        ],
        "consumers": [
            [name, stream, source] for name, plan in node.functions.items() for stream, source in plan.sources.items()
        ],
        "leases": [
            _lease(node, lease, now)
            for lease in table.leases.values()
            if (lease.state is not news and lease.state is not drained) or lease.trouble
        ],
        "queues": [] if node.beside is None else node.beside.report(),
        "workers": [_worker(node, place, now) for place in table.places.values()],
        "dropped_lines": node.feed.dropped,
    }


def _lease(node: Node, lease: Lease, now: float) -> dict[str, Any]:
    plan = node.functions[lease.function]
    stream = plan.maps[lease.trigger]
    state = waits_for(lease) if plan.exists else "functionless"
    due = lease.due if lease.state is LeaseState.DUE else None
    error = lease.last_error  # in full: a slot keeps its beginning
    return {
        "function": lease.function,
        "stream": stream.name,
        "shard": lease.shard,
        "lane": lease.lane,
        "state": state,
        "due_in_ms": None if due is None else max(0, round((due - now) * 1000)),
        "waits_for": WAITS.get(state, ""),
        "worker": lease.worker,
        "detail": lease.trouble,
        "error": None if error is None else {"type": error.type, "message": error.message, "file": error.file},
    }


def waits_for(lease: Lease) -> str:
    """`running`, or why a lease is not: the last holder's reason while that holds, else its state."""
    state: str = "running" if lease.state is LeaseState.GRANTED else lease.state.value
    held_up = lease.state is LeaseState.DUE or (lease.state is LeaseState.READY and lease.trouble)
    return lease.reason if held_up and lease.reason else state


def _worker(node: Node, place: Place, now: float) -> dict[str, Any]:
    handle = node.supervisor.handles.get(place.id)
    job = place.job
    return {
        "id": place.id,
        "function": place.function,
        "state": place.state.value,
        "pid": None if handle is None else handle.pid,
        "since_s": round(max(0.0, now - place.since), 3),
        "redrive": None if job is None or job.trigger is None else job.number,
        "invocation": None if job is None or job.trigger is not None else job.number,
    }
