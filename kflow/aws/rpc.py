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
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from kflow.aws import cbor
from kflow.aws.cbor_output import CborOutput
from kflow.aws.dispatch import Bound, CallLater
from kflow.aws.errors import SerializationFailed
from kflow.aws.structs import milliseconds
from kflow.aws.vocabulary import Vocabularies
from kflow.aws.webcall import WireWriter

PROTOCOL: Final = "rpc-v2-cbor"
HEADER: Final = (b"smithy-protocol", PROTOCOL.encode())
_PATH: Final = re.compile(r"/(?:.*/)?service/(?:[^/]*\.)?([^/.]+)/operation/([^/?]+)")


def target(path: str) -> str:
    """What a path names, as `X-Amz-Target` would: `GraniteServiceVersion20100801.ListMetrics`; empty: nothing."""
    found = _PATH.fullmatch(path.partition("?")[0])
    return "" if found is None else f"{found[1]}.{found[2]}"


class RpcWire:
    """A `kflow.aws.wires.Wire`."""

    name = PROTOCOL
    content_type = b"application/cbor"

    def __init__(self) -> None:
        self._output = CborOutput({"timestamp": _timestamp, "float": _double, "double": _double})
        self.write = self._output.bytes_of
        self.write_sliced = self._output.sliced
        self.write_plain = cbor.mapping
        self.vocabulary = Vocabularies(
            self.write,
            self.write_plain,
            content_type=self.content_type.decode(),
            event_content_type="application/cbor",
        )

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

    def reader(self, bound: Bound) -> Callable[[bytes], Any]:
        """See `Wire`."""
        return partial(self.quick, bound)

    def exact(self, bound: Bound, value: Mapping[str, Any]) -> Any:
        """See `Wire`."""
        return bound.binary_input.exact(value)


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
