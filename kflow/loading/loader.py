"""From PATHs to `Handler`s: find, import, collect, and check them against each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import msgspec

from kflow.declarations import Handler, HandlerForm
from kflow.errors import UsageError
from kflow.loading.collecting import collect_functions
from kflow.loading.find import Source, find_sources, preload_candidates
from kflow.loading.imports import import_source, isolated
from kflow.loading.places import shown

_EMPTY = (
    "{file} has no handlers: none of its module-level functions is decorated with @on_stream or @on_queue "
    "(a worker cannot import methods, or functions inside functions)"
)
Check = Callable[[Callable[..., Any], Handler], object]


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: data alone, so that it can cross processes.

    Attributes:
        handlers: in the order of their files and lines.
        files: the files that were imported.
        preload: modules that those import at their top level, for the zygote.
        warnings: what is allowed and probably not meant, one line each.
    """

    handlers: tuple[Handler, ...] = ()
    files: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load(*paths: str, check: Check | None = None) -> Loaded:
    """Import what the paths mean and collect its handlers.

    User modules are executed: run it in a process that may be lost. `sys.path` is as before on return, and the modules
    of each import root are forgotten, so that two folders may hold modules of one name.

    Args:
        paths: files, folders or dotted module names; relative ones from the working folder.
        check: called with each function and its handler while the module is still there; raises `UsageError`.

    Raises:
        UsageError: with one paragraph for each thing that is wrong, each with file, line and fix.
    """
    sources = list({source.file: source for path in paths for source in find_sources(path)}.values())
    handlers: list[Handler] = []
    wrong: list[str] = []
    warnings: list[str] = []
    for _, together in groupby(sources, key=lambda source: (source.root, source.folder)):
        group = list(together)
        with isolated(group[0]):
            for source in group:
                try:
                    found = _handlers(source, check)
                except UsageError as error:
                    wrong.append(str(error))
                    continue
                handlers += found
                if not found:
                    warnings.append(_EMPTY.format(file=shown(source.file)))
    wrong += _clashes(handlers)
    if wrong or not handlers:
        raise UsageError("\n\n".join(wrong or warnings))
    files = [source.file for source in sources]
    return Loaded(
        handlers=tuple(handlers),
        files=tuple(files),
        preload=tuple(preload_candidates(files)),
        warnings=(*warnings, *(warning for handler in handlers for warning in _warnings(handler))),
    )


def _handlers(source: Source, check: Check | None) -> list[Handler]:
    module = import_source(source)
    found = collect_functions(module, root=source.root)
    if not found and source.named:
        found = collect_functions(module, root=source.root, imported=True)
    if not found and source.named:
        raise UsageError(_EMPTY.format(file=shown(source.file)))
    if check is not None:
        for handler, function in found:
            check(function, handler)
    return [handler for handler, _ in found]


def _clashes(handlers: list[Handler]) -> list[str]:
    """A function is known by its name alone: checkpoints, parked records and logs lie under it."""
    first: dict[str, Handler] = {}
    wrong = []
    for handler in handlers:
        other = first.setdefault(handler.name, handler)
        if other is not handler:
            wrong.append(
                f"{shown(handler.file)}:{handler.line}: a function named {handler.name} is at "
                f"{shown(other.file)}:{other.line} already: rename one of them, or give it "
                f'@on_stream(..., function_name="...")'
            )
    return wrong


def _warnings(handler: Handler) -> list[str]:
    return [
        f"{shown(handler.file)}:{handler.line}: {handler.name}: a record that exhausts its "
        f"{trigger.options.maximum_retry_attempts} retries takes the rest of its batch with it, as on AWS; "
        "bisect_batch_on_function_error=True isolates it"
        for trigger in handler.triggers
        if handler.form is HandlerForm.RECORD
        and trigger.options.maximum_retry_attempts >= 0
        and not trigger.options.bisect_batch_on_function_error
        and trigger.options.batch_size > 1
    ]
