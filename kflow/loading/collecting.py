"""What decorators left behind in a module, as `Handler`s."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from kflow.declarations import Declared, Handler, QueueTrigger, StreamTrigger, declared
from kflow.errors import UsageError
from kflow.loading.marks import FUNCTION_NAME, check_form, check_marks
from kflow.loading.places import function_place, name_of
from kflow.loading.signature import read_signature


def collect(module: ModuleType, *, root: str | None = None, imported: bool = False) -> list[Handler]:
    """The handlers of a module, in the order of their lines.

    Args:
        module: an executed module.
        root: its import root; None is the folder of its file.
        imported: whether handlers that the module imported from another one count as its own.

    Raises:
        UsageError: a signature fits no form, or names a type that does not exist at run time.
    """
    return [handler for handler, _ in collect_functions(module, root=root, imported=imported)]


def collect_functions(
    module: ModuleType, *, root: str | None = None, imported: bool = False
) -> list[tuple[Handler, Callable[..., Any]]]:
    """As `collect`, each with its function."""
    file = str(Path(module.__file__ or "?").absolute())
    root = root or str(Path(file).parent)
    found: dict[int, tuple[str, Callable[..., Any], tuple[Declared, ...]]] = {}
    for attribute, value in vars(module).items():
        marks = declared(value) if callable(value) and not isinstance(value, type) else ()
        if not marks or (_is_foreign(module, value) and not imported):
            continue
        # A decorator above ours copies the marks into its wrapper, and an alias is the same function: one handler,
        # under its own name if it has that.
        known = found.get(id(marks))
        if known is None or attribute == name_of(value):
            found[id(marks)] = (attribute, value, marks)
    pairs = [
        (_handler(attribute, function, marks, file, root, module.__name__), function)
        for attribute, function, marks in found.values()
    ]
    return sorted(pairs, key=lambda pair: (pair[0].line, pair[0].qualname))


def _handler(
    attribute: str, function: Callable[..., Any], marks: tuple[Declared, ...], file: str, root: str, module: str
) -> Handler:
    signature = read_signature(function)
    place = function_place(function)
    options = check_marks(marks, name_of(function))
    check_form(function, signature.form, [mark.trigger for mark in marks])
    name = options.function_name or name_of(function)
    if not FUNCTION_NAME.fullmatch(name):
        raise UsageError(
            f"{place}: {name} cannot be a function's name on Lambda (1 to 64 of the letters a-z and A-Z, digits, - and "
            '_): give it another one with function_name="..."'
        )
    return Handler(
        name=name,
        file=file,
        line=next((line for at, line in (place, (marks[0].trigger.file, marks[0].trigger.line)) if at == file), 1),
        root=root,
        module=module,
        qualname=attribute,
        form=signature.form,
        typed=signature.value_type is not msgspec.UNSET,
        is_async=signature.is_async,
        triggers=tuple(mark.trigger for mark in marks if isinstance(mark.trigger, StreamTrigger)),
        queues=tuple(mark.trigger for mark in marks if isinstance(mark.trigger, QueueTrigger)),
        options=options,
    )


def _is_foreign(module: ModuleType, function: Any) -> bool:
    """Whether the function is another module's handler that this one only imported.

    A function made elsewhere by a factory, and found in no other module's names, is this one's.
    """
    origin = getattr(function, "__module__", None)
    if origin is None or origin == module.__name__:
        return False
    other = sys.modules.get(origin)
    return other is not None and any(value is function for value in vars(other).values())
