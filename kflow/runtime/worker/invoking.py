"""The execution environment inside a worker: import once, then invoke: announce, arm, call, disarm, check, report.

Before an invocation the node is told (without waiting for it), so that its own deadline stands even where the kernel's
timer was taken away; the timer of this process is the fast path: its default action kills C code too, and as on Lambda
no `finally` block runs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from kflow import arn, loading, producing
from kflow.broker.parked import ParkedBatch
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.interfaces import FunctionError, Invocation, Outcome
from kflow.lambda_ import forms, local, payloads
from kflow.lambda_.context import LambdaContext
from kflow.lambda_.shapes import Shape, shape_for
from kflow.runtime import environment as variables
from kflow.runtime import traces
from kflow.runtime.messages import Channel, Invoke, Invoked, Running, WorkerSpec
from kflow.runtime.worker.environments import INIT_S, redrive, source_arn
from kflow.runtime.worker.memory import MemoryLimit
from kflow.runtime.worker.output import FunctionLog, request_id_text


class Environment:
    """Runs one function; an `Invoker`."""

    def __init__(self, spec: WorkerSpec, channel: Channel) -> None:
        self._spec = spec
        self._handler = spec.handler
        self._channel = channel
        self._memory = MemoryLimit(spec.memory_mb)
        self._lease = 0
        self._generation = 0
        self._call: forms.Call | None = None
        self._on_event: Callable[[Any, Any], Any] | None = None
        self._guarded: list[tuple[int, int, int]] = []
        self._reader: ShardReader | None = None
        self._arn = arn.function_arn(spec.region, spec.account, spec.handler.name)
        self.broken = False
        """The import failed, or the memory is used up: this environment is thrown away, as on Lambda."""
        os.environ.update(
            variables.function_environment(
                name=spec.handler.name,
                memory_mb=spec.memory_mb,
                root=spec.handler.root,
                entry=f"{spec.handler.module}.{spec.handler.qualname}",
                user=spec.environment,
            )
        )
        os.environ[traces.VARIABLE] = traces.trace_id(spec.worker)  # one for all: setting it takes 1 us
        time.tzset()
        stream = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._log = FunctionLog(Path(spec.data_dir), spec.handler.name, spec.memory_mb, stream=stream)
        self._log.take_over()
        producing.set_process_runtime(Path(spec.data_dir))

    # ------------------------------------------------------------------ what the engine needs

    def shape(self, stream: StreamMap, shard: int) -> Shape:
        """How records of a shard are shown to this handler."""
        spec = self._spec
        return shape_for(
            self._handler.form,
            stream=stream,
            shard=shard,
            arn=source_arn(spec, stream.name),
            region=spec.region,
            role=arn.role_arn(spec.account, spec.handler.name),
        )

    def reads(self, spec: WorkerSpec) -> None:
        """The function has other triggers from now on."""
        self._spec, self._handler = spec, spec.handler

    def enter(self, reader: ShardReader | None) -> None:
        """From here on this shard is read."""
        self._reader = reader

    def enter_lease(self, lease: int, generation: int) -> None:
        """From here on invocations belong to this lease; (0, 0) for a redrive."""
        self._lease = lease
        self._generation = generation

    def invoke(self, invocation: Invocation) -> Outcome:
        """Run the function once, with records."""
        request_id = request_id_text(invocation.request_id)
        begun = self._begin(invocation.request_id, request_id, redrive=invocation.redrive)
        if isinstance(begun, Outcome):
            return begun
        call = self._call
        if call is None:  # unreachable: an import either gives a call or an error
            raise RuntimeError("the handler was imported and is not there")
        context = self._context(request_id, begun, self._arn)
        return self._end(request_id, local.run_call(call, self._handler, invocation, context))

    def call(self, message: Invoke) -> Invoked:
        """Run the function once, with an event as somebody sent it."""
        self.enter(None)
        self.enter_lease(0, 0)
        request_id = request_id_text(message.request_id)
        if message.tail:
            self._log.keep_tail()
        begun = self._begin(message.request_id, request_id)
        text = b""
        if isinstance(begun, Outcome):
            outcome = begun
        else:
            function = self._on_event
            if function is None:  # unreachable, as above
                raise RuntimeError("the handler was imported and is not there")
            context = self._context(request_id, begun, message.arn, message.client_context)
            text, outcome = local.run_event(function, self._handler, message.payload, context)
            outcome = self._end(request_id, outcome)
        if outcome.error is not None:
            text = msgspec.json.encode(payloads.payload(outcome.error))
        tail = self._log.take_tail() if message.tail else b""
        return Invoked(message.number, text, outcome.error, tail, outcome.duration_us, self.broken)

    def _begin(self, raw_id: bytes, request_id: str, *, redrive: bool = False) -> float | Outcome:
        """All that comes before the handler.

        Returns:
            When the invocation times out, monotonic seconds; or how it has failed already.
        """
        timeout_s = self._spec.timeout_s
        if self._call is None and not self._spec.init_in_invocation:
            error = self._initialise(raw_id)
            if error is not None:
                return self._failed_init(request_id, error)
        self._announce(raw_id, timeout_s)
        deadline = time.monotonic() + timeout_s
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        if self._call is None:
            error = self._import()
            if error is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
                return self._failed_init(request_id, error)
        self._log.start(request_id, redrive=redrive)
        return deadline

    def _end(self, request_id: str, outcome: Outcome) -> Outcome:
        """All that comes after the handler."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._check()
        if self._memory.exceeded():
            self.broken = True
            error = payloads.exited(request_id, signal.SIGKILL)
            outcome = Outcome(error=error, duration_us=outcome.duration_us, fresh=True)
        self._log.end(outcome.duration_us, outcome.error)
        return outcome

    def _context(self, request_id: str, deadline: float, invoked: str, client_context: str = "") -> LambdaContext:
        return LambdaContext(
            aws_request_id=request_id,
            function_name=self._handler.name,
            memory_limit_in_mb=str(self._spec.memory_mb),
            invoked_function_arn=invoked,
            deadline=deadline,
            client_context=client_context,
        )

    def _announce(self, raw_id: bytes, limit_s: int, *, initialising: bool = False) -> None:
        """Tell the node what runs from now on, for how long at most, and from where its memory is measured."""
        base_kb = self._memory.base_kb
        self._channel.send(Running(self._generation, raw_id, limit_s * 1000, initialising, self._lease, base_kb))

    # ------------------------------------------------------------------ import

    def _initialise(self, raw_id: bytes) -> FunctionError | None:
        """Import under the import's own limit.

        A worker that is killed by it is no attempt: the next one imports inside the invocation, under its timeout.
        """
        self._announce(raw_id, INIT_S, initialising=True)
        signal.setitimer(signal.ITIMER_REAL, INIT_S)
        error = self._import()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return error

    def _import(self) -> FunctionError | None:
        begin = time.perf_counter_ns()
        try:
            function = loading.load_function(self._handler)
            self._on_event = forms.lambda_handler(function)
            self._call = forms.adapt(function, self._handler)
        except Exception as exception:  # noqa: BLE001 - user code: whatever it raises is the invocation's error
            return payloads.from_import_error(exception, self._handler)
        finally:
            self._check()
        self._log.initialised((time.perf_counter_ns() - begin) // 1000)
        return None

    def _failed_init(self, request_id: str, error: FunctionError) -> Outcome:
        self.broken = True
        self._log.start(request_id)
        self._log.end(0, error)
        return Outcome(error=error, fresh=True)

    # ------------------------------------------------------------------ descriptors

    def guard(self, fds: Iterable[int]) -> None:
        """Descriptors that must still be the same files after user code ran."""
        self._guarded += identities(fds)

    def _check(self) -> None:
        """End at once where user code closed a descriptor of ours: its next `open` would get the number."""
        check_descriptors(self._guarded)
        check_descriptors((self._log.identity,))
        if self._reader is not None:
            check_descriptors(self._reader.fds())

    # ------------------------------------------------------------------ redrive

    def redrive(self, entry: ParkedBatch, stream: StreamMap) -> Outcome:
        """Send parked records to the function once more, marked as such in its log."""
        return redrive(self, self._handler, entry, stream)

    def close(self) -> None:
        """Nothing of it outlives the process."""


_FDS_TAKEN = 70
"""Exit status where user code closed kflow's descriptors (EX_SOFTWARE)."""


def identities(fds: Iterable[int]) -> list[tuple[int, int, int]]:
    """Which files descriptors are: (descriptor, device, inode)."""
    return [(fd, found.st_dev, found.st_ino) for fd in fds for found in (os.fstat(fd),)]


def check_descriptors(guarded: Iterable[tuple[int, int, int]]) -> None:
    """End this process at once unless each descriptor is still the file that it was."""
    fstat = os.fstat
    try:
        for fd, device, inode in guarded:
            found = fstat(fd)
            if found.st_ino != inode or found.st_dev != device:
                os._exit(_FDS_TAKEN)
    except OSError:
        os._exit(_FDS_TAKEN)
