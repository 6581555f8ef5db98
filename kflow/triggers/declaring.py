"""What all decorators do with the function that they stand on: read its signature, check it, attach the declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kflow import limits
from kflow.declarations import ATTRIBUTE, Declared, FunctionOptions, declared
from kflow.errors import UsageError
from kflow.lambda_.binding import typed
from kflow.loading.marks import check_form, check_marks
from kflow.loading.places import Place, name_of
from kflow.loading.signature import Signature, read_signature
from kflow.triggers import options


def function_options(
    place: Place,
    *,
    function_name: object,
    timeout: object,
    memory_size: object,
    environment: object,
) -> FunctionOptions:
    """The options of the function, checked.

    Raises:
        UsageError: one is of the wrong type or out of range.
    """
    return FunctionOptions(
        function_name=options.function_name(place, function_name),
        timeout=None if timeout is None else options.whole(place, "timeout", timeout, 1, limits.FUNCTION_SECONDS),
        memory_size=(
            None
            if memory_size is None
            else options.whole(place, "memory_size", memory_size, 128, limits.FUNCTION_MEMORY_MB)
        ),
        environment=options.environment(place, environment),
    )


def checked_signature(
    function: Callable[..., Any], place: Place, decorator: str, names: Mapping[str, Any]
) -> Signature | None:
    """The signature of what is decorated; None for a method, whose first parameter is `self` until it is bound.

    Args:
        function: what stands below the decorator.
        place: of the decorator.
        decorator: for example `@on_stream`.
        names: that its annotations may use: those around the decorator.

    Raises:
        UsageError: it is no function, its signature fits no form, or nothing decodes to its type.
    """
    what: object = function
    if not callable(what) or isinstance(what, type):
        raise UsageError(f"{place}: {decorator} decorates a function, not {function!r}")
    if _is_method(function):
        return None
    signature = read_signature(function, names=names, complete=False)
    if not signature.missing:
        _check_type(function, signature)
    return signature


def attach(
    function: Callable[..., Any], signature: Signature | None, declaration: Declared, place: Place, decorator: str
) -> None:
    """Attach one more declaration to a function.

    Raises:
        UsageError: it contradicts another one, or the function's form; or the function takes no attributes.
    """
    marks = (*declared(function), declaration)
    check_marks(marks, name_of(function))
    if signature is not None:
        check_form(function, signature.form, [declaration.trigger])
    try:
        setattr(function, ATTRIBUTE, marks)
    except AttributeError:
        raise UsageError(
            f"{place}: {function!r} takes no attributes, so {decorator} cannot mark it: wrap it in a function"
        ) from None


def _check_type(function: Callable[..., Any], signature: Signature) -> None:
    """Refuse a `T` that JSON cannot be decoded to, unless it mentions what is defined further down."""
    try:
        typed(function, signature)
    except UsageError as error:
        if not isinstance(error.__cause__, NameError):
            raise


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether it stands in a class body."""
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    return bool(owner) and not owner.endswith("<locals>") and inspect.isfunction(function)
