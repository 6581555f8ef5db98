"""Where handlers, data and packaged examples are, as the command line understands it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kflow.cli.arguments import Arguments, settings_of
from kflow.errors import DataFolderBusy, UsageError
from kflow.settings import Settings

if TYPE_CHECKING:
    from kflow.broker.folder import DataFolder

_CONFIGURE_S = 0.5
"""Scripts that put hold the lock for moments, a runtime for its life."""


def handler_paths(settings: Settings, argument: str | None) -> tuple[str, ...]:
    """The PATHs that `run` and `check` mean: the argument, else those of the settings.

    Raises:
        UsageError: nothing is there.
    """
    if argument is not None:
        return (argument,)
    if not settings.given("handlers") and not any(Path(path).exists() for path in settings.handlers):
        raise UsageError(
            f"no handlers: there is no folder `functions` in {settings.project or Path.cwd()}; name a file, a folder "
            "or a module (`kflow run app.py`), or set `handlers` in [tool.kflow]"
        )
    return settings.handlers


def open_folder(arguments: Arguments, *, create: bool = False) -> DataFolder:
    """The data folder that this command line is about.

    Raises:
        UsageError: it does not exist yet, and the command makes none.
    """
    settings = settings_of(arguments)
    return folder_of(settings, create=create)


def folder_of(settings: Settings, *, create: bool = False) -> DataFolder:
    """The data folder of these settings; one that is made, or may be, gets their `fsync` where somebody set one.

    Beside a runtime it keeps what it has: the next `kflow run` takes the settings over.
    """
    from kflow.broker.folder import DataFolder

    if not create and not (settings.data_dir / "FORMAT").is_file():
        raise UsageError(
            f"{settings.data_dir} holds no kflow data; `kflow run` or `kflow streams create NAME` begins it, "
            "--data-dir names another folder"
        )
    folder = DataFolder.open(settings.data_dir, create=create)
    if create and settings.given("fsync"):
        with suppress(DataFolderBusy):
            folder.configure(fsync=settings.fsync, timeout_s=_CONFIGURE_S)
    return folder
