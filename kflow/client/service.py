"""Calls of a client: through the node where one runs, else by the same services in this process.

NoNode --> the writer's lock --> Alone
^              | busy: a node starts, or somebody writes
+--------------+
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from kflow.aws.shapes import Model, Operation
from kflow.broker import wirecalls
from kflow.broker.folder import DataFolder
from kflow.broker.writing import writing
from kflow.client.alone import Alone, model
from kflow.client.events import LoneEvents, NodeEvents
from kflow.client.links import Links
from kflow.errors import AwsError, DataFolderBusy, KflowError, NoNode, StorageError
from kflow.producing import local

T = TypeVar("T")

LOCK_S: Final = 0.1
"""How long one try for the writer's lock takes; between two of them the node's socket is tried again."""
BUSY_S: Final = 10.0
CALL_BYTES: Final = 16 << 20
"""Of one call; as over HTTP."""
_WAIT_S: Final = 9
"""Source: documented: ReceiveQueueRecords, the default of WaitTimeSeconds."""
_LOOK_S: Final = 0.1
_RECEIVES: Final = frozenset({"ReceiveQueueRecords", "ReceiveDeadLetterQueueRecords"})


class Refused(AwsError):
    """What the services refused a call with.

    Attributes:
        code: AWS's.
        http_status: as HTTP has it.
    """

    def __init__(self, error: wirecalls.CallError) -> None:
        super().__init__(error.message)
        self.code = error.code
        self.http_status = error.status


class Answer(NamedTuple):
    """What came of a call.

    Attributes:
        output: as boto3 has it.
        request_id: of the call; empty: there is none.
    """

    output: dict[str, Any]
    request_id: str = ""


class Service:
    """Of one client. Any thread may use it.

    Attributes:
        path: the data folder.
        links: connections to its node.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.links = Links()

    @property
    def model(self) -> Model:
        """Of Kinesis."""
        return model(Path(self.path))

    @property
    def folder(self) -> DataFolder:
        """The data folder, as it lies there now.

        Raises:
            StorageError: it is not there, or cannot be used.
        """
        return local.current_home(self.path).folder

    def call(self, operation: Operation, parameters: Mapping[str, Any]) -> Answer:
        """Perform a call.

        Args:
            operation: which.
            parameters: blobs are bytes, timestamps datetimes or seconds.

        Raises:
            KflowError: what it was refused with.
        """
        if operation.name == "CreateStream":
            DataFolder.open(Path(self.path), create=True)
        if _size(parameters) > CALL_BYTES:
            raise Refused(wirecalls.CallError(code="413", message="Request Entity Too Large", status=413))
        deadline = time.monotonic() + float(parameters.get("WaitTimeSeconds", _WAIT_S))
        while True:
            answer, is_alone = self._by_either(
                lambda folder: (self._by_node(folder, operation, parameters), False),
                lambda folder: (_alone(folder, operation, parameters), True),
            )
            # Without a node nobody tells of records that come.
            if not is_alone or operation.name not in _RECEIVES or answer.output["QueueRecords"]:
                return answer
            if time.monotonic() + _LOOK_S > deadline:
                return answer
            time.sleep(_LOOK_S)

    def subscribe(self, operation: Operation, parameters: Mapping[str, Any]) -> NodeEvents | LoneEvents:
        """Perform a call whose answer goes on.

        Raises:
            KflowError: what it was refused with.
        """

        def by_node(folder: DataFolder) -> NodeEvents | LoneEvents:
            link = self.links.connect(folder)
            try:
                answer = link.call(1, _packed(operation, parameters))
                if answer.error is not None:
                    raise Refused(answer.error)
            except BaseException:
                link.close()
                raise
            return NodeEvents(link, operation.name)

        def alone(folder: DataFolder) -> NodeEvents | LoneEvents:
            with writing(folder, LOCK_S) as store:
                services = Alone(folder, store)
                events = LoneEvents(services.host, operation)
                refusal = services.call(operation.name, parameters, events=lambda _: events)
            if isinstance(refusal, KflowError):
                raise refusal
            return events

        return self._by_either(by_node, alone)

    def close(self) -> None:
        """Close the connections that are idle."""
        self.links.close()

    def _by_node(self, folder: DataFolder, operation: Operation, parameters: Mapping[str, Any]) -> Answer:
        answer = self.links.call(folder, _packed(operation, parameters))
        if answer.error is not None:
            raise Refused(answer.error)
        return Answer(answer.output, answer.request_id)

    def _by_either(self, by_node: Callable[[DataFolder], T], alone: Callable[[DataFolder], T]) -> T:
        """By the node, or without one."""
        deadline = time.monotonic() + BUSY_S
        while True:
            folder = self.folder
            try:
                return by_node(folder)
            except NoNode:
                pass
            except OSError as error:
                raise StorageError(f"the node of {self.path} went away, or did not answer in time: {error}") from error
            try:
                return alone(folder)
            except DataFolderBusy:
                if time.monotonic() > deadline:
                    raise


def _alone(folder: DataFolder, operation: Operation, parameters: Mapping[str, Any]) -> Answer:
    with writing(folder, LOCK_S) as store:
        result = Alone(folder, store).call(operation.name, parameters)
    if isinstance(result, KflowError):
        raise result
    assert result is not None, "nothing of it is under way"
    return Answer(result)


def _packed(operation: Operation, parameters: Mapping[str, Any]) -> wirecalls.Call:
    return wirecalls.Call(service="kinesis", operation=operation.name, parameters=dict(parameters))


def _size(value: Any) -> int:
    """Bytes of all texts and blobs."""
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0
