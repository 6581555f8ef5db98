"""All settings as one value: plain data, checked, that crosses processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kflow.settings.table import SETTINGS, TABLES

HIDDEN = "(secret)"
"""Shown in place of what is kept from output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """`[tool.kflow.streams.NAME]`: how a stream is created where a handler names it and nobody made it."""

    shards: int = 1
    mode: str = "PROVISIONED"
    retention_hours: int = 24
    max_record_size_in_kib: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSettings:
    """`[tool.kflow.functions.NAME]`; None leaves the choice to AWS's default."""

    timeout: int | None = None
    memory_size: int | None = None
    environment: Mapping[str, str] | None = None
    reserved_concurrent_executions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked. Plain data: it crosses processes.

    Attributes:
        project: folder of the project's file; None where there is no project.
        file: the project's file; None where there is none.
        data_dir: absolute.
        fsync: pass it to the data folder only where `given("fsync")`, else what is stored with the data counts.
        plugins: module names, or absolute paths.
        handlers: module names, or absolute paths.
        port: of the endpoint; another may be taken in its place unless `given("port")`.
        tls_cert: absolute; None: a certificate of our own making.
        access_keys: secret by access key id; they are shown nowhere.
        services: where calls of other services go, by service, as `kflow.settings.services` reads them.
        streams: by logical name.
        functions: by function name.
        origins: where each value that is no default came from, by dotted name.
    """

    project: Path | None
    file: Path | None
    data_dir: Path
    fsync: str = "interval"
    region: str = "us-east-1"
    account: str = "123456789012"
    max_workers: int = 8
    retry_backoff_scale: float = 1.0
    plugins: tuple[str, ...] = ()
    worker_start: str = "auto"
    preload: tuple[str, ...] = ()
    handlers: tuple[str, ...] = ()
    port: int = 4566
    bind: str = "127.0.0.1"
    tls: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    auth: str = "none"
    access_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: str = "local"
    allow_reset: bool = False
    enforce_limits: bool = False
    transition_ms: int = 500
    faults: tuple[str, ...] = ()
    fault_seed: int = 0
    http_idle_seconds: int = 75
    http_connections: int = 0
    services: Mapping[str, str] = field(default_factory=dict)
    streams: Mapping[str, StreamSettings] = field(default_factory=dict)
    functions: Mapping[str, FunctionSettings] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def given(self, name: str) -> bool:
        """Whether somebody set this value."""
        return name in self.origins

    @property
    def has_home(self) -> bool:
        """Whether the data folder is somebody's choice: named, or a project's. Producers create none otherwise."""
        return self.project is not None or self.given("data_dir")

    def stream(self, name: str) -> StreamSettings:
        """Settings of a stream; the defaults where it has none."""
        return self.streams.get(name, StreamSettings())

    def function(self, name: str) -> FunctionSettings:
        """Settings of a function; all None where it has none."""
        return self.functions.get(name, FunctionSettings())

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Each setting as (dotted name, value, origin), for people."""
        for setting in SETTINGS:
            value = getattr(self, setting.name)
            if setting.is_secret:
                value = dict.fromkeys(value, HIDDEN)
            yield setting.name, value, self.origins.get(setting.name, "default")
        for table, entries in (("streams", self.streams), ("functions", self.functions)):
            for entry, values in entries.items():
                for row in TABLES[table]:
                    dotted = f"{table}.{entry}.{row.name}"
                    if dotted in self.origins:
                        yield dotted, getattr(values, row.name), self.origins[dotted]
