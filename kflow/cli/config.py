"""`kflow config show`: the settings, and where each comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kflow.cli.arguments import Arguments, Command, Group, settings_of
from kflow.cli.terminal import Terminal
from kflow.settings.model import HIDDEN


def show(arguments: Arguments, terminal: Terminal) -> int:
    """Write every setting with its value and origin."""
    settings = settings_of(arguments)
    if arguments.json:
        rows = {name: {"value": _plain(value), "origin": origin} for name, value, origin in settings.rows()}
        terminal.json({"file": str(settings.file) if settings.file else None, "settings": rows})
        return 0
    terminal.line(f"project file: {settings.file}" if settings.file else "no project file from here upward")
    terminal.table([("setting", "value", "origin"), *((n, _text(v), o) for n, v, o in settings.rows())])
    return 0


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = tuple(name if text == HIDDEN else f"{name} = {text}" for name, text in value.items())
    return ", ".join(value) or "none" if isinstance(value, tuple) else str(value)


COMMAND = Group(
    name="config",
    help="show the settings and where each comes from",
    commands=(
        Command(
            name="show",
            help="show every setting with its value and its origin",
            run=show,
            reads=True,
            examples=(
                ("kflow config show", "settings of the project here"),
                ("KFLOW_MAX_WORKERS=2 kflow config show", "variables count"),
                ("kflow config show --json", "for programs"),
            ),
        ),
    ),
)
