"""PATH to modules to `Handler`s: find, import, collect.

Its modules about signatures are part of `import kflow`, on Lambda too; those that search and import are not: they are
imported when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kflow.loading.collecting import collect
    from kflow.loading.find import preload_candidates
    from kflow.loading.imports import HandlerNotFound, load_function
    from kflow.loading.loader import Loaded, load

__all__ = ["HandlerNotFound", "Loaded", "collect", "load", "load_function", "preload_candidates"]

_LATER = {
    "HandlerNotFound": "imports",
    "Loaded": "loader",
    "collect": "collecting",
    "load": "loader",
    "load_function": "imports",
    "preload_candidates": "find",
}


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module 'kflow.loading' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"kflow.loading.{module}"), name)
    globals()[name] = value
    return value
