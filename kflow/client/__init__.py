"""`kflow.client("kinesis")`: boto3's method names, responses and errors, straight to the local log.

The function and this module share the name `kflow.client`. Which of the two an attribute look-up finds would depend on
who imported what first; so the module is callable too, and calls the function.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from kflow.errors import UsageError

__all__ = ["client"]


def client(service: str, *, target: str | None = None) -> Any:
    """A client with boto3's interface, for the target that `kflow.put` would take.

    Local data: an object whose methods, parameters, response dictionaries and error classes are those of boto3's
    Kinesis client, without HTTP; what it does not have raises `AttributeError` and names what it has. AWS or an
    endpoint: boto3's own client, so that the same code runs deployed.

    Args:
        service: `kinesis`.
        target: `local`, `aws` or a URL; see `kflow.target`.

    Raises:
        UsageError: another service, or nothing says where to.
    """
    from kflow.client.kinesis import KinesisClient
    from kflow.producing.aws import client as sdk_client
    from kflow.producing.targets import target as find_target

    if service != "kinesis":
        raise UsageError(f'kflow.client("kinesis") is the only client there is, not {service!r}')
    found = find_target(target)
    return KinesisClient(found.where) if found.kind == "local" else sdk_client(found)


class _CallableModule(ModuleType):
    def __call__(self, service: str, *, target: str | None = None) -> Any:
        return client(service, target=target)


sys.modules[__name__].__class__ = _CallableModule
