"""The plan, carried out: grants, starts, stops and refusals, and the one timer for what comes next."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from kflow.plugins.manager import PluginManager
from kflow.runtime import messages
from kflow.runtime.loop import Loop, Timer
from kflow.runtime.node.drain import DrainWatch
from kflow.runtime.node.jobs import Jobs
from kflow.runtime.node.supervisor import SILENCE_S, Supervisor
from kflow.runtime.plan import functions
from kflow.runtime.plan.functions import FunctionPlan, NodeOptions
from kflow.runtime.plan.leases import (
    Action,
    GrantLease,
    LeaseTable,
    RefuseJob,
    RetireLease,
    SendJob,
    StartWorker,
    StopWorker,
)


class Dispatcher:
    """Does what a table of leases plans, by workers. Belongs to the node's loop.

    Attributes:
        drain: what the node stops after, if it is to stop; batching windows end at once then.
    """

    def __init__(
        self,
        table: LeaseTable,
        supervisor: Supervisor,
        jobs: Jobs,
        *,
        plans: Mapping[str, FunctionPlan],
        options: NodeOptions,
        data_dir: str,
        plugins: PluginManager,
        loop: Loop,
    ) -> None:
        self.drain: DrainWatch | None = None
        self._table = table
        self._supervisor = supervisor
        self._jobs = jobs
        self._plans = plans
        self._options = options
        self._data_dir = data_dir
        self._plugins = plugins
        self._loop = loop
        self._timer: Timer | None = None

    def dispatch(self) -> None:
        """Do what the table plans, and arm the one timer for what comes next."""
        now = time.monotonic()
        self._table.tick(now)
        for action in self._table.plan(now):
            self.carry_out(action, now)
        self.arm(now)

    def go_on(self) -> None:
        """The same where something may have been settled, or is read no more: a drain may be over."""
        if self.drain is not None:
            self.drain.check(self._table)
        self.dispatch()

    def carry_out(self, action: Action, now: float) -> None:
        """Do one thing that was planned."""
        supervisor = self._supervisor
        if isinstance(action, GrantLease):
            handle = supervisor.handles[action.worker]
            handle.running = None
            handle.held = len(action.leases)
            handle.deadline = now + SILENCE_S
            supervisor.send(handle, functions.grant(action, now, window_over=self.drain is not None))
        elif isinstance(action, StartWorker):
            supervisor.start_worker(
                functions.worker_spec(
                    action.worker,
                    self._plans[action.function],
                    self._options,
                    data_dir=self._data_dir,
                    init_in_invocation=action.function in supervisor.slow_inits,
                    every_batch=self._plugins.wants("batch_done"),
                ),
                now,
            )
        elif isinstance(action, RetireLease):
            supervisor.send(supervisor.handles[action.worker], messages.Retire(action.lease, action.generation))
        elif isinstance(action, StopWorker):
            supervisor.stop_worker(supervisor.handles[action.worker], now)
        elif isinstance(action, RefuseJob):
            refuse = partial(self._jobs.refuse, action.job, "no place was free in time: invoke it again")
            self._loop.call_later(0, refuse)
        elif isinstance(action, SendJob):
            handle = supervisor.handles[action.worker]
            handle.held = 1
            handle.deadline = now + SILENCE_S
            supervisor.send(handle, self._jobs.message(action.job))

    def arm(self, now: float) -> None:
        """Arm the timer for what comes next."""
        times = [t for t in (self._table.next_due(now), self._supervisor.next_deadline()) if t is not None]
        if not times:
            return
        due = min(times)
        if self._timer is not None and self._timer.call is not None:
            if self._timer.due <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._on_time)

    def arm_by(self, due: float, now: float) -> None:
        """Arm for what a grant brings, the earliest of which is `due`: nothing to do where the timer fires before."""
        timer = self._timer
        if timer is None or timer.call is None or timer.due > due or self._table.is_short:
            self.arm(now)

    def _on_time(self) -> None:
        self._supervisor.kill_overdue(time.monotonic())
        self.dispatch()
