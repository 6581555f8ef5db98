"""What a client takes from botocore as it is: its model of Kinesis, paginators, waiters. Imported when asked for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kflow.client.kinesis import KinesisClient
    from kflow.client.service import Service

_LOOK_S = 0.25
_LOOKS = 720
"""Local streams change within a second: waiters look this often, and for three minutes as botocore's do."""


@functools.cache
def _loader() -> Any:
    from botocore.loaders import Loader

    return Loader()


@functools.cache
def service_model() -> Any:
    """Botocore's `ServiceModel`."""
    from botocore.model import ServiceModel

    return ServiceModel(_loader().load_service_model("kinesis", "service-2"), "kinesis")


@functools.cache
def _pages() -> dict[str, Any]:
    """How each operation that can be paged is, by its name."""
    found: dict[str, Any] = _loader().load_service_model("kinesis", "paginators-1")["pagination"]
    return found


def can_paginate(method: str) -> bool:
    """Whether there is a paginator for a method."""
    return any(_method(name) == method for name in _pages())


def paginator(client: KinesisClient, method: str) -> Any:
    """Botocore's `Paginator` over a method.

    Raises:
        OperationNotPageableError: botocore's; there is none.
    """
    from botocore.exceptions import OperationNotPageableError
    from botocore.paginate import Paginator

    for name, config in _pages().items():
        if _method(name) == method:
            return Paginator(getattr(client, method), config, service_model().operation_model(name))
    raise OperationNotPageableError(operation_name=method)


@functools.cache
def _waiters() -> Any:
    from botocore.waiter import WaiterModel

    content = _loader().load_service_model("kinesis", "waiters-2")
    for config in content["waiters"].values():
        config.update(delay=_LOOK_S, maxAttempts=_LOOKS)
    return WaiterModel(content)


def waiter_names() -> list[str]:
    """Names of the waiters, as `get_waiter` takes them."""
    return [_method(name) for name in _waiters().waiter_names]


def waiter(client: KinesisClient, name: str) -> Any:
    """Botocore's `Waiter`; it looks four times a second.

    Raises:
        ValueError: there is none; botocore's text.
    """
    from botocore.waiter import NormalizedOperationMethod, Waiter

    for known in _waiters().waiter_names:
        if _method(known) == name:
            config = _waiters().get_waiter(known)
            return Waiter(known, config, NormalizedOperationMethod(getattr(client, _method(config.operation))))
    raise ValueError(f"Waiter does not exist: {name}")


def _method(name: str) -> str:
    from botocore import xform_name

    method: str = xform_name(name)
    return method


class Meta:
    """`client.meta`, as far as a client without HTTP has it.

    Attributes:
        region_name: of the data folder.
        partition: `aws`.
    """

    partition = "aws"

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def region_name(self) -> str:
        """Region of the data folder."""
        return self._service.folder.region

    @property
    def service_model(self) -> Any:
        """Botocore's `ServiceModel`."""
        return service_model()

    @property
    def method_to_api_mapping(self) -> dict[str, str]:
        """Operations by method."""
        return {_method(name): name for name in service_model().operation_names}
