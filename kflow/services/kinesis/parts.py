"""What all modules of the service share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from kflow.kinesis.host import Host
from kflow.kinesis.reading import Reading
from kflow.kinesis.registry import Registry
from kflow.kinesis.seals import Seal
from kflow.kinesis.tallies import Tallies


def _no_faults(count: int) -> Collection[int] | None:
    del count
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Made once by whoever hosts the service.

    Attributes:
        host: the node, or a client without one.
        registry: the streams of all places, with what is kept of each.
        enforce_limits: whether shards take and give no more than on AWS.
        entry_faults: which entries of a PutRecords call of so many are to be throttled on purpose; None for none.
        tallies: what calls came to, by stream.
        seal: makes tokens, with the data folder's key.
        reading: reads shards; one for all that answer with records.
    """

    host: Host
    registry: Registry
    enforce_limits: bool = False
    entry_faults: Callable[[int], Collection[int] | None] = _no_faults
    tallies: Tallies = field(default_factory=Tallies)
    seal: Seal = field(init=False)
    reading: Reading = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reading", Reading(self.host))
        object.__setattr__(self, "seal", Seal(self.host.folder.id.encode()))


class Base:
    """Operations of one module; `Kinesis` inherits all of them. Each `__init__` calls the next by `super()`."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.host = parts.host
        self.registry = parts.registry
