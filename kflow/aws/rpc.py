"""AWS's newest protocol, `smithy-rpc-v2-cbor`: service and operation stand in the path, all else in CBOR.

    POST /service/GraniteServiceVersion20100801/operation/ListMetrics
    smithy-protocol: rpc-v2-cbor
    content-type: application/cbor

CBOR is that of the RFC here: timestamps are seconds. Source: documented: Smithy, RPC v2 CBOR protocol.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
from typing import Any, Final

from kflow.aws import cbor
from kflow.aws.cbor_output import CborOutput
from kflow.aws.cbor_wire import CborWire
from kflow.aws.dispatch import Bound, CallLater
from kflow.aws.errors import SerializationFailed
from kflow.aws.structs import milliseconds
from kflow.aws.webcall import WireWriter

PROTOCOL: Final = "rpc-v2-cbor"
HEADER: Final = (b"smithy-protocol", PROTOCOL.encode())
_PATH: Final = re.compile(r"/(?:.*/)?service/(?:[^/]*\.)?([^/.]+)/operation/([^/?]+)")


def target(path: str) -> str:
    """What a path names, as `X-Amz-Target` would: `GraniteServiceVersion20100801.ListMetrics`; empty: nothing."""
    found = _PATH.fullmatch(path.partition("?")[0])
    return "" if found is None else f"{found[1]}.{found[2]}"


class RpcWire(CborWire):
    """A `kflow.aws.wires.Wire`."""

    name = PROTOCOL
    content_type = b"application/cbor"

    def __init__(self) -> None:
        super().__init__(CborOutput({"timestamp": _timestamp, "float": _double, "double": _double}))

    def plain(self, body: bytes) -> dict[str, Any]:
        """See `Wire`. An empty body is an empty input."""
        try:
            value = cbor.decode(body, timestamps=cbor.SECONDS) if body else {}
        except cbor.CborError as error:
            raise SerializationFailed(str(error)) from error
        if not isinstance(value, dict):
            raise SerializationFailed("the body is no map")
        return value

    def quick(self, bound: Bound, body: bytes) -> Any:
        """See `Wire`."""
        try:
            value = self.plain(body)
        except SerializationFailed:
            return None
        return bound.binary_input.quick(value)


def writer(wire: RpcWire, call_later: CallLater) -> WireWriter:
    """Its answers: each says its protocol again."""
    made = WireWriter(wire, call_later)
    made.head = (*made.head, HEADER)
    return made


def _double(value: float) -> bytes:
    return struct.pack(">Bd", 0xFB, value)


def _timestamp(value: Any) -> bytes:
    ms = milliseconds(value) if isinstance(value, dt.datetime) else value
    seconds = ms / 1000
    return b"\xc1" + (cbor.integer(int(seconds)) if math.floor(seconds) == seconds else _double(seconds))
