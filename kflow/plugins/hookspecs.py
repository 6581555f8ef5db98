"""The hooks: everything a plugin may implement, on one page.

A plugin is a module (or an object) with functions of these names, marked `@hookimpl`. Each hook says when and how
often it is called, in which process, what it may return, and what happens if it raises. Arguments are passed by
keyword, and a plugin names only those it wants: arguments may be added here, never renamed.

For all hooks: one thread calls them, one call at a time, never the thread that appends or hands out work, so a slow
plugin delays other plugins and what people see, not records. A hook that raises is logged with the names of plugin and
hook and costs nothing else; after five exceptions in a row that hook of that plugin is off until the next start.
"""

from __future__ import annotations

import pluggy

from kflow.interfaces import BatchOutcome, RuntimeInfo

PROJECT = "kflow"
"""The name plugins are known by: pluggy's project and the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def runtime_started(info: RuntimeInfo) -> None:
    """Say that the runtime is ready: streams exist, positions are stored, workers may start.

    Called once per start, in the node's process, before the first `batch_done`. Returns nothing.

    Args:
        info: where the data is, and which functions run.
    """


@hookspec
def batch_done(outcome: BatchOutcome) -> None:
    """Say how one attempt at a batch ended, after that is durable.

    Called in the node's process, once an attempt, in order within a shard of a function. Outcomes wait in a bounded
    queue; what does not fit, because plugins are slow, is dropped and counted: this is for metrics and notices, not for
    bookkeeping that must be complete. Returns nothing.

    Args:
        outcome: function, stream, shard, how many records, how it ended, how long it took.
    """


@hookspec
def shards_changed(stream: str, closed: list[str], opened: list[str]) -> None:
    """Say that shards of a stream were split, merged or scaled, after that is durable.

    Called in the node's process, once a change, in order with `batch_done`. Handlers read the new shards once they have
    settled all of those they came from. As with `batch_done`, what plugins are too slow for is dropped and counted; a
    change that a process made while no runtime ran is not told. Returns nothing.

    Args:
        stream: name of the stream.
        closed: ids of the shards that take no more records.
        opened: ids of the shards that take theirs.
    """


@hookspec
def runtime_stopping(reason: str) -> None:
    """Say that the runtime is about to end: the last `batch_done` has been called.

    Called once per orderly stop, in the node's process; not after `kill -9`. Returns nothing.

    Args:
        reason: why, in a few words for people, such as `drained` or `SIGINT`.
    """
