"""AWS's JSON protocol, in CBOR."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kflow.aws import cbor
from kflow.aws.cbor_output import CborOutput
from kflow.aws.dispatch import Bound
from kflow.aws.errors import SerializationFailed
from kflow.aws.vocabulary import Vocabularies


class CborWire:
    """A `kflow.aws.wires.Wire`."""

    name = "cbor"
    content_type = b"application/x-amz-cbor-1.1"

    def __init__(self, output: CborOutput | None = None) -> None:
        self._output = CborOutput() if output is None else output
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
        """See `Wire`."""
        try:
            value = cbor.decode(body)
        except cbor.CborError as error:
            raise SerializationFailed from error
        if not isinstance(value, dict):
            raise SerializationFailed
        return value

    def quick(self, bound: Bound, body: bytes) -> Any:
        """See `Wire`."""
        try:
            value = cbor.decode(body)
        except cbor.CborError:
            return None
        return bound.binary_input.quick(value)

    def reader(self, bound: Bound) -> Callable[[bytes], Any]:
        """See `Wire`."""
        return partial(self.quick, bound)

    def exact(self, bound: Bound, value: Mapping[str, Any]) -> Any:
        """See `Wire`."""
        return bound.binary_input.exact(value)
