"""Import a handler's module as Lambda does, its folder first on the path; say what fails in the user's own lines."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from kflow.declarations import Handler
from kflow.errors import KflowError, UsageError
from kflow.loading.find import Source
from kflow.loading.places import shown
from kflow.loading.tracebacks import user_lines


class HandlerNotFound(UsageError):
    """The module was imported, and the handler is not in it (any more)."""


def load_function(handler: Handler) -> Callable[..., Any]:
    """Import the handler's module and take the function from it. Called once in a worker, which serves one handler.

    The import root stays first on `sys.path`: the handler may import its neighbours later.

    Raises:
        HandlerNotFound: the module no longer has it.
        Exception: whatever the module raises while it is imported, unchanged.
    """
    source = Source(handler.file, handler.root, handler.module)
    _enter_root(source)
    module = _import(source)
    function: Any = getattr(module, handler.qualname, None)
    if not callable(function):
        raise HandlerNotFound(f"Handler '{handler.qualname}' missing on module '{handler.module}'")
    found: Callable[..., Any] = function
    return found


def import_source(source: Source) -> ModuleType:
    """Import a file for collecting; the import root is already entered.

    Raises:
        UsageError: the import fails; shows the user's own lines.
    """
    try:
        return _import(source)
    except KflowError:  # it says file, line and fix already
        raise
    except SystemExit as error:
        raise UsageError(_text(source, error, "a module must not end the process when it is imported")) from error
    except ModuleNotFoundError as error:
        raise UsageError(_text(source, error, _not_found(source, error))) from error
    except Exception as error:  # user code: whatever it raises is shown to its author
        raise UsageError(_text(source, error, "")) from error


@contextlib.contextmanager
def isolated(source: Source) -> Iterator[None]:
    """One import root at a time: inside, its modules are found first; afterwards they are forgotten, with the path.

    So two folders may both have an `app.py`, or a `models.py` beside it. Modules from elsewhere stay imported.
    """
    path = list(sys.path)
    before = dict(sys.modules)
    _enter_root(source)
    try:
        yield
    finally:
        sys.path[:] = path
        new = [name for name, module in sys.modules.items() if before.get(name) is not module]
        for name in [name for name in new if _lives_in(name, source)]:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if name not in sys.modules})


def _enter_root(source: Source) -> None:
    """Put the import root, and for a module in a package its folder, first on the path."""
    for folder in dict.fromkeys((source.folder, source.root)):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
    importlib.invalidate_caches()


def _import(source: Source) -> ModuleType:
    top = source.module.split(".")[0]
    known = sys.modules.get(source.module)
    is_other = known is not None and not _is_file(known, source.file)
    if top != "kflow" and (is_other or (top in sys.modules and not _lives_in(top, source))):
        # A library of the same name was imported before: on Lambda the function's own folder would have come first.
        for name in [name for name in sys.modules if name == top or name.startswith(top + ".")]:
            del sys.modules[name]
    module = importlib.import_module(source.module)
    if not _is_file(module, source.file):
        raise UsageError(
            f"{shown(source.file)} is hidden by {getattr(module, '__file__', None) or 'a built-in module'}, "
            f"which is imported under the same name, `{source.module}`: rename the file"
        )
    return module


def _is_file(module: ModuleType, file: str) -> bool:
    path = getattr(module, "__file__", None)
    return path is not None and (path == file or Path(path).resolve() == Path(file).resolve())


def _lives_in(name: str, source: Source) -> bool:
    """Whether a module was found directly in one of the source's folders, by its top-level package."""
    top = sys.modules.get(name.partition(".")[0])
    if top is None or top.__name__ == "kflow":
        return False
    places = [Path(entry).parent for entry in getattr(top, "__path__", ())]
    file = getattr(top, "__file__", None)
    if not places and file:
        places = [Path(file).parent]
    return any(str(place) in {source.root, source.folder} for place in places)


def _text(source: Source, error: BaseException, fix: str) -> str:
    lines = [f"{shown(source.file)} cannot be imported"]
    for frame in user_lines(error.__traceback__, source.root):
        lines.append(f"  {shown(frame.filename)}:{frame.lineno} in {frame.name}")
        if frame.line:
            lines.append(f"    {frame.line}")
    if isinstance(error, SyntaxError):
        lines.append(f"  {shown(error.filename or source.file)}:{error.lineno or 1}")
        if error.text:
            lines.append(f"    {error.text.strip()}")
        lines.append(f"{type(error).__name__}: {error.msg}")
    else:
        lines.extend(text.rstrip("\n") for text in traceback.format_exception_only(error))
    if fix:
        lines.append(fix)
    return "\n".join(lines)


def _not_found(source: Source, error: ModuleNotFoundError) -> str:
    name = (error.name or "").split(".")[0]
    if not name:
        return ""
    return (
        f"if {name} is a library, install it for {sys.executable}; "
        f"if it is yours, it must lie in {shown(source.root)} (the function's folder is its import root, as on Lambda)"
    )
