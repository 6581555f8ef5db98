"""The execution environment of a function in a runtime process: one process at a time, one invocation at a time.

    no process --invocation--> initialising --ready--> waiting --invocation--> running --answered--> waiting
         ^                          |                                             |
         +--- it failed: an attempt, with the error that the runtime told          +--- timeout, end, too much memory:
         +--- it took 10 s: again, inside the invocation, under its timeout             an attempt; a new process next

The worker outlives its runtime process. Of the two only the end of the process is an attempt: it is the function's,
and it is told here; the worker's own is kflow's, and counts as an interruption.

Source: documented: Lambda Developer Guide, lambda-runtime-environment; recorded: payloads of the errors.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from kflow import arn
from kflow.broker.parked import ParkedBatch
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.events.windows import window_members
from kflow.interfaces import FunctionError, Invocation, Outcome
from kflow.lambda_ import payloads
from kflow.lambda_.event_texts import EventTexts, EventTextShape
from kflow.lambda_.shapes import Shape
from kflow.runtime.messages import Channel, Invoke, Invoked, Running, WorkerSpec
from kflow.runtime.traces import trace_id
from kflow.runtime.worker.environments import INIT_S, redrive, source_arn
from kflow.runtime.worker.hosted import runtimes
from kflow.runtime.worker.hosted.api import Answer, State, event
from kflow.runtime.worker.hosted.logs import HostedLog
from kflow.runtime.worker.hosted.process import Guard, Process
from kflow.runtime.worker.hosted.server import Listener, Server
from kflow.runtime.worker.hosted.variables import runtime_variables
from kflow.runtime.worker.output import request_id_text

_TELL_MS: Final = 1_000


class Result(NamedTuple):
    """What an invocation came to, as bytes.

    Attributes:
        body: the response, or the error's payload, as it was sent.
        error: set where it failed.
        duration_us: from giving the event to having the answer.
    """

    body: bytes
    error: FunctionError | None
    duration_us: int


class HostedEnvironment:
    """Runs one function; an `Invoker`. Belongs to the worker's thread."""

    broken = False
    """Never: a new runtime process takes the place of one that is of no more use."""

    def __init__(self, spec: WorkerSpec, channel: Channel) -> None:
        package = spec.handler.package
        if package is None:
            raise ValueError("a hosted function has a package")
        self._spec = spec
        self._package = package
        self._channel = channel
        self._lease = 0
        self._generation = 0
        self._told = 0
        self._told_until = 0.0
        data_dir = Path(spec.data_dir)
        region, account = package.region or spec.region, package.account or spec.account
        qualifier = spec.handler.name.partition(":")[2]
        self._arn = arn.function_arn(region, account, package.function) + (f":{qualifier}" if qualifier else "")
        self._role = package.role or arn.role_arn(account, package.function)
        self._region, self._account = region, account
        self._temporary = data_dir / "run" / "tmp" / f"{spec.epoch}-{spec.worker}"  # no folder of an earlier node
        self._log = HostedLog(spec, package, data_dir)
        self._guard: Guard | None = None
        self._server: Server | None = None
        self._process: Process | None = None
        self._used_kb = 0
        self._is_over = False
        self._noted = False
        self._is_slow = spec.init_in_invocation

    # ------------------------------------------------------------------ what the engine needs

    def shape(self, stream: StreamMap, shard: int) -> Shape:
        """How records of a shard are shown to this function: as the text of its event."""
        created_s = next(info.created_s for info in stream.shards if info.index == shard)
        source = source_arn(self._spec, stream.name)
        return EventTextShape(created_s, shard, arn=source, region=self._region, role=self._role)

    def reads(self, spec: WorkerSpec) -> None:
        """The function has other triggers from now on."""
        self._spec = spec

    def enter(self, reader: ShardReader | None) -> None:
        """Nothing of the worker is in reach of the function."""

    def guard(self, fds: Iterable[int]) -> None:
        """Nothing of the worker is in reach of the function."""

    def enter_lease(self, lease: int, generation: int) -> None:
        """From here on invocations belong to this lease; (0, 0) for a redrive."""
        self._lease = lease
        self._generation = generation
        self._told_until = 0.0

    def invoke(self, invocation: Invocation) -> Outcome:
        """Run the function once with records of a stream."""
        body, records = _event_body(invocation), invocation.records
        meanwhile = records.prepare if isinstance(records, EventTexts) else None
        result = self.run(invocation.request_id, body, redrive=invocation.redrive, meanwhile=meanwhile)
        if result.error is not None:
            return Outcome(error=result.error, duration_us=result.duration_us)
        return Outcome(_value(result.body), None, result.duration_us)

    def call(self, message: Invoke) -> Invoked:
        """Run the function once, with an event as somebody sent it."""
        self.enter_lease(0, 0)
        if message.tail:
            self._log.keep_tail()
        result = self.run(message.request_id, message.payload, where=message.arn, client_context=message.client_context)
        tail = self._log.take_tail() if message.tail else b""
        return Invoked(message.number, result.body, result.error, tail, result.duration_us)

    def redrive(self, entry: ParkedBatch, stream: StreamMap) -> Outcome:
        """Send parked records to the function once more, marked as such in its log."""
        return redrive(self, self._spec.handler, entry, stream)

    def close(self) -> None:
        """End the process, and all that it started."""
        self._drop()
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    # ------------------------------------------------------------------ one invocation

    def run(
        self,
        request_id: bytes,
        body: bytes,
        *,
        where: str = "",
        client_context: str = "",
        redrive: bool = False,
        meanwhile: Callable[[], object] | None = None,
    ) -> Result:
        """Run the function once.

        Args:
            request_id: UUID.
            body: the event, JSON; never empty.
            where: ARN that the caller used; empty: the function's.
            client_context: JSON; empty: none.
            redrive: whether these are parked records that somebody sent again.
            meanwhile: to be done while the function is at work.
        """
        text = request_id_text(request_id)
        failed = self._prepare(request_id, text) if self._server is None else None
        timeout_s = self._spec.timeout_s
        if failed is None:
            self._announce(request_id, timeout_s)
        begin = time.perf_counter_ns()
        deadline = time.monotonic() + timeout_s
        if failed is None and self._server is None:  # its start took too long by itself: once more, as a part of this
            failed = self._start(text, deadline, timeout_s)
        server = self._server
        if failed is not None or server is None:
            return self._unstarted(text, failed, _since(begin), redrive=redrive)
        is_ready = server.wait_ready(deadline, self._over_memory)
        if is_ready and server.status is not None:  # it has ended between two invocations: none is to suffer for it
            self._drop()
            failed = self._start(text, deadline, timeout_s)
            server = self._server
            if failed is not None or server is None:
                return self._unstarted(text, failed, _since(begin), redrive=redrive)
        answer: Answer | None = None
        if server.api.state is not State.READY:
            self._log.begin(text, redrive=redrive)
        else:

            def begun() -> None:  # the runtime has it already: what it writes is read only afterwards
                self._log.begin(text, redrive=redrive)
                if meanwhile is not None:
                    meanwhile()

            given = event(
                text,
                body,
                arn=where or self._arn,
                deadline_ms=int((time.time() + deadline - time.monotonic()) * 1000),
                trace_id=trace_id(self._spec.worker),
                client_context=json.dumps(json.loads(client_context)) if client_context else "",
            )
            begin = time.perf_counter_ns()
            answer = server.run(given, deadline, self._over_memory, begun)
        return self._ended(text, server, answer, _since(begin))

    def _ended(self, text: str, server: Server, answer: Answer | None, duration_us: int) -> Result:
        """The invocation has been answered, or is over otherwise."""
        if not self._used_kb:
            self._over_memory()
        if self._is_over:
            answer = None
        if answer is not None and not answer.failed:
            self._log.finish(duration_us, self._used_kb >> 10, produced=len(answer.body))
            return Result(answer.body, None, duration_us)
        if answer is not None and not answer.too_large:
            error = _told(answer, text)
            self._log.finish(duration_us, self._used_kb >> 10, produced=len(answer.body))
            return Result(answer.body, error, duration_us)
        failure, status = "", "error"
        if answer is not None:
            error = payloads.too_large()
        elif self._is_over:
            error = payloads.exited(text, signal.SIGKILL)
        elif server.status is not None:
            error = payloads.exited(text, server.status)
        else:
            error, status = payloads.timed_out(text, self._spec.timeout_s), "timeout"
            duration_us = self._spec.timeout_s * 1_000_000
        if answer is None:
            failure = error.message
            server.drain()
            self._drop()
        used_mb = self._spec.memory_mb if self._is_over else self._used_kb >> 10
        self._log.finish(duration_us, used_mb, failure=failure, status=status, kind=error.type)
        return Result(_payload(error), error, duration_us)

    def _unstarted(self, text: str, error: FunctionError | None, duration_us: int, *, redrive: bool) -> Result:
        """The invocation is over before the function was there: for an error, or for the time."""
        status = "error"
        if error is None:
            error, status = payloads.timed_out(text, self._spec.timeout_s), "timeout"
        told = error.request_id is not None  # by the runtime itself, in its own words
        self._log.begin(text, redrive=redrive)
        failure = "" if told else error.message
        self._log.finish(duration_us, self._used_kb >> 10, failure=failure, status=status, kind=error.type)
        return Result(self._init_body or _payload(error), error, duration_us)

    def _announce(self, request_id: bytes, limit_s: int, *, initialising: bool = False) -> None:
        """Tell the node what runs from now on, and for how long at most; its memory is looked at here.

        What it needs to know is when to give this worker up, for the process is watched here: so batches that follow
        each other are told once a second, with as much more time, where the node has heard nothing else meanwhile.
        Telling each takes 50 us of a processor on either side.
        """
        now = time.monotonic()
        if not initialising and self._lease and now < self._told_until and self._channel.sent == self._told:
            return
        limit_ms = limit_s * 1000 if initialising else limit_s * 1000 + _TELL_MS
        self._channel.send(Running(self._generation, request_id, limit_ms, initialising, self._lease, 0))
        self._told, self._told_until = self._channel.sent, now + (0 if initialising else _TELL_MS / 1000)

    # ------------------------------------------------------------------ the process

    _init_body = b""
    """Of an initialisation that failed: the error's payload as the runtime sent it."""

    def _prepare(self, request_id: bytes, text: str) -> FunctionError | None:
        """Have a process; None: it is there, or it took too long to start."""
        if self._is_slow:
            return None
        self._announce(request_id, INIT_S, initialising=True)
        error = self._start(text, time.monotonic() + INIT_S, INIT_S)
        if error is None and self._server is None:
            self._is_slow = True
        return error

    def _start(self, text: str, deadline: float, limit_s: int) -> FunctionError | None:
        """Start a process, and wait until it asks for its first invocation.

        Returns:
            What it failed with. None without a server: time is up, and the process is gone.
        """
        self._used_kb, self._is_over, self._init_body = 0, False, b""
        begin = time.perf_counter_ns()
        self._log.init_start()
        try:
            server = self._spawn()
        except runtimes.Unsupported as error:
            return self._no_entry(text, begin, str(error))
        except OSError as error:
            return self._no_entry(text, begin, f"fork/exec {error.filename}: {(error.strerror or '').lower()}")
        self._server = server
        ready = server.wait_ready(deadline, self._over_memory)
        taken_us = _since(begin)
        answer, status = server.api.answer, server.status
        if ready and status is None and answer is None:
            self._over_memory()
            self._log.initialised(taken_us)
            return None
        server.drain()
        self._drop()
        if answer is not None:
            self._init_body = answer.body
            error_ = _told(answer, "")
        elif self._is_over:
            error_ = payloads.exited(text, signal.SIGKILL)
        elif status is None:
            self._log.init_failed(limit_s * 1_000_000, "timeout")
            return None
        elif os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV:
            # recorded: told as a timeout, whenever it happened; chosen: not waited for, and its cause in the log
            self._log.note(payloads.exited(text, status).message.partition("Error: ")[2])
            error_ = payloads.timed_out(text, self._spec.timeout_s)
        else:
            error_ = payloads.exited(text, status)
        self._log.init_failed(taken_us, "error", error_.type)
        return error_

    def _no_entry(self, text: str, begin: int, reason: str) -> FunctionError:
        error = FunctionError(type="Runtime.InvalidEntrypoint", message=f"RequestId: {text} Error: {reason}")
        self._log.init_failed(_since(begin), "error", error.type)
        return error

    def _spawn(self) -> Server:
        package, spec = self._package, self._spec
        program = runtimes.wrapped(runtimes.program(package), package, spec.environment.get(runtimes.WRAPPER, ""))
        if not self._noted:
            self._noted = True
            for note in filter(None, (program.note, runtimes.left_out(package))):
                self._log.note(note)
        self._temporary.mkdir(parents=True, exist_ok=True)
        if self._guard is None:
            self._guard = Guard(self._temporary)
        listener = Listener()
        try:
            process = Process(
                program.arguments,
                environment=runtime_variables(
                    package,
                    address=listener.address,
                    memory_mb=spec.memory_mb,
                    log_stream=self._log.stream,
                    region=self._region,
                    user=spec.environment,
                    inherited=os.environ,
                    temporary=os.fspath(self._temporary),
                ),
                folder=package.code,
                guard=self._guard,
                memory_mb=spec.memory_mb,
                frames=program.frames,
            )
        except OSError:
            listener.socket.close()
            raise
        self._process = process
        return Server(listener, process, self._log.output)

    def _drop(self) -> None:
        """The process is of no more use."""
        server, self._server, self._process = self._server, None, None
        if server is not None:
            server.close()

    def _over_memory(self) -> bool:
        """Look how much the process holds; whether that is more than the function may have."""
        if self._process is not None:
            held_kb, resident_kb = self._process.memory_kb()
            self._used_kb = max(self._used_kb, resident_kb)
            self._is_over = self._is_over or held_kb > self._spec.memory_mb << 10
        return self._is_over


def _since(begin: int) -> int:
    return (time.perf_counter_ns() - begin) // 1000


def _event_body(invocation: Invocation) -> bytes:
    """Lambda's event of a stream, out of its records' texts."""
    given = invocation.records
    records = given.joined() if isinstance(given, EventTexts) else ",".join(given).encode()
    window = invocation.window
    if window is None:
        return b'{"Records":[%b]}' % records
    rest = window_members(window, invocation.shard_id)
    return b'{"Records":[%b],%b' % (records, json.dumps(rest, separators=(",", ":")).encode()[1:])


def _value(body: bytes) -> Any:
    """What a response is as JSON; the text itself where it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        pass  # it may be what Python writes and JSON does not know: NaN
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def _payload(error: FunctionError) -> bytes:
    return json.dumps(payloads.payload(error), separators=(",", ":")).encode()


def _told(answer: Answer, request_id: str) -> FunctionError:
    """The error that a runtime told, whatever it sent."""
    said = _value(answer.body)
    if not isinstance(said, dict):
        kind = answer.error_type or "Unhandled"
        return FunctionError(type=kind, message=str(said)[:1024], trace=(), request_id=request_id)
    trace = said.get("stackTrace", said.get("trace"))
    return FunctionError(
        type=str(said.get("errorType") or answer.error_type or "Unhandled"),
        message=str(said.get("errorMessage", "")),
        trace=tuple(map(str, trace)) if isinstance(trace, list) else (),
        request_id=str(said.get("requestId") or request_id),
    )
