"""Which form a handler has, read from its signature; and what is wrong with one that has none.

Only the first parameter's annotation is resolved: against the module's names, the closure, and (while the decorator
runs) the names around the decorator. All other annotations may name what only a type checker imports.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from kflow.declarations import HandlerForm
from kflow.errors import UsageError
from kflow.loading.places import call_method, function_place, name_of, plain
from kflow.records import Batch, Message, Messages, Record

_VALUE_TYPE = "__kflow_value_type__"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_FORMS: dict[Any, HandlerForm] = {
    Record: HandlerForm.RECORD,
    Batch: HandlerForm.BATCH,
    Message: HandlerForm.MESSAGE,
    Messages: HandlerForm.MESSAGES,
}
_NAMES = frozenset(form.__name__ for form in _FORMS)
_HOW = "a handler is `def {name}(event, context)`, or takes one `Record`, `Record[T]`, `Batch` or `Batch[T]`"


class Signature(NamedTuple):
    """How a handler is called.

    Attributes:
        form: what its first parameter takes.
        is_async: whether calling it makes a coroutine; also where only the function under a plain wrapper says so.
        value_type: the `T` of `Record[T]` or `Batch[T]`; `msgspec.UNSET` where there is none.
        context: how the context is passed: `positional`, `keyword`, or empty where the handler does not ask.
        missing: a name in `T` that does not exist yet; empty once all do.
    """

    form: HandlerForm
    is_async: bool = False
    value_type: Any = msgspec.UNSET
    context: str = ""
    missing: str = ""


def read_signature(
    function: Callable[..., Any], *, names: Mapping[str, Any] | None = None, complete: bool = True
) -> Signature:
    """Read the form of `function`.

    Args:
        function: a function, coroutine function, bound method, partial, or an object that can be called.
        names: further names that the annotation may use: those around a decorator.
        complete: False while the module is still being executed: a `T` defined further down is then no error.

    Raises:
        UsageError: no form fits; names file, line and the fix.
    """
    if inspect.isgeneratorfunction(plain(function)) or inspect.isasyncgenfunction(plain(function)):
        raise _refused(function, "is a generator, so calling it runs nothing: remove its `yield`")
    parameters = list(_signature(function).parameters.values())
    if not parameters:
        raise _refused(function, "takes no parameters: " + _HOW.format(name=name_of(function)))
    first, rest = parameters[0], parameters[1:]
    annotation, missing = (None, "")
    if first.kind in _POSITIONAL:
        annotation, missing = _resolve(function, first.annotation, names or {})
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    form = _FORMS.get(typing.get_origin(annotation) or annotation) if _hashable(annotation) else None
    is_async = is_coroutine_function(function) or is_coroutine_function(plain(function))
    if form is None:
        _check_event_form(function, parameters, missing)
        return Signature(HandlerForm.EVENT, is_async)
    arguments = typing.get_args(annotation)
    value_type = arguments[0] if arguments and not isinstance(arguments[0], typing.TypeVar) else msgspec.UNSET
    if missing and hasattr(function, _VALUE_TYPE):
        value_type, missing = getattr(function, _VALUE_TYPE), ""
    if missing and complete:
        raise _unresolved(function, first, missing)
    if names and not missing and value_type is not msgspec.UNSET:
        _remember(function, value_type)
    return Signature(form, is_async, value_type, _context(function, rest), missing)


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it certainly makes a coroutine: `async def`, or an object whose `__call__` is."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call_method(function))


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise _refused(function, f"has no signature that Python can read ({error}): wrap it in a function") from error


def _check_event_form(function: Callable[..., Any], parameters: list[inspect.Parameter], missing: str) -> None:
    """The event form takes two positional parameters of any names and annotations; all others need defaults."""
    first = parameters[0]
    name = name_of(function)
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    any_number = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    if missing and _head(first.annotation) in _NAMES:
        raise _unresolved(function, first, missing)
    if len(positional) < 2 and not any_number:
        if not positional:
            raise _refused(function, "takes no positional parameter: " + _HOW.format(name=name))
        if first.annotation is inspect.Parameter.empty:
            raise _refused(
                function,
                f"takes only `{first.name}`, without a type: write `{name}({first.name}, context)` for Lambda's event, "
                f"`{first.name}: Record` for one record at a time, or `{first.name}: Batch` for a batch",
            )
        wanted = _text(first.annotation)
        raise _refused(
            function,
            f"takes only `{first.name}: {wanted}`: did you mean `Record[{wanted}]`? (" + _HOW.format(name=name) + ")",
        )
    _need_defaults(function, positional[2:])
    _need_defaults(function, [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY])


def _context(function: Callable[..., Any], rest: list[inspect.Parameter]) -> str:
    """How a record or batch handler wants the context: only a parameter of that name gets it."""
    how = ""
    others = []
    for index, parameter in enumerate(rest):
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        if parameter.name != "context":
            others.append(parameter)
        elif index == 0 and parameter.kind in _POSITIONAL:
            how = "positional"
        elif parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
            how = "keyword"
    _need_defaults(function, others)
    return how


def _need_defaults(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> None:
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty:
            raise _refused(
                function,
                f"has a parameter `{parameter.name}` that nobody fills: give it a default "
                "(only the event or records, and `context`, are passed)",
            )


def _resolve(function: Callable[..., Any], annotation: Any, names: Mapping[str, Any]) -> tuple[Any, str]:
    """What the annotation means, and the first name in it that does not exist."""
    if isinstance(annotation, typing.ForwardRef):  # 3.14: an annotation that could not be evaluated at all
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return _evaluate(function, annotation, names)
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) in _FORMS and isinstance(arguments[0], typing.ForwardRef):  # Record["Order"]
        meaning, missing = _evaluate(function, arguments[0].__forward_arg__, names)
        return (annotation if missing else typing.get_origin(annotation)[meaning]), missing
    return annotation, ""


def _evaluate(function: Callable[..., Any], text: str, names: Mapping[str, Any]) -> tuple[Any, str]:
    inner = plain(function)
    code = getattr(inner, "__code__", None)
    free = code.co_freevars if code else ()
    cells = getattr(inner, "__closure__", None) or ()
    scope = _Scope(vars(builtins))
    scope.update(getattr(inner, "__globals__", {}))
    scope.update(names)
    scope.update({name: cell.cell_contents for name, cell in zip(free, cells, strict=False) if _full(cell)})
    try:
        meaning = eval(text, {"__builtins__": vars(builtins)}, scope)  # noqa: S307  (the user's own annotation)
    except Exception as error:  # an annotation is any expression: whatever it raises is the user's to see
        raise _refused(function, f"takes `{text}`, which fails: {type(error).__name__}: {error}") from error
    return meaning, scope.missing[0] if scope.missing else ""


class _Missing(type):
    """Stands for a name that does not exist, so that the rest of the annotation can still be read."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):  # typing looks for its own marks: it must not find any
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: Any) -> Any:
        return cls


class _Scope(dict[str, Any]):
    """The names an annotation may use; notes those that are missing."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        super().__init__(names)
        self.missing: list[str] = []

    def __missing__(self, name: str) -> Any:
        self.missing.append(name)
        return _Missing(name, (), {})


def _full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (an empty cell raises)
    except ValueError:
        return False
    return True


def _hashable(value: Any) -> bool:
    return getattr(value, "__hash__", None) is not None


def _text(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if arguments and origin in _FORMS:
        return f"{origin.__name__}[{', '.join(map(_text, arguments))}]"
    return annotation.__name__ if isinstance(annotation, type) and not arguments else repr(annotation)


def _head(annotation: Any) -> str:
    """`Record` of the text `kflow.Record[Order]`."""
    try:
        node: ast.AST = ast.parse(_text(annotation), mode="eval").body
    except SyntaxError:
        return ""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _remember(function: Callable[..., Any], value_type: Any) -> None:
    """Keep on the function a `T` that only the decorator could see (a class inside a test), for whoever reads later."""
    # An object without room for attributes is refused by the decorator itself.
    with contextlib.suppress(AttributeError):
        setattr(function, _VALUE_TYPE, value_type)


def _unresolved(function: Callable[..., Any], first: inspect.Parameter, missing: str) -> UsageError:
    return _refused(
        function,
        f"takes `{first.name}: {_text(first.annotation)}`, and there is no `{missing}` when it runs: "
        f"import `{missing}` outside `if TYPE_CHECKING`",
    )


def _refused(function: Callable[..., Any], why: str) -> UsageError:
    return UsageError(f"{function_place(function)}: {name_of(function)} {why}")
