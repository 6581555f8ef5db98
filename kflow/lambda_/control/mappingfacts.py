"""What is kept of an event source mapping: plain data that is never changed, only replaced. A file a mapping, JSON.

lambda/mappings/<uuid>.json      made by the API
lambda/switches.json             of the triggers of decorated handlers: which of them are switched on or off
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

import msgspec

from kflow import arn
from kflow.aws.calls import Place
from kflow.broker import documents, statefile
from kflow.broker.folder import DataFolder
from kflow.declarations import MappingOptions, QueueOptions
from kflow.errors import KflowError, StorageError
from kflow.lambda_ import eventcounts
from kflow.lambda_.control import names

FOLDER: Final = "lambda/mappings"
SWITCHES: Final = "lambda/switches.json"


class Mapping(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event source mapping.

    Attributes:
        uuid: its name.
        account: of the function, 12 digits.
        region: of both.
        function: the function's name.
        qualifier: as the caller gave it; empty: none.
        source: ARN of a stream, a registered consumer or a queue.
        options: of a stream's; `on_failure` is an ARN, where there is one.
        queue_options: of a queue's.
        enabled: whether it is to run.
        is_deleting: it is going, and does not come back.
        line: of a decorator, `file:line`; empty: the API made it.
        key_arn: kept and shown.
        metrics: groups of metrics that are made of it; None: none was ever asked for.
        tags: likewise.
        moved_from: key of the function that it was of, while its position still lies there.
        created_ms: milliseconds since the epoch; the list goes by it.
        modified_ms: likewise, of the last change.
    """

    uuid: str
    account: str
    region: str
    function: str
    source: str
    qualifier: str = ""
    options: MappingOptions = MappingOptions()
    queue_options: QueueOptions = QueueOptions()
    enabled: bool = True
    is_deleting: bool = False
    line: str = ""
    key_arn: str = ""
    metrics: tuple[str, ...] | None = None
    tags: dict[str, str] = {}
    moved_from: str = ""
    created_ms: int = 0
    modified_ms: int = 0

    @property
    def is_queue(self) -> bool:
        """Whether it reads a queue."""
        return self.source.split(":", 3)[2] == "sqs"

    @property
    def stream(self) -> str:
        """Name of its stream."""
        return arn.stream_name(self.source)

    @property
    def counts(self) -> bool:
        """Whether its events are counted."""
        return eventcounts.GROUP in (self.metrics or ())

    @property
    def function_arn(self) -> str:
        """With the qualifier that the caller gave. Source: recorded."""
        return names.qualified(arn.function_arn(self.region, self.account, self.function), self.qualifier)

    @property
    def arn(self) -> str:
        """Its own."""
        return f"arn:aws:lambda:{self.region}:{self.account}:event-source-mapping:{self.uuid}"

    def key(self, home: Place) -> str:
        """What names its function for the node."""
        return names.key(Place(self.account, self.region), home, self.function, self.qualifier)


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_READER: Final = msgspec.json.Decoder(Mapping)


class Switch(msgspec.Struct, frozen=True):
    """A trigger of a decorated handler that the API has switched.

    Attributes:
        enabled: as it was switched.
        declared: as its decorator had it then; with another decorator the switch is void.
    """

    enabled: bool
    declared: bool


class _Switches(msgspec.Struct):
    switches: dict[str, Switch] = {}


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_read_switches = msgspec.json.Decoder(_Switches).decode


def load_all(folder: DataFolder) -> tuple[list[Mapping], list[KflowError]]:
    """All that are kept, as they were made; and what is wrong with those that cannot be read."""
    found: list[Mapping] = []
    failures: list[KflowError] = []
    try:
        for _, each in documents.load_all(os.path.join(folder.path, FOLDER), _READER, folder.files):
            if isinstance(each, KflowError):
                failures.append(each)
            else:
                found.append(each)
    except StorageError as error:
        failures.append(error)
    return sorted(found, key=lambda each: (each.created_ms, each.uuid)), failures


def store(folder: DataFolder, mapping: Mapping) -> None:
    """Write one, in one step.

    Raises:
        StorageError: it is not written; what was there stands.
    """
    documents.keep(_path(folder, mapping.uuid), mapping, folder)


def remove(folder: DataFolder, uuid: str) -> None:
    """Remove one.

    Raises:
        StorageError: it is not removed.
    """
    documents.keep(_path(folder, uuid), None, folder)


def _path(folder: DataFolder, uuid: str) -> str:
    return os.path.join(folder.path, FOLDER, f"{uuid}.json")


def load_switches(folder: DataFolder) -> dict[str, Switch]:
    """What was switched, by UUID.

    Raises:
        StorageError, Damaged: it cannot be read.
    """
    text = statefile.load(folder, SWITCHES)
    return {} if text is None else _read_switches(text).switches


def switches_text(switches: dict[str, Switch]) -> bytes:
    """As they are kept."""
    return msgspec.json.encode(_Switches(switches))


def is_on(switches: dict[str, Switch], uuid: str, *, declared: bool) -> bool:
    """Whether a decorated handler's trigger is on."""
    found = switches.get(uuid)
    return declared if found is None or found.declared != declared else found.enabled


def of_stream(mappings: Iterable[Mapping]) -> list[Mapping]:
    """Those that read streams."""
    return [each for each in mappings if not each.is_queue]
