"""`kflow doctor --repair`: say what is damaged and what would be done about it, ask, and do it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from kflow.cli.arguments import Arguments, settings_of
from kflow.cli.paths import open_folder
from kflow.cli.terminal import Terminal, count
from kflow.errors import Damaged, DataFolderBusy, StorageError

if TYPE_CHECKING:
    from kflow.broker.folder import DataFolder
    from kflow.broker.inspection import Fault

_ROUNDS: Final = 5
"""A stream can be looked through only once its map is there, a shard once its page is: a few rounds show everything."""


def repair(arguments: Arguments, terminal: Terminal) -> int:
    """Repair the data folder.

    Returns:
        0 where nothing is damaged any more, 1 where something is left.

    Raises:
        DataFolderBusy: a runtime or a producer is at work.
        UsageError: there is nobody to ask.
    """
    from kflow.broker import inspection

    try:
        folder = open_folder(arguments)
    except Damaged as error:  # its FORMAT: without that, nothing can be looked at
        if not _restore_format(arguments, terminal, error):
            return 1
        folder = open_folder(arguments)
    done: list[dict[str, Any]] = []
    left: list[Fault] = []
    for number in range(_ROUNDS + 1):
        failed = {(each["path"], each["what"]) for each in done if each["failed"]}
        left = list(inspection.faults(folder))
        due = [fault for fault in left if fault.remedy and (fault.path, fault.text) not in failed]
        if not arguments.json:
            _show(folder, left if not done else due, terminal)
        if not due or number == _ROUNDS:
            break
        if not terminal.confirm(f"Repair {count(len(due), 'fault')} in {folder.path}?", yes=arguments.yes):
            terminal.line("nothing was changed" if not done else "the rest was not changed")
            return 1
        for each in _repaired(folder, due):
            done.append(each)
            if not arguments.json:
                colour = "red" if each["failed"] else "green"
                what = "failed" if each["failed"] else "repaired"
                terminal.line(f"{terminal.paint(what, colour)}  {_short(folder, each['path'])}: {each['done']}")
    if not left:
        _recover(folder)
    if arguments.json:
        rest = [{"path": each.path, "what": each.text, "remedy": each.remedy} for each in left]
        terminal.json({"repaired": done, "left": rest})
    elif not left:
        terminal.line(f"nothing is damaged in {folder.path}" if not done else "nothing is damaged any more")
    return 1 if left else 0


def _restore_format(arguments: Arguments, terminal: Terminal, error: Damaged) -> bool:
    """Put the copy of FORMAT in its place, if somebody agrees; whether it was."""
    from kflow.broker import layout
    from kflow.broker.files import FILES
    from kflow.broker.locks import FileLock

    path = settings_of(arguments).data_dir
    if not arguments.json:
        terminal.line(f"{terminal.paint('damaged', 'red')}  {error}")
    if not terminal.confirm(f"Restore {path / layout.FILE_NAME} from its copy?", yes=arguments.yes):
        terminal.line("nothing was changed")
        return False
    lock = FileLock(path / "writer.lock", FILES)
    try:
        lock.acquire(0.5)
    except DataFolderBusy as busy:
        raise _busy(busy) from busy
    try:
        is_whole = layout.restore(path, FILES)
    finally:
        lock.release()
    if not is_whole:
        text = f"the copy of {path / layout.FILE_NAME} is damaged too: restore it from a copy of yours"
        raise Damaged(text) from error
    if not arguments.json:
        terminal.line(f"{terminal.paint('repaired', 'green')}  {layout.FILE_NAME}: restored from its copy")
    return True


def _show(folder: DataFolder, faults: list[Fault], terminal: Terminal) -> None:
    for fault in sorted(faults):
        state = terminal.paint("damaged", "yellow" if fault.is_harmless else "red")
        terminal.line(f"{state}  {_short(folder, fault.path)}: {fault.text}")
        terminal.line(f"         will {fault.remedy}" if fault.remedy else "         restore it from a copy of yours")


def _repaired(folder: DataFolder, faults: list[Fault]) -> list[dict[str, Any]]:
    from kflow.broker.repair import repair as repair_one
    from kflow.broker.writing import writing

    answers = []
    try:
        with writing(folder, 0.5) as log:
            for fault in sorted(faults):
                answer: dict[str, Any] = {"path": fault.path, "what": fault.text, "failed": False}
                try:
                    answer["done"] = repair_one(log, fault)
                except StorageError as error:
                    answer.update(failed=True, done=str(error))
                answers.append(answer)
    except DataFolderBusy as error:
        raise _busy(error) from error
    return answers


def _recover(folder: DataFolder) -> None:
    """What a start would do: recover what is due, write copies and the catalogue anew."""
    from kflow.broker.writing import writing

    try:
        with writing(folder, 0.5) as log:
            log.recover_all()
    except DataFolderBusy as error:
        raise _busy(error) from error


def _busy(error: DataFolderBusy) -> DataFolderBusy:
    return DataFolderBusy(
        f"{error}; `kflow stop` first, for repair needs the folder to itself (a runtime lists damaged records that its "
        "handlers meet as lost by itself, and goes on)"
    )


def _short(folder: DataFolder, path: str) -> str:
    return os.path.relpath(path, folder.path)
