"""`kflow doctor`: what is wrong on this machine, with this project, in this data folder."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kflow import limits
from kflow.cli.arguments import Arguments, Command, Parser, settings_of
from kflow.cli.main import version
from kflow.cli.terminal import Terminal, count, size, span
from kflow.errors import KflowError
from kflow.settings import Settings

OK, WARNING, WRONG = "ok", "warning", "wrong"

_FEW_DESCRIPTORS = 1024
_CLOCK_STEP_MS = 60_000
_PROBE_SECONDS = 20.0
_DEPENDENCIES = ("msgspec", "crc32c", "pybase64", "pluggy", "boto3", "httptools", "h2")


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        state: `ok`, `warning` (it works, with something to know) or `wrong`.
        what: what was looked at.
        text: what was found, and the fix where there is one.
    """

    state: str
    what: str
    text: str


def doctor(arguments: Arguments, terminal: Terminal) -> int:
    """Look at everything; exit 1 where something is wrong, and with `--repair` where something is left."""
    if arguments.repair:
        from kflow.cli.repairing import repair

        return repair(arguments, terminal)
    findings: list[Finding] = []
    for finding in _look(arguments):
        findings.append(finding)
        if not arguments.json:
            colour = {OK: "green", WARNING: "yellow", WRONG: "red"}[finding.state]
            terminal.line(f"{terminal.paint(finding.state.ljust(7), colour)}  {finding.what.ljust(12)}  {finding.text}")
    if arguments.json:
        terminal.json([finding._asdict() for finding in findings])
    return 1 if any(finding.state == WRONG for finding in findings) else 0


def _look(arguments: Arguments) -> Iterator[Finding]:
    yield _system()
    yield _packages()
    yield _descriptors()
    try:
        settings = settings_of(arguments)
    except KflowError as error:
        yield Finding(WRONG, "settings", str(error))
        return
    where = str(settings.file) if settings.file else "no project file; defaults, variables and flags"
    yield Finding(OK, "settings", where)
    yield _plugins(settings)
    yield _endpoint(settings)
    if settings.services:
        yield _services(settings)
    yield from _data(settings)


def _system() -> Finding:
    text = f"kflow {version()}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    if sys.platform.startswith(("linux", "darwin")):
        return Finding(OK, "system", text)
    return Finding(WRONG, "system", f"{text}: kflow runs on Linux and macOS; on Windows use WSL 2")


def _packages() -> Finding:
    found, missing = [], []
    for name in _DEPENDENCIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(WRONG, "packages", f"missing: {', '.join(missing)}; install kflow-streams again")
    return Finding(OK, "packages", ", ".join(found))


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} open files, at most {'any number' if hard == resource.RLIM_INFINITY else hard}"
    if hard != resource.RLIM_INFINITY and hard < _FEW_DESCRIPTORS:
        return Finding(WARNING, "open files", f"{text}: `ulimit -n {_FEW_DESCRIPTORS}` gives room for many workers")
    return Finding(OK, "open files", text)


def _plugins(settings: Settings) -> Finding:
    from kflow.plugins.manager import PluginManager

    try:
        names = [each.name for each in PluginManager.load(settings.plugins, base=settings.project).names()]
    except KflowError as error:
        return Finding(WRONG, "plugins", str(error))
    return Finding(OK, "plugins", ", ".join(names) or "none")


def _endpoint(settings: Settings) -> Finding:
    from kflow.runtime.endpoint import ports
    from kflow.runtime.tools import admin

    url = ports.kept(settings.data_dir)
    if url is not None and admin.lock_holder(settings.data_dir) is not None:
        return Finding(OK, "endpoint", url)
    port = settings.port
    holder = ports.holder(port) if port else None
    if holder is None:
        return Finding(OK, "endpoint", f"port {port} is free" if port else "any port")
    who = f"port {port} is held by process {holder[0]} ({holder[1]})"
    if settings.given("port"):
        return Finding(WRONG, "endpoint", f"{who}: end it, or set another `port`")
    return Finding(OK, "endpoint", f"{who}: the next free one is taken")


def _services(settings: Settings) -> Finding:
    from kflow.runtime.endpoint.services import SERVICES
    from kflow.runtime.forwarding.checking import problems

    found = list(problems(settings.services, SERVICES))
    if found:
        return Finding(WARNING, "services", "; ".join(found))
    return Finding(OK, "services", ", ".join(f"{name} = {where}" for name, where in settings.services.items()))


def _data(settings: Settings) -> Iterator[Finding]:
    from kflow.broker.folder import DataFolder

    path = settings.data_dir
    if not (path / "FORMAT").is_file():
        parent = next((each for each in (path, *path.parents) if each.is_dir()), Path("/"))
        if not os.access(parent, os.W_OK):
            yield Finding(WRONG, "data folder", f"{path} does not exist, and {parent} is read-only for this user")
            return
        yield Finding(OK, "data folder", f"{path} does not exist yet; `kflow run` begins it")
        with tempfile.TemporaryDirectory(prefix=".kflow-doctor-", dir=parent) as scratch:
            yield _probed(Path(scratch))
        yield _space(parent)
        return
    try:
        folder = DataFolder.open(path)
    except KflowError as error:
        yield Finding(WRONG, "data folder", str(error))
        return
    yield Finding(OK, "data folder", f"{path}, fsync {folder.fsync}")
    yield _probed(path)
    yield _space(path)
    yield _runtime(path)
    yield from _damage(path)
    yield from _contents(path)


def _probed(path: Path) -> Finding:
    """Whether locks, mapped memory and renames work. A child finds out: where they do not, it may hang or die."""
    code = "import sys; from kflow.broker.folder import probe; probe(sys.argv[1])"
    try:
        child = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(WRONG, "file system", f"a lock or a rename in {path} hangs: use a local disk (data_dir)")
    if child.returncode != 0:
        last = child.stderr.strip().rsplit("\n", maxsplit=1)[-1] or f"exit status {child.returncode}"
        return Finding(WRONG, "file system", last.removeprefix("kflow.errors.StorageError: "))
    return Finding(OK, "file system", "locks exclude, mapped memory is shared, rename replaces")


def _space(path: Path) -> Finding:
    free = shutil.disk_usage(path).free
    if free < limits.FREE_BYTES:
        return Finding(WRONG, "disk", f"{size(free)} free: puts are refused below {size(limits.FREE_BYTES)}; free some")
    return Finding(WARNING if free < 16 * limits.FREE_BYTES else OK, "disk", f"{size(free)} free")


def _runtime(path: Path) -> Finding:
    from kflow.runtime.tools import admin

    pid = admin.lock_holder(path)
    if pid is None:
        return Finding(OK, "runtime", "none runs")
    try:
        status = admin.node_status(path)
    except KflowError as error:
        return Finding(WRONG, "runtime", f"process {pid} holds the folder: {error}")
    if status is None:
        return Finding(WARNING, "runtime", f"process {pid} holds the folder and does not answer (yet)")
    return Finding(OK, "runtime", f"process {pid}, since {span(status['uptime_s'] * 1000)}")


def _damage(path: Path) -> Iterator[Finding]:
    """Everything that carries a checksum, and what is listed as lost already."""
    from kflow.broker import inspection
    from kflow.broker.folder import DataFolder

    lost: Counter[tuple[str, int, str]] = Counter()
    latest: dict[tuple[str, int, str], int] = {}
    is_whole = has_maps = True
    try:
        folder = DataFolder.open(path)
        for fault in inspection.faults(folder):
            is_whole = False
            has_maps = has_maps and (fault.is_harmless or fault.kind is not inspection.Kind.MAP)
            fix = f"`kflow doctor --repair` would {fault.remedy}" if fault.remedy else "restore it from a copy of yours"
            text = f"{os.path.relpath(fault.path, path)}: {fault.text}; {fix}"
            yield Finding(WARNING if fault.is_harmless else WRONG, "damage", text)
        for stream, shard, entry in inspection.losses(folder) if has_maps else ():
            key = (stream.name, shard, entry.reason)
            lost[key] += entry.records
            latest[key] = max(entry.at_ms, latest.get(key, 0))
    except KflowError as error:
        yield Finding(WRONG, "damage", str(error))
        return
    if is_whole:
        yield Finding(OK, "damage", "none: every checksum is right")
    for (name, index, reason), records in lost.items():
        if records:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(latest[name, index, reason] / 1000))
            yield Finding(WARNING, "lost", f"{count(records, 'record')} of {name}/{index} by {reason}, found {moment}")


def _contents(path: Path) -> Iterator[Finding]:
    """Streams that can be read, arrivals that are ahead of the clock, consumers that are stuck."""
    from kflow.broker.folder import DataFolder
    from kflow.runtime.status import survey

    try:
        folder = DataFolder.open(path)
        streams = survey.streams(folder)
        consumers = survey.consumers(folder)
    except KflowError as error:
        yield Finding(WRONG, "streams", str(error))
        return
    yield Finding(OK, "streams", f"{count(len(streams), 'stream')}, {count(sum(s.records for s in streams), 'record')}")
    newest = max((shard.last_arrival_ms for each in streams for shard in each.shards), default=0)
    ahead = newest - time.time_ns() // 1_000_000
    if ahead > _CLOCK_STEP_MS:
        until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(newest / 1000))
        yield Finding(WARNING, "clock", f"it was set back: arrival times stand still until {until} ({span(ahead)})")
    for each in consumers:
        for lane in each.lanes:
            if lane.suspect:
                yield Finding(WARNING, "handlers", f"SUSPECT {each.function} {lane.shard_id}: see `kflow status`")
            elif lane.error_type:
                text = f"BLOCKED {each.function} {lane.shard_id}: {lane.error_type}; see `kflow status`"
                yield Finding(WARNING, "handlers", text)


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("--repair", action="store_true", help="repair damaged data; says what, and asks first")
    parser.add_argument("--yes", action="store_true", help="with --repair: do not ask")


COMMAND = Command(
    name="doctor",
    help="say what is wrong on this machine, in the project and in its data; exit 1 where something is",
    run=doctor,
    configure=configure,
    reads=True,
    examples=(
        ("kflow doctor", "everything"),
        ("kflow doctor --json", "for a report"),
        ("kflow doctor --repair", "put damaged data right; asks first"),
    ),
)
