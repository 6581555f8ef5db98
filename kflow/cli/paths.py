"""Where handlers, data and packaged examples are, as the command line understands it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kflow.cli.arguments import Arguments, settings_of
from kflow.errors import UsageError
from kflow.settings import Settings

if TYPE_CHECKING:
    from kflow.broker.folder import DataFolder


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
    """The data folder of these settings, with their `fsync` where somebody set one."""
    from kflow.broker.folder import DataFolder

    if not create and not (settings.data_dir / "FORMAT").is_file():
        raise UsageError(
            f"{settings.data_dir} holds no kflow data; `kflow run` or `kflow streams create NAME` begins it, "
            "--data-dir names another folder"
        )
    fsync = settings.fsync if settings.given("fsync") else None
    return DataFolder.open(settings.data_dir, create=create, fsync=fsync)
