"""`kflow run`: run handlers until stopped, or until everything is settled."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from kflow.cli.arguments import Arguments, Command, Parser, add_endpoint_flags, add_setting_flags, settings_of
from kflow.cli.live import JsonLines, LiveLines
from kflow.cli.paths import handler_paths
from kflow.cli.progress import show_logs
from kflow.cli.terminal import Terminal
from kflow.errors import UsageError


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Start the runtime and stay until it ends."""
    from kflow.runtime import host

    if arguments.timeout is not None and not arguments.drain:
        raise UsageError("--timeout says how long --drain may take: give both, or neither")
    if arguments.timeout is not None and arguments.timeout <= 0:
        raise UsageError(f"--timeout must be a number of seconds above 0, not {arguments.timeout:g}")
    settings = settings_of(arguments)
    paths = handler_paths(settings, arguments.path)
    show_logs(terminal)
    # Lines are written from a thread; `kflow run | head` must end the runtime as Ctrl-C does, and not just fall silent.
    terminal.on_broken = lambda: os.kill(os.getpid(), signal.SIGTERM)
    listener = JsonLines(terminal) if arguments.json else LiveLines(terminal, Path.cwd())
    return host.run(settings, paths, drain=arguments.drain, timeout_s=arguments.timeout, listener=listener)


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("path", nargs="?", metavar="PATH", help="a file, a folder or package.module")
    parser.add_argument(
        "--drain", action="store_true", help="exit when all that is stored at the start is settled or parked"
    )
    parser.add_argument("--timeout", type=float, metavar="S", help="with --drain: give up after S seconds, exit 1")
    add_endpoint_flags(parser)
    add_setting_flags(
        parser, "fsync", "region", "account", "max_workers", "retry_backoff_scale", "worker_start", "plugins", "preload"
    )


COMMAND = Command(
    name="run",
    help="run the handlers of a file, folder or module; Ctrl-C stops, a second one kills",
    run=run,
    configure=configure,
    reads=True,
    examples=(
        ("kflow run", "the handlers that the settings name, else functions/"),
        ("kflow run functions/app.py", "one file"),
        ("kflow run --drain --timeout 60", "work off what is there, for CI"),
        ("kflow run --json | jq .event", "one JSON object a line"),
    ),
)
