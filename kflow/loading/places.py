"""Where something stands in the user's source: `file:line`, as messages show it."""

from __future__ import annotations

import functools
import inspect
import linecache
import os.path
import re
import sys
from collections.abc import Callable
from types import CodeType, FrameType, MethodType
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A line of a file; as text the path is relative to the working folder where it lies below it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{shown(self.file)}:{self.line}"


def shown(path: str) -> str:
    """`path` as people want to read it: relative to the working folder if it lies below it, else absolute."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # the working folder is gone, or (elsewhere than on POSIX) another drive
        return path
    return path if relative.startswith(os.pardir) else relative


def _absolute(path: str) -> str:
    # Not pathlib, here alone: this module is part of `import kflow`, and pathlib is as heavy as all of the rest.
    return os.path.abspath(path)  # noqa: PTH100


def caller(depth: int) -> tuple[Place, FrameType]:
    """The line that called, and its frame: 1 is the function that asks, 2 its caller, and so on."""
    frame = sys._getframe(depth)  # noqa: SLF001  (documented, and the only way that costs no stack walk)
    return Place(_absolute(frame.f_code.co_filename), frame.f_lineno), frame


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The innermost function under wrappers (`functools.wraps`), partials and bound methods."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
            continue
        inner: Callable[..., Any] = inspect.unwrap(function)
        if inner is not function:
            function = inner
            continue
        if isinstance(function, MethodType):
            function = function.__func__
            continue
        return function


def call_method(function: Callable[..., Any]) -> Any:
    """What the class of `function` runs when it is called: of a plain function, a wrapper of C code."""
    return getattr(type(function), "__call__")  # noqa: B004, B009  (not a test: the method itself is wanted)


def code_of(function: Callable[..., Any]) -> CodeType | None:
    """The code object of the innermost function; of an object that can be called, its class's `__call__`."""
    inner = plain(function)
    code = getattr(inner, "__code__", None) or getattr(call_method(inner), "__code__", None)
    return code if isinstance(code, CodeType) else None


def name_of(function: Callable[..., Any]) -> str:
    """The Python name of the innermost function; of an object that can be called, its class's name."""
    inner = plain(function)
    return str(getattr(inner, "__name__", type(inner).__name__))


def function_place(function: Callable[..., Any]) -> Place:
    """The line of the function's `def`.

    `co_firstlineno` names the first decorator's line; people, and the first line of the tour, look for the `def`.
    """
    code = code_of(function)
    if code is None:
        return Place("?", 0)
    wanted = re.compile(rf"\s*(async\s+)?def\s+{re.escape(code.co_name)}\b")
    for line in range(code.co_firstlineno, code.co_firstlineno + 100):
        text = linecache.getline(code.co_filename, line)
        if not text:
            break
        if wanted.match(text):
            return Place(_absolute(code.co_filename), line)
    return Place(_absolute(code.co_filename), code.co_firstlineno)
