"""`kflow check`: load and validate everything, as `run` would, and run nothing."""

from __future__ import annotations

import msgspec

from kflow.cli.arguments import Arguments, Command, Parser, settings_of
from kflow.cli.paths import handlers_path
from kflow.cli.terminal import Terminal, count
from kflow.declarations import Handler, MappingOptions


def check(arguments: Arguments, terminal: Terminal) -> int:
    """Load settings, plugins and handlers; list the handlers."""
    from kflow.plugins.manager import PluginManager
    from kflow.runtime import loader

    settings = settings_of(arguments)
    plugins = PluginManager.load(settings.plugins, base=settings.project).names()
    loaded = loader.load(handlers_path(settings, arguments.path))
    if arguments.json:
        terminal.json(
            {
                "handlers": [msgspec.to_builtins(handler) for handler in loaded.handlers],
                "plugins": [plugin.name for plugin in plugins],
                "warnings": list(loaded.warnings),
            }
        )
        return 0
    rows = [("handler", "place", "form", "stream", "options")]
    rows += [
        (handler.name, handler.place, handler.form.value, trigger.stream, options_text(trigger.options))
        for handler in loaded.handlers
        for trigger in handler.triggers
    ]
    terminal.table(rows)
    for warning in loaded.warnings:
        terminal.note(terminal.paint(f"warning: {warning}", "yellow"))
    terminal.line(f"ok: {count(len(loaded.handlers), 'handler')}, {count(len(plugins), 'plugin')}")
    return 0


def options_text(options: MappingOptions) -> str:
    """The options that differ from AWS's defaults, by name."""
    default = MappingOptions()
    named = [
        f"{name}={value}"
        for name in options.__struct_fields__
        if (value := getattr(options, name)) != getattr(default, name)
    ]
    return " ".join(named)


def _functions(handlers: tuple[Handler, ...]) -> list[str]:
    return [handler.name for handler in handlers]


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
