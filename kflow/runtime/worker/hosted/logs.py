"""The log of a function in a runtime process: what it writes, between the lines that Lambda itself writes.

As text, or, where the function's `LoggingConfig` says `JSON`, with Lambda's own lines as JSON objects, those of the
level that it asks for. What the function logs is its runtime's business; what it prints as JSON is filtered here.

Source: recorded: INIT_START, START, END and REPORT; documented: Lambda Developer Guide, telemetry-schema-reference, and
monitoring-cloudwatchlogs-log-level, system log level event mapping; chosen: where `Status` and `Error Type` stand, the
version that INIT_START names, and that `platform.fault` is always there.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any, Final

from kflow.broker.functionlogs import stream_name
from kflow.declarations import Package
from kflow.runtime.messages import WorkerSpec
from kflow.runtime.worker.hosted.frames import Piece
from kflow.runtime.worker.hosted.levels import LevelFilter
from kflow.runtime.worker.output import FunctionLog, report

_LOOK_S: Final = 0.2
_DEBUG, _INFO, _WARN = range(3)
_LEVELS: Final = {"DEBUG": _DEBUG, "INFO": _INFO, "WARN": _WARN, "": _INFO}


class HostedLog(FunctionLog):
    """The worker's side of it."""

    def __init__(self, spec: WorkerSpec, package: Package, data_dir: Path) -> None:
        group = package.log_group
        super().__init__(
            data_dir,
            spec.handler.name,
            spec.memory_mb,
            version=package.version,
            stream=stream_name(package.version, function=package.function if group else ""),
            group=group,
        )
        self._package = package
        self._least = _LEVELS[package.system_log_level]
        self._region = package.region or spec.region
        self._is_json = package.log_format == "JSON"
        self._levels = LevelFilter(package.log_level) if self._is_json and package.log_level else None
        self.take_over()

    def output(self, piece: Piece) -> None:
        """Something that the process wrote."""
        if piece.is_event:
            self.event(piece.data)
        elif self._levels is None:
            self.write(self._fd, piece.data)
        elif data := self._levels.passed(piece.data):
            self.write(self._fd, data)

    def _flush(self) -> None:
        """What is held of what was printed: nothing more comes for now."""
        if self._levels is not None and (rest := self._levels.end()):
            self.write(self._fd, rest)

    def note(self, text: str) -> None:
        """Tell the function's author something."""
        self.event(f"[WARNING] {text}\n".encode())

    # ------------------------------------------------------------------ the platform's lines

    def init_start(self) -> None:
        """A process is about to be started."""
        runtime = self._package.runtime
        family = runtime.rstrip("0123456789.x") if not runtime.startswith("provided") else "provided"
        version = f"{family.rstrip('.')}:{runtime[len(family) :].strip('.') or '1'}.v1"
        digest = hashlib.sha256(runtime.encode()).hexdigest()
        arn = f"arn:aws:lambda:{self._region}::runtime:{digest}"
        if self._is_json:
            record = {
                "initializationType": "on-demand",
                "phase": "init",
                "runtimeVersion": version,
                "runtimeVersionArn": arn,
                "functionName": self._package.function,
                "functionVersion": self._package.version,
            }
            self._platform("platform.initStart", record, _INFO)
        else:
            self.event(f"INIT_START Runtime Version: {version}\tRuntime Version ARN: {arn}\n".encode())

    def initialised(self, duration_us: int) -> None:
        """The process is there, and took this long."""
        super().initialised(duration_us)
        self._flush()
        if self._is_json:
            self._init_done(duration_us, "success", "")

    def init_failed(self, duration_us: int, status: str, error_type: str = "") -> None:
        """The initialisation has failed (`error`) or took too long (`timeout`)."""
        duration = duration_us / 1000
        self._flush()
        if self._is_json:
            self._init_done(duration_us, status, error_type)
            return
        kind = f"\tError Type: {error_type}" if error_type else ""
        self.event(f"INIT_REPORT Init Duration: {duration:.2f} ms\tPhase: init\tStatus: {status}{kind}\n".encode())

    def _init_done(self, duration_us: int, status: str, error_type: str) -> None:
        record: dict[str, Any] = {"initializationType": "on-demand", "phase": "init", "status": status}
        if error_type:
            record["errorType"] = error_type
        level = _DEBUG if status == "success" else _WARN
        self._platform("platform.initRuntimeDone", record, level)
        self._platform("platform.initReport", record | {"metrics": {"durationMs": round(duration_us / 1000, 3)}}, level)

    def begin(self, request_id: str, *, redrive: bool) -> None:
        """An invocation begins."""
        if not self._is_json:
            self.start(request_id, redrive=redrive)
            return
        now = time.monotonic()
        if now >= self._look_due:
            self._look_due = now + _LOOK_S
            self._move_on()
        self.request_id = request_id
        record: dict[str, Any] = {"requestId": request_id, "version": self._package.version}
        if redrive:
            record["redrive"] = True
        self._platform("platform.start", record, _INFO)

    def finish(
        self,
        duration_us: int,
        used_mb: int,
        *,
        produced: int = 0,
        failure: str = "",
        status: str = "",
        kind: str = "",
    ) -> None:
        """An invocation has ended.

        Args:
            duration_us: how long it took.
            used_mb: the most memory that its process had.
            produced: bytes of the response.
            failure: what the platform has to say of it, where it did not end as the runtime wanted.
            status: `timeout` or `error` in that case.
            kind: the error's type.
        """
        self._flush()
        request_id, init_us = self.request_id, self._init_us
        self._init_us = 0
        self.request_id = ""
        if failure:
            self._failure(request_id, failure, status, kind)
        if self._is_json:
            level = _INFO if not status else _WARN
            done: dict[str, Any] = {"requestId": request_id, "status": status or "success"}
            if kind:
                done["errorType"] = kind
            done["metrics"] = {"durationMs": round(duration_us / 1000, 3), "producedBytes": produced}
            self._platform("platform.runtimeDone", done, _WARN if status else _DEBUG)
            metrics: dict[str, Any] = {
                "durationMs": round(duration_us / 1000, 3),
                "billedDurationMs": -(-duration_us // 1000),
                "memorySizeMB": self._memory_mb,
                "maxMemoryUsedMB": used_mb,
            }
            if init_us:
                metrics["initDurationMs"] = round(init_us / 1000, 3)
            record: dict[str, Any] = {"requestId": request_id, "metrics": metrics, "status": status or "success"}
            if kind:
                record["errorType"] = kind
            self._platform("platform.report", record, level)
            return
        said = f"{status}\tError Type: {kind}" if status == "error" and kind else status
        self.write(self._fd, report(request_id, duration_us, self._memory_mb, used_mb, init_us, said).encode())

    def _failure(self, request_id: str, failure: str, status: str, kind: str) -> None:
        """What Lambda says by itself: as it has always said it, with the time where it is a timeout."""
        if self._is_json:
            line = {"time": _now(), "type": "platform.fault", "record": {"requestId": request_id, "message": failure}}
            self.event(_json(line))
        elif status == "timeout":
            self.event(f"{_now()} {request_id} {failure.partition('Error: ')[2]}\n\n".encode())
        else:
            self.event(f"{failure}\n{kind}\n".encode() if kind else f"{failure}\n".encode())

    def _platform(self, kind: str, record: dict[str, Any], level: int) -> None:
        if level >= self._least:
            self.event(_json({"time": _now(), "type": kind, "record": record}))


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _now() -> str:
    now_ms = time.time_ns() // 1_000_000
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now_ms // 1000))}.{now_ms % 1000:03d}Z"
