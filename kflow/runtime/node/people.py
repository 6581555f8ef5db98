"""What a node tells people and plugins: of batches, and of what is amiss, each thing once."""

from __future__ import annotations

from collections.abc import Mapping

from kflow.interfaces import BatchOutcome
from kflow.plugins.manager import PluginManager
from kflow.runtime.feed import Feed, Listener
from kflow.runtime.node.workers import WorkerHandle
from kflow.runtime.plan.functions import FunctionPlan
from kflow.runtime.plan.lease import Lease


class People:
    """Those who listen, and the plugins. Nobody waits for them.

    Attributes:
        feed: brings it to them, from a thread of its own.
    """

    def __init__(self, listener: Listener, plugins: PluginManager, plans: Mapping[str, FunctionPlan]) -> None:
        self.feed = Feed()
        self._listener = listener
        self._plugins = plugins
        self._plans = plans
        self._over_memory: set[str] = set()
        self._has_said_no_zygote = False

    def notice(self, level: str, text: str) -> None:
        """Tell people something. From any thread."""
        self.feed.publish(lambda: self._listener.notice(level, text))

    def tell(self, outcome: BatchOutcome) -> None:
        """Tell people and plugins of a batch whose outcome is durable. From any thread."""
        self.feed.publish(lambda: self.outcome(outcome))

    def outcome(self, outcome: BatchOutcome) -> None:
        """The same, from the feed's own thread."""
        self._listener.outcome(outcome)
        self._plugins.call("batch_done", outcome=outcome)

    def shards_changed(self, stream: str, closed: list[str], opened: list[str]) -> None:
        """Tell plugins which shards of a stream were closed, and which opened; it is durable."""
        self.feed.publish(lambda: self._plugins.call("shards_changed", stream=stream, closed=closed, opened=opened))

    def trouble(self, lease: Lease, detail: str) -> None:
        """Say what the storage refuses a lease, once; and when it is over, which is an empty `detail`."""
        if detail == lease.trouble:
            return
        where = self._plans[lease.function].place(lease)
        if detail:
            self.notice("error", f"{where} waits for the storage: {detail}")
        else:
            self.notice("info", f"{where} goes on, the storage works again")
        lease.trouble = detail

    def over_memory(self, handle: WorkerHandle, used_mb: int) -> None:
        """A worker is killed for its memory; once a function."""
        if handle.function not in self._over_memory:
            self._over_memory.add(handle.function)
            self.notice(
                "warning",
                f"{handle.function} was ended, as on Lambda: it holds {used_mb} MB more than at its start, and its "
                f"memory_size is {handle.spec.memory_mb} MB",
            )

    def no_zygote(self) -> None:
        """What workers are forked from ended before it could fork any; once."""
        if self._has_said_no_zygote:
            return
        self._has_said_no_zygote = True
        self.notice(
            "error",
            "functions cannot be run: the process that workers are forked from ended at its start, for what is said "
            'on standard error; look at the setting `preload`, or set worker_start = "spawn"',
        )
