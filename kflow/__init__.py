"""kflow: event processing with the semantics of AWS Lambda and Kinesis, on your own machine.

Importing it is cheap: it happens in every worker, and on Lambda. What is heavy is imported by what needs it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kflow import errors
from kflow.errors import KflowError, PutFailed, UsageError
from kflow.lambda_.forms import lambda_handler
from kflow.records import Batch, Message, Messages, Placed, Record
from kflow.triggers.queue import on_queue
from kflow.triggers.stream import on_stream

if TYPE_CHECKING:
    from kflow.client import client
    from kflow.events.deaggregation import deaggregate
    from kflow.producing import Producer, put, put_many, target

__all__ = [  # noqa: RUF022  (grouped: declare, receive, produce, fail)
    "on_stream",
    "on_queue",
    "lambda_handler",
    "Batch",
    "Record",
    "Message",
    "Messages",
    "Placed",
    "Producer",
    "client",
    "put",
    "put_many",
    "target",
    "deaggregate",
    "KflowError",
    "PutFailed",
    "UsageError",
    "errors",
]

_LATER = {
    "Producer": "kflow.producing",
    "client": "kflow.client",
    "deaggregate": "kflow.events.deaggregation",
    "put": "kflow.producing",
    "put_many": "kflow.producing",
    "target": "kflow.producing",
}


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module 'kflow' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """The package, in which `client` stays the function.

    The import system sets a package's attribute to each submodule it imports, and `kflow.client` is one as well.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "client" and isinstance(value, ModuleType):
            value = value.client
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
