"""From a PATH to the source files that hold handlers, without running any of them.

A folder is searched by syntax tree: only files that use a decorator of kflow are taken, so nothing else in a project is
ever imported by looking for handlers.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kflow.errors import UsageError
from kflow.loading.places import shown

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "test", "tests"})


class Source(NamedTuple):
    """A file that is to be imported.

    Attributes:
        file: its absolute path.
        root: its import root: what `/var/task` is on Lambda.
        module: the name to import it under.
        named: whether the user named the file itself, rather than a folder it lies in.
    """

    file: str
    root: str
    module: str
    named: bool = False

    @property
    def folder(self) -> str:
        """The folder of the file; another one than the root where the file is part of a package."""
        return str(Path(self.file).parent)


def find_sources(path: str) -> list[Source]:
    """The files that PATH means: a file, a folder (searched), or a dotted module name.

    Raises:
        UsageError: there is no such thing, nothing in it uses a decorator of kflow, or a file does not parse.
    """
    place = Path(path).absolute()
    if place.is_file():
        if place.suffix != ".py":
            raise UsageError(f"{shown(str(place))} is no Python file: name a .py file, a folder or a module")
        return [source_of(place, named=True)]
    if place.is_dir():
        found = [source_of(file) for file in _python_files(place) if _uses_kflow(file)]
        if not found:
            raise UsageError(
                f"no handlers in {shown(str(place))}: no .py file there uses @on_stream or @on_queue "
                "(tests, hidden folders and virtual environments are not searched)"
            )
        return found
    if all(part.isidentifier() for part in path.split(".")):
        return _module_sources(path)
    raise UsageError(f"{path}: no such file or folder: name a .py file, a folder or a module such as package.module")


def source_of(file: Path, *, named: bool = False) -> Source:
    """How a file is imported: its folder is the import root, or, where that is a package, the folder of the package.

    Raises:
        UsageError: no module can have the file's name.
    """
    root, parts = file.parent, [] if file.name == "__init__.py" else [file.stem]
    while (root / "__init__.py").is_file() and root.parent != root:
        parts.insert(0, root.name)
        root = root.parent
    module = ".".join(parts)
    if "." in file.stem or not parts or parts[0] in _TAKEN:
        raise UsageError(
            f"{shown(str(file))}: a module cannot be imported under the name `{file.stem if not parts else parts[0]}`, "
            "it has another meaning in Python: rename it"
        )
    return Source(str(file), str(root), module, named)


_TAKEN = sys.stdlib_module_names | {"__main__", "kflow"}
"""Names that would hide, or be hidden by, what Python and kflow themselves import."""


def _module_sources(name: str) -> list[Source]:
    """A module or package by its dotted name, found as an import would from the working folder."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        spec = importlib.util.find_spec(name)  # imports the packages above it
    except Exception as error:
        if not isinstance(error, ModuleNotFoundError) or not f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"{name}: its package cannot be imported: {type(error).__name__}: {error}") from error
        spec = None
    finally:
        sys.path.remove(here)
    if spec is not None and spec.submodule_search_locations:
        return [source for folder in spec.submodule_search_locations for source in find_sources(folder)]
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise UsageError(
            f"{name}: there is no such file, folder or module below {here}: "
            "name a .py file, a folder or a module such as package.module"
        )
    file = Path(spec.origin).absolute()
    return [Source(str(file), str(file.parents[name.count(".")]), name, named=True)]


def _python_files(folder: Path) -> Iterator[Path]:
    for current, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED_FOLDERS
            and not Path(current, name, "pyvenv.cfg").exists()
        )
        for name in sorted(files):
            is_test = name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"
            if name.endswith(".py") and not name.startswith(".") and not is_test:
                yield Path(current, name)


def _uses_kflow(file: Path) -> bool:
    """Whether the syntax tree applies a decorator of kflow, such as `@on_stream(...)`, however it was imported."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{shown(str(file))} cannot be read: {error.strerror}") from error
    return b"kflow" in data and uses_decorator(parse(file, data))


def parse(file: Path, data: bytes) -> ast.Module:
    """The syntax tree of a file.

    Raises:
        UsageError: it is not Python; shows the line.
    """
    try:
        return ast.parse(data, str(file))
    except SyntaxError as error:
        line = f"{shown(str(file))}:{error.lineno or 1}"
        text = f"\n    {error.text.strip()}" if error.text else ""
        raise UsageError(f"{line}: SyntaxError: {error.msg}{text}") from error
    except ValueError as error:  # a null byte
        raise UsageError(f"{shown(str(file))} is not Python: {error}") from error


_DECORATORS = frozenset({"on_stream", "on_queue"})
"""What `from kflow import *` brings."""


def uses_decorator(tree: ast.Module) -> bool:
    """Whether anything in the tree uses a decorator of kflow (all are named `on_...`), called or not."""
    functions, modules = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_kflow(node.module or "") and not node.level:
            for name in node.names:
                if name.name.startswith("on_"):
                    functions.add(name.asname or name.name)
                elif name.name == "*":
                    functions |= _DECORATORS
                else:  # from kflow.triggers import stream
                    modules.add(name.asname or name.name)
        elif isinstance(node, ast.Import):
            modules.update(name.asname or "kflow" for name in node.names if _is_kflow(name.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in functions:
            return True
        if isinstance(node, ast.Attribute) and node.attr.startswith("on_"):
            base: ast.expr = node
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id in modules:
                return True
    return False


def _is_kflow(module: str) -> bool:
    return module == "kflow" or module.startswith("kflow.")


def preload_candidates(files: list[str]) -> list[str]:
    """The modules that the files import at their top level, as written, without their own neighbours.

    A zygote that has imported them makes a worker's start cheap. Nothing is imported here.
    """
    wanted: set[str] = set()
    neighbours: set[str] = {"kflow", "__future__"}
    for name in files:
        file = Path(name)
        source = source_of(file)
        for folder in (Path(source.root), file.parent):
            neighbours.update(entry.stem if entry.suffix == ".py" else entry.name for entry in folder.iterdir())
        for node in _top_level(parse(file, file.read_bytes()).body):
            if isinstance(node, ast.Import):
                wanted.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                wanted.add(node.module)
    return sorted(name for name in wanted if name.split(".")[0] not in neighbours)


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run at import: also those under `try` and `if`, but not under `if TYPE_CHECKING`."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and not _is_type_checking(node.test):
            yield from _top_level(node.body)
            yield from _top_level(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _top_level(node.body)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"
