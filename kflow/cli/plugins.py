"""`kflow plugins`: what is loaded, from where, and which hooks it has."""

from __future__ import annotations

from kflow.cli.arguments import Arguments, Command, settings_of
from kflow.cli.terminal import Terminal


def show(arguments: Arguments, terminal: Terminal) -> int:
    """Load the plugins and list them."""
    from kflow.plugins.manager import PluginManager

    settings = settings_of(arguments)
    loaded = PluginManager.load(settings.plugins, base=settings.project).names()
    if arguments.json:
        terminal.json([{"name": each.name, "origin": each.origin, "hooks": list(each.hooks)} for each in loaded])
    elif loaded:
        terminal.table([("plugin", "origin", "hooks"), *((p.name, p.origin, ", ".join(p.hooks)) for p in loaded)])
    else:
        terminal.line('no plugins: install one, or name one in the settings: plugins = ["path/to/plugin.py"]')
    return 0


COMMAND = Command(
    name="plugins",
    help="show the plugins that are loaded: where each came from, and its hooks",
    run=show,
    reads=True,
    has_folder=False,
    examples=(
        ("kflow plugins", "of the project here and of this environment"),
        ("KFLOW_PLUGINS=metrics.py kflow plugins", "with one more, by path"),
    ),
)
