"""The Kinesis client for local data: every operation of the model, by boto3's method names.

Records go straight to the writer and come straight from the log where that is right (`direct`); all else is performed
by the node's own services (`service`), or where none runs by the same services in this process.

Absent: generate_presigned_url, meta.events, meta.config, meta.endpoint_url. Nothing is retried: there is no network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kflow.aws.shapes import Operation
from kflow.client import sdk
from kflow.client.direct import Direct
from kflow.client.faults import Exceptions, metadata, raise_as_client_error
from kflow.client.parameters import plain
from kflow.client.service import Service
from kflow.errors import KflowError

Quick = Callable[[Mapping[str, Any]], dict[str, Any] | None]
Method = Callable[..., dict[str, Any]]


class KinesisClient:
    """boto3's Kinesis client over a data folder. Any thread may use it.

    Attributes:
        exceptions: error classes by AWS's code, as boto3 has them.
        meta: what boto3's clients say of themselves.
    """

    def __init__(self, data_dir: str) -> None:
        self._service = Service(data_dir)
        direct = Direct(self._service)
        self._quick: dict[str, Quick] = {
            "PutRecord": direct.put_record,
            "PutRecords": direct.put_records,
            "GetShardIterator": direct.get_shard_iterator,
            "GetRecords": direct.get_records,
        }
        self.exceptions = Exceptions()
        self.meta = sdk.Meta(self._service)

    def __getattr__(self, name: str) -> Method:
        """The method of an operation, made when it is first asked for."""
        if name.startswith("_"):
            raise AttributeError(name)
        for operation in self._operations():
            if operation.method_name == name:
                made = _method(self._service, operation, self._quick.get(operation.name))
                self.__dict__[name] = made
                return made
        there = ", ".join(each for each in dir(self) if not each.startswith("_"))
        raise AttributeError(f"kflow's local Kinesis client has no {name!r}; it has {there}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(each.method_name for each in self._operations())})

    def can_paginate(self, operation_name: str) -> bool:
        """Whether `get_paginator` takes this method."""
        return sdk.can_paginate(operation_name)

    def get_paginator(self, operation_name: str) -> Any:
        """Botocore's paginator for a method."""
        return sdk.paginator(self, operation_name)

    @property
    def waiter_names(self) -> list[str]:
        """What `get_waiter` takes."""
        return sdk.waiter_names()

    def get_waiter(self, waiter_name: str) -> Any:
        """Botocore's waiter of a name."""
        return sdk.waiter(self, waiter_name)

    def close(self) -> None:
        """Close what is open. The client may be used again."""
        self._service.close()

    def _operations(self) -> list[Operation]:
        model = self._service.model
        found = (model.operation(name) for name in model.operation_names)
        return [operation for operation in found if operation is not None]


def _method(service: Service, operation: Operation, quick: Quick | None) -> Method:
    """The method of an operation. It does not know its client, so that a client that is dropped goes at once."""
    stream = operation.event_stream

    def method(**parameters: Any) -> dict[str, Any]:
        request_id = ""
        try:
            answer = None if quick is None else quick(parameters)
            if answer is None:
                given = plain(operation, parameters)
                if stream is None:
                    answer, request_id = service.call(operation, given)
                else:
                    answer = {stream.name: service.subscribe(operation, given)}
        except KflowError as error:
            raise_as_client_error(error, operation.name)
        answer["ResponseMetadata"] = metadata(request_id=request_id)
        return answer

    method.__name__ = method.__qualname__ = operation.method_name
    method.__doc__ = f"{operation.name}: see AWS's documentation."
    return method
