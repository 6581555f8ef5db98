"""`kflow stop`: end the runtime that works on a data folder."""

from __future__ import annotations

from kflow.cli.arguments import Arguments, Command, Parser, settings_of
from kflow.cli.terminal import Terminal
from kflow.errors import UsageError


def stop(arguments: Arguments, terminal: Terminal) -> int:
    """Ask the runtime to stop, and wait until it is gone."""
    from kflow.runtime.tools import admin

    settings = settings_of(arguments)
    if not (settings.data_dir / "FORMAT").is_file():
        raise UsageError(f"{settings.data_dir} holds no kflow data, so nothing runs on it; --data-dir names another")
    pid = admin.stop(settings.data_dir, kill=arguments.kill, timeout_s=arguments.timeout)
    text = f"nothing runs on {settings.data_dir}" if pid is None else f"stopped process {pid}"
    terminal.answer(text, {"stopped": pid}, json=arguments.json)
    return 0


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("--kill", action="store_true", help="do not wait for running batches; they are delivered again")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="give up after S seconds (60), exit 1")


COMMAND = Command(
    name="stop",
    help="stop the runtime of a data folder; batches that run are finished first",
    run=stop,
    configure=configure,
    reads=True,
    examples=(
        ("kflow stop", "of the project here"),
        ("kflow stop --kill", "without waiting for handlers"),
    ),
)
