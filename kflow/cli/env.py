"""`kflow env`: lines for a shell that point SDKs and the AWS CLI at the endpoint, and away from AWS."""

from __future__ import annotations

import os
import shlex

from kflow.cli.arguments import Arguments, Command, settings_of
from kflow.cli.terminal import Terminal
from kflow.errors import UsageError
from kflow.settings import Settings


def env(arguments: Arguments, terminal: Terminal) -> int:
    """Write the lines; where nothing runs, those for the port that it would get."""
    from kflow.runtime import environment

    settings = settings_of(arguments)
    reach = environment.reach(settings, _url(settings, terminal))
    variables = environment.aws_variables(reach, data_dir=settings.data_dir, region=settings.region)
    variables |= environment.past_proxies(os.environ, reach.url)
    gone = [name for name in environment.REMOVED if name not in variables]
    gone += [name for name in environment.removed(os.environ) if name not in gone and name not in variables]
    if arguments.json:
        terminal.json({"set": variables, "unset": gone})
        return 0
    terminal.line(f"unset {' '.join(gone)}")
    for name, value in variables.items():
        terminal.line(f"export {name}={shlex.quote(value)}")
    return 0


def _url(settings: Settings, terminal: Terminal) -> str:
    from kflow.runtime.endpoint import ports
    from kflow.runtime.tools import admin

    running = admin.lock_holder(settings.data_dir) is not None and ports.kept(settings.data_dir)
    if running:
        return running
    if settings.port == 0:
        raise UsageError("nothing runs, and with port 0 nobody knows where it will: start `kflow serve` first")
    terminal.note(f"nothing runs on {settings.data_dir}: `kflow serve` or `kflow run` starts it")
    return ports.url(settings.bind, settings.port, tls=settings.tls)


COMMAND = Command(
    name="env",
    help="write export lines that point SDKs and the AWS CLI at the endpoint",
    run=env,
    reads=True,
    examples=(
        ('eval "$(kflow env)"', "this shell talks to the endpoint from now on"),
        ("kflow env --json", "for programs"),
    ),
)
