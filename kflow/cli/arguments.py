"""Commands as data, and the argument parser they share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from kflow.cli.terminal import Terminal
from kflow.errors import UsageError
from kflow.settings import SETTINGS, Settings, load, nearest

Arguments = argparse.Namespace


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are `UsageError`s that name the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise UsageError(f"{message}; see `{self.prog} --help`")

    def parse_all(self, argv: Sequence[str]) -> Arguments:
        """Parse everything; what is left over is an error."""
        arguments, rest = self.parse_known_intermixed_args(argv)  # options may stand between DATA
        if rest:
            unknown = rest[0].split("=", maxsplit=1)[0]
            known = [option for action in self._actions for option in action.option_strings]
            kind = "option" if unknown.startswith("-") else "argument"
            raise UsageError(f"unknown {kind} {unknown}{nearest(unknown, known)}; see `{self.prog} --help`")
        return arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        name: the last word of it.
        help: one sentence.
        run: does it; returns the exit code.
        examples: command lines for `--help`, each with what it does.
        configure: adds the command's own arguments.
        reads: whether it has `--json`.
        has_folder: whether it works on a data folder (`--data-dir`).
    """

    name: str
    help: str
    run: Callable[[Arguments, Terminal], int]
    examples: Sequence[tuple[str, str]]
    configure: Callable[[Parser], None] | None = None
    reads: bool = False
    has_folder: bool = True

    def parser(self, prog: str) -> Parser:
        """The parser of its arguments."""
        width = max(len(line) for line, _ in self.examples)
        lines = "\n".join(f"  {line.ljust(width)}  # {text}" for line, text in self.examples)
        parser = Parser(
            prog=prog,
            description=self.help,
            epilog=f"examples:\n{lines}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if self.configure is not None:
            self.configure(parser)
        if self.has_folder:
            parser.add_argument("--data-dir", metavar="DIR", help="the data folder, in place of the project's")
        if self.reads:
            parser.add_argument("--json", action="store_true", help="write JSON, for programs")
        return parser


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Commands under a common first word."""

    name: str
    help: str
    commands: Sequence[Command] = field(default_factory=tuple)


def add_setting_flags(parser: Parser, *names: str) -> None:
    """One flag per setting; its text is checked with all other settings."""
    for setting in SETTINGS:
        if setting.name in names:
            if setting.type is bool:
                parser.add_argument(
                    "--" + setting.name.replace("_", "-"),
                    dest=setting.name,
                    action=argparse.BooleanOptionalAction,
                    help=f"{setting.help.rstrip('.')}. Default {'yes' if setting.default else 'no'}.",
                )
                continue
            unit = f" ({setting.unit})" if setting.unit else ""
            choices = f" {' | '.join(setting.choices)}." if setting.choices else ""
            default = "" if setting.default in (None, ()) else f" Default {setting.default}."
            parser.add_argument(
                "--" + setting.name.replace("_", "-"),
                dest=setting.name,
                metavar=setting.unit.upper() or "VALUE",
                help=f"{setting.help.rstrip('.')}{unit}.{choices}{default}".replace("%", "%%"),
            )


def add_endpoint_flags(parser: Parser) -> None:
    """The flags of everything that opens the endpoint."""
    add_setting_flags(
        parser,
        "port",
        "bind",
        "tls",
        "tls_cert",
        "tls_key",
        "auth",
        "allow_reset",
        "enforce_limits",
        "transition_ms",
        "fault_seed",
    )
    parser.add_argument(
        "--fault",
        dest="faults",
        action="append",
        metavar="FAULT",
        help="a fault to inject, for example 'kinesis.PutRecords: 5%% ProvisionedThroughputExceeded'; may be repeated",
    )


def settings_of(arguments: Arguments, **overrides: Any) -> Settings:
    """The settings, with the flags of this command line on top."""
    given = {setting.name: getattr(arguments, setting.name, None) for setting in SETTINGS}
    return load(Path.cwd(), overrides={**given, **overrides})
