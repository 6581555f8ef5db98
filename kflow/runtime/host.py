"""Run a runtime: take the folder, set everything up, serve until it is stopped, say what came of it."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Self

from kflow.broker import handshake
from kflow.broker.folder import DataFolder
from kflow.broker.locks import FileLock
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.clock import SystemClock
from kflow.errors import DataFolderBusy, UsageError
from kflow.interfaces import RuntimeInfo
from kflow.plugins.manager import PluginManager
from kflow.runtime import descriptors, environment, lifeline, loader, starting
from kflow.runtime.endpoint.server import Endpoint
from kflow.runtime.feed import HandlerInfo, HandlerSummary, Listener, ReadyInfo, Summary, Totals
from kflow.runtime.intake.connection import Connection
from kflow.runtime.intake.ingest import Ingest
from kflow.runtime.loop import Loop
from kflow.runtime.mappings.queueinfo import merged
from kflow.runtime.node.drain import listed
from kflow.runtime.node.node import Node, NodeOptions
from kflow.runtime.node.supervisor import SupervisorOptions
from kflow.runtime.signals import Signals, Starting
from kflow.runtime.status import survey
from kflow.runtime.status.metrics import Measured, Metrics
from kflow.runtime.tools.control import Control
from kflow.settings import Settings

PRELOAD = ("asyncio", "base64", "dataclasses", "datetime", "decimal", "gzip", "json", "logging", "uuid")
"""Of the standard library: what handlers usually import."""
PRELOADED_IF_USED = ("boto3", "botocore", "numpy", "pandas", "pyarrow", "pydantic", "requests", "httpx", "orjson")
"""Slow imports; only where a handler's source names them."""
LOCK_PATIENCE_S = 30.0
SWITCH_S = 0.0005
"""A thread of the node that computes (a catalogue, metrics) gives way to the loop after this long; Python's own 5 ms
would be seen in the latency of every put meanwhile (`tests/bench` "split")."""


def run(
    settings: Settings,
    paths: Sequence[str],
    *,
    drain: bool = False,
    timeout_s: float | None = None,
    listener: Listener,
    on_ready: Callable[[Node], None] | None = None,
) -> int:
    """Run the handlers under `paths` until stopped.

    Args:
        settings: checked settings.
        paths: files, folders or modules of the handlers; none: the node alone.
        drain: stop when all that was stored at the start is settled or parked.
        timeout_s: with `drain`: give up after this long.
        listener: told what happens, from one thread.
        on_ready: called once in the loop's thread when everything runs.

    Returns:
        0 done, 1 where a drain did not finish in time, 130 where Ctrl-C ended it.

    Raises:
        UsageError: handlers that cannot be loaded; a runtime that runs already.
        StorageError: the data folder cannot be used.
    """
    with Starting() as interrupt:
        return _run(settings, paths, interrupt, drain=drain, timeout_s=timeout_s, listener=listener, on_ready=on_ready)


def _run(
    settings: Settings,
    paths: Sequence[str],
    interrupt: Starting,
    *,
    drain: bool,
    timeout_s: float | None,
    listener: Listener,
    on_ready: Callable[[Node], None] | None,
) -> int:
    begin = time.monotonic()
    folder = DataFolder.open(settings.data_dir, create=True)
    guard = folder.runtime_lock()
    _take(guard, folder)
    try:
        # Only now: the settings of a second one must not reach the data of the first.
        folder.configure(
            fsync=settings.fsync if settings.given("fsync") else None,
            region=settings.region,
            account=settings.account,
        )
        loop = Loop()
        # Before handlers are loaded, for their environment names its port. Whoever connects waits until all is ready.
        with closing(loop), closing(Endpoint(settings, folder, loop)) as endpoint:
            variables = environment.worker_environment(
                os.environ,
                data_dir=folder.path,
                region=settings.region,
                reach=environment.reach(settings, endpoint.plain_url),
                credentials=settings.credentials,
            )
            found = loader.load(*paths, environment=variables) if paths else loader.Loaded()
            plugins = PluginManager.load(list(settings.plugins), base=settings.project)
            folder.run_dir.mkdir(parents=True, exist_ok=True)
            survivors = lifeline.end_survivors(folder.run_dir)
            starting.clean_run_dir(folder.run_dir)
            with _Running(settings, folder, found, plugins, variables, listener, endpoint, drain=drain) as running:
                return running.serve(begin, survivors, timeout_s, on_ready, interrupt)
    finally:
        guard.release()


def _take(guard: FileLock, folder: DataFolder) -> None:
    try:
        guard.acquire(0, announce=True)
    except DataFolderBusy as error:
        pid = guard.holder() or "unknown"
        raise UsageError(
            f"a runtime (process {pid}) already runs on {folder.path}: stop it with `kflow stop`, or use another "
            "data folder (--data-dir)"
        ) from error


class _Running:
    """The parts of a running node, set up and taken down in order."""

    def __init__(
        self,
        settings: Settings,
        folder: DataFolder,
        found: loader.Loaded,
        plugins: PluginManager,
        variables: dict[str, str],
        listener: Listener,
        endpoint: Endpoint,
        *,
        drain: bool,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.found = found
        self.plugins = plugins
        self.variables = variables
        self.listener = listener
        self.endpoint = endpoint
        self.draining = drain
        self.loop = endpoint.loop
        self.signals = Signals()

    def __enter__(self) -> Self:
        folder = self.folder
        open_shards = descriptors.open_shards(descriptors.raise_limit())
        self.store = Log(folder, clock=SystemClock(), open_shards=open_shards)
        self.parked = ParkedStore(folder.path, files=folder.files, fsync=folder.fsync)
        self.epochs = starting.Epochs(folder)
        self.metrics = Metrics(folder)
        self.node = Node(
            self.store,
            self.parked,
            options=NodeOptions(
                region=self.settings.region,
                account=self.settings.account,
                max_workers=self.settings.max_workers,
                retry_backoff_scale=self.settings.retry_backoff_scale,
                epoch=self.epochs.epoch,
                previous_epoch_clean=self.epochs.previous_clean,
            ),
            workers=self._worker_options(),
            listener=Measured(self.listener, self.metrics),
            plugins=self.plugins,
            loop=self.loop,
        )
        self.node.watch_appends(self.metrics.appended)
        self.node.exposition = self.metrics.exposition
        self.ingest = Ingest(
            self.store,
            loop=self.loop,
            on_append=self.node.on_append,
            on_control=self._control,
            on_call=self.endpoint.call,
            hello=handshake.own_hello(folder.id, is_guarded=self.settings.enforce_limits or bool(self.settings.faults)),
            failed=lambda text: self.node.notice("error", text),
        )
        self.control = Control(self.node, self.ingest)
        # First the socket, then the lock: a producer that waits for the lock finds the node on its next try.
        self.ingest.listen(folder.make_socket_path())
        self.writer = folder.writer_lock()
        self.writer.acquire(LOCK_PATIENCE_S, announce=True)
        self.older_layout = folder.upgrade()
        return self

    def serve(
        self,
        begin: float,
        survivors: int,
        timeout_s: float | None,
        on_ready: Callable[[Node], None] | None,
        interrupt: Starting,
    ) -> int:
        """Set up, run the loop, and tell what it came to."""
        node = self.node
        self.store.recover_all()
        self.parked.release_claims(self.epochs.epoch)
        started = starting.set_up(self.store, self.found.handlers, self.settings, time.monotonic())
        node.resumed = started.resumed
        for plan in started.functions.values():
            node.publish(plan)
        node.reads.add(started.leases, started.ends, started.closed)
        self.endpoint.start(node, self.ingest, self.control)
        ends = {lease.id: node.readable_end(lease)[0] for lease in started.leases}
        self.signals.install(node, interrupt)
        sys.setswitchinterval(SWITCH_S)
        gc.collect()
        gc.freeze()
        node.start()
        self.metrics.start(node.table, node.feed, node.function_measures)
        self.endpoint.start_queues(
            lambda queues: self._begin(begin, started, queues, survivors, ends, timeout_s, on_ready)
        )
        self.loop.run()
        node.feed.publish(lambda: self.plugins.call("runtime_stopping", reason=node.reason))
        queues = self.endpoint.queue_totals()
        summary = Summary(
            seconds=time.monotonic() - begin,
            handlers=summarise(self.folder, _readers(node, queues), queues),
            dropped_lines=node.feed.dropped,
        )
        node.feed.publish(lambda: self.listener.stopped(summary))
        return node.code

    def _begin(
        self,
        begin: float,
        started: starting.Started,
        queues: Sequence[HandlerInfo],
        survivors: int,
        ends: dict[int, int],
        timeout_s: float | None,
        on_ready: Callable[[Node], None] | None,
    ) -> None:
        """Everything is there: tell people, and let the handlers run."""
        node = self.node
        info = ReadyInfo(
            seconds=time.monotonic() - begin,
            data_dir=str(self.folder.path),
            handlers=tuple(merged(started.infos, queues, started.functions)),
            endpoint=self.endpoint.url,
        )
        node.feed.publish(lambda: self.listener.ready(info))
        for warning in self.found.warnings:
            node.notice("warning", warning)
        for trouble in started.resumed.troubles:
            node.notice("error", trouble)
        if self.settings.credentials == "inherit" and self.found.handlers:
            node.notice(
                "warning",
                "credentials = 'inherit': handlers see the AWS credentials of this shell, and their calls go to AWS, "
                "but for those to Kinesis, SQS, SNS, Lambda and CloudWatch, which are here",
            )
        if self.older_layout is not None:
            node.notice(
                "info",
                f"the data folder was of layout {self.older_layout} and is of layout {self.folder.format.layout} now: "
                "an older kflow cannot open it any more",
            )
        if survivors:
            node.notice("info", f"ended {survivors} workers that an earlier runtime left behind")
        started_info = RuntimeInfo(data_dir=str(self.folder.path), functions=tuple(started.functions))
        node.feed.publish(lambda: self.plugins.call("runtime_started", info=started_info))
        if self.draining:
            node.start_drain(ends)
            if timeout_s is not None:
                self.loop.call_later(timeout_s, self._drain_timed_out)
        else:
            node.dispatch()
        if on_ready is not None:
            self.loop.call_later(0, lambda: on_ready(node))

    def __exit__(self, *failure: object) -> None:
        self.signals.restore()
        self.node.close()
        self.metrics.close()
        self.ingest.close()
        self.store.close()
        self.writer.release()
        if not failure[0]:
            self.epochs.ended()

    def _control(self, connection: Connection, request: int, message: dict[str, Any]) -> Any:
        return self.control.handle(connection, request, message)

    def _drain_timed_out(self) -> None:
        node = self.node
        blocked = node.undrained()
        if node.table.stopping or not blocked:
            return
        names = listed(blocked)
        node.code = 1
        node.notice("error", f"not drained in time, still blocked: {names}; `kflow status` says why")
        node.request_stop("not drained in time")

    def _worker_options(self) -> SupervisorOptions:
        used = [name for name in PRELOADED_IF_USED if name in self.found.preload]
        return SupervisorOptions(
            worker_start=self.settings.worker_start,
            preload=(*PRELOAD, *used, *self.settings.preload),
            environment=self.variables,
            data_dir=self.folder.path,
            run_dir=self.folder.run_dir,
        )


def _readers(node: Node, queues: Mapping[str, Totals]) -> list[str]:
    """The functions that read something: those made by the API may be there to be invoked alone."""
    return [
        name
        for name, plan in node.functions.items()
        if plan.handler.package is None or plan.handler.triggers or name in queues
    ]


def summarise(folder: DataFolder, functions: Iterable[str], queues: Mapping[str, Totals]) -> tuple[HandlerSummary, ...]:
    """Totals per handler, out of the slots: they outlive any process; and of queues, since this one's start."""
    found = survey.consumers(folder)
    summaries = []
    for name in functions:
        mine = [each for each in found if each.function == name]
        messages = queues.get(name, Totals())
        summaries.append(
            HandlerSummary(
                name=name,
                processed=sum(each.processed for each in mine) + messages.processed,
                redelivered=sum(each.redelivered for each in mine) + messages.redelivered,
                parked=sum(each.parked for each in mine),
                lost=sum(each.lost for each in mine),
                dropped=sum(each.dropped for each in mine),
            )
        )
    return tuple(summaries)
