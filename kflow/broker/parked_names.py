"""Names of parked batches' files: which records one holds, its number, who redrives it, and whether it is unsent.

<function>/<stream id>.<shard>.<first counter>-<last counter>.<number>.parked
<function>/<stream id>.<shard>.<first counter>-<last counter>.<number>.claim-<epoch>       .unsent behind either
"""

from __future__ import annotations

import re
from typing import NamedTuple

from kflow.broker.parked_batch import ParkedBatch

_NAME = re.compile(r"([0-9a-f]{16})\.(\d+)\.(\d+)-(\d+)\.(\d+)\.(?:parked|claim-(\d+))(\.unsent)?")


class Name(NamedTuple):
    """A name, taken apart.

    Attributes:
        function: whose folder it is in.
        stream_id: of the stream.
        shard: index of the shard.
        first_counter: counter of the first record.
        last_counter: counter of the last record.
        number: of the batch.
        claimed_by: epoch of the node that redrives it; 0 where none does.
        is_unsent: whether its document is still to be sent.
    """

    function: str
    stream_id: int
    shard: int
    first_counter: int
    last_counter: int
    number: int
    claimed_by: int
    is_unsent: bool

    @property
    def text(self) -> str:
        """The name, without its folder."""
        state = f"claim-{self.claimed_by}" if self.claimed_by else "parked"
        if self.is_unsent:
            state += ".unsent"
        return f"{self.held}.{self.number}.{state}"

    @property
    def held(self) -> str:
        """Which records it holds."""
        counters = f"{self.first_counter:020d}-{self.last_counter:020d}"
        return f"{self.stream_id:016x}.{self.shard}.{counters}"

    @property
    def key(self) -> str:
        """Whose records, and which."""
        return f"{self.function}/{self.held}"


def parsed(function: str, text: str) -> Name | None:
    """The name that a file has; None: it is none of ours."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    stream_id, shard, first, last, number, claimed_by, unsent = match.groups()
    numbers = (int(shard), int(first), int(last), int(number), int(claimed_by or 0))
    return Name(function, int(stream_id, 16), *numbers, is_unsent=unsent is not None)


def keyed(key: str, number: int) -> Name | None:
    """The name of what a key says."""
    function, _, held = key.partition("/")
    return parsed(function, f"{held}.{number}.parked")


def name_of(entry: ParkedBatch, number: int) -> Name:
    """The name that a batch gets, unclaimed."""
    return Name(
        entry.function,
        entry.stream_id,
        entry.shard,
        entry.first_counter,
        entry.last_counter,
        number,
        claimed_by=0,
        is_unsent=bool(entry.destination),
    )
