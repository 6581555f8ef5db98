"""The command line as a whole: finding a command, help, errors and exit codes."""

from __future__ import annotations

import io

import pytest

from kflow.cli.arguments import Command, Group
from kflow.cli.main import TABLE, command, exit_code, main, version
from kflow.cli.terminal import Terminal
from kflow.errors import (
    Damaged,
    DataFolderBusy,
    HandlerError,
    KflowError,
    LimitExceeded,
    PutFailed,
    ResourceInUse,
    ResourceNotFound,
    StorageError,
    StorageFull,
    UsageError,
    ValidationFailed,
)


def run(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main(argv, terminal=Terminal(out, err, stdin=io.StringIO(), environ={}))
    return code, out.getvalue(), err.getvalue()


def test_the_version_is_the_distributions() -> None:
    assert run("--version") == (0, f"kflow {version()}\n", "")


def test_no_command_shows_the_commands_and_is_a_usage_error() -> None:
    code, out, _ = run()
    assert code == 2
    assert out.startswith("usage: kflow COMMAND [...]\n")
    for name, help_ in TABLE:
        assert f"  {name}" in out
        assert help_ in out


def test_an_unknown_command_names_the_nearest() -> None:
    assert run("strems") == (2, "", "error: unknown command `strems`; did you mean `streams`?; see `kflow --help`\n")


def test_an_unknown_action_names_the_nearest() -> None:
    assert run("streams", "lst") == (
        2,
        "",
        (
            "error: unknown action `kflow streams lst`; did you mean `list`?; "
            "one of list, create, describe, split, merge, scale, delete\n"
        ),
    )


def test_an_unknown_option_names_the_nearest() -> None:
    assert run("config", "show", "--jsno") == (
        2,
        "",
        "error: unknown option --jsno; did you mean `--json`?; see `kflow config show --help`\n",
    )


def test_a_missing_argument_says_where_help_is() -> None:
    assert run("tail") == (
        2,
        "",
        "error: the following arguments are required: STREAM; see `kflow tail --help`\n",
    )


def all_commands() -> list[tuple[str, Command]]:
    found = []
    for name, _ in TABLE:
        each = command(name)
        if isinstance(each, Group):
            found += [(f"{name} {action.name}", action) for action in each.commands]
        else:
            found.append((name, each))
    return found


@pytest.mark.parametrize(("words", "found"), all_commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_has_help_with_examples(words: str, found: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: kflow {words}")
    assert "examples:\n" in text
    for line, _ in found.examples:
        assert f"kflow {words.split(maxsplit=1)[0]}" in line
        assert line in text


def test_a_group_shows_its_actions() -> None:
    code, out, _ = run("parked", "--help")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[4:8]] == ["list", "show", "redrive", "drop"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (ResourceNotFound("x"), 2),
        (ResourceInUse("x"), 2),
        (ValidationFailed("x"), 2),
        (StorageError("of another layout"), 2),
        (LimitExceeded("x"), 1),
        (StorageFull("x"), 1),
        (DataFolderBusy("x"), 1),
        (Damaged("x"), 1),
        (PutFailed("x"), 1),
        (HandlerError("x"), 1),
        (KflowError("x"), 1),
    ],
)
def test_exit_code_of_an_error(error: KflowError, code: int) -> None:
    assert exit_code(error) == code
