"""Receipt handles and record ids: what clients see of deliveries and of records."""

from __future__ import annotations

import struct

from kflow.kinesis.queues.asking import Delivery
from kflow.kinesis.seals import Seal

_KIND = b"receipt"
_FORM = struct.Struct(">16sBIQQ")


def handle(seal: Seal, queue_id: str, delivery: Delivery) -> str:
    """The receipt handle of a delivery: text that only this data folder can have made, good for this queue alone."""
    said = _FORM.pack(bytes.fromhex(queue_id), delivery.dead, delivery.shard, delivery.counter, delivery.receipt)
    return seal.close(_KIND, said)


def delivery_of(seal: Seal, queue_id: str, text: str) -> Delivery | None:
    """What a receipt handle says; None where it is none of ours, or another queue's."""
    said = seal.open(_KIND, text)
    if said is None or len(said) != _FORM.size:
        return None
    owner, dead, shard, counter, receipt = _FORM.unpack(said)
    return Delivery(shard, counter, receipt, bool(dead)) if owner == bytes.fromhex(queue_id) else None


def record_id(stream_id: int, shard: int, counter: int) -> str:
    """A record's id: the same in every delivery and every queue. Source: documented: RecordId, `[a-z0-9]`, 1 to 64."""
    return f"{stream_id:016x}{shard:08x}{counter:016x}"
