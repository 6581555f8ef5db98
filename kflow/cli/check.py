"""`kflow check`: load and validate everything, as `run` would, and run nothing."""

from __future__ import annotations

import os

import msgspec

from kflow.cli.arguments import Arguments, Command, Parser, settings_of
from kflow.cli.paths import handler_paths
from kflow.cli.terminal import Terminal, count


def check(arguments: Arguments, terminal: Terminal) -> int:
    """Load settings, plugins and handlers; list the handlers."""
    from kflow.plugins.manager import PluginManager
    from kflow.runtime import loader
    from kflow.runtime.mappings import queueinfo
    from kflow.runtime.starting import describe

    settings = settings_of(arguments)
    plugins = PluginManager.load(settings.plugins, base=settings.project).names()
    loaded = loader.load(*handler_paths(settings, arguments.path))
    if arguments.json:
        terminal.json(
            {
                "handlers": [msgspec.to_builtins(handler) for handler in loaded.handlers],
                "plugins": [plugin.name for plugin in plugins],
                "warnings": list(loaded.warnings),
            }
        )
        return 0
    rows = [("handler", "place", "form", "source", "options")]
    for handler in loaded.handlers:
        head = (handler.name, os.path.relpath(handler.place), handler.form.value)
        rows += [(*head, trigger.stream, describe(trigger)) for trigger in handler.triggers]
        rows += [(*head, trigger.queue, queueinfo.describe(trigger)) for trigger in handler.queues]
    terminal.table(rows)
    for warning in loaded.warnings:
        terminal.note(terminal.paint(f"warning: {warning}", "yellow"))
    terminal.line(f"ok: {count(len(loaded.handlers), 'handler')}, {count(len(plugins), 'plugin')}")
    return 0


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("path", nargs="?", metavar="PATH", help="a file, a folder or package.module")


COMMAND = Command(
    name="check",
    help="load and validate settings, plugins and handlers, and run nothing; for CI",
    run=check,
    configure=configure,
    reads=True,
    examples=(
        ("kflow check", "what `kflow run` would run"),
        ("kflow check functions/app.py", "one file"),
    ),
)
