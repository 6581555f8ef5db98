"""From a dictionary to an operation's input: of CBOR, of other protocols, of this process."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import msgspec

from kflow.aws.coerce import Coercion
from kflow.aws.errors import SerializationFailed
from kflow.aws.json_input import Nothing
from kflow.aws.shapes import Operation
from kflow.aws.structs import Structs, settled
from kflow.aws.validate import validate


class DictInput:
    """One operation's. Compiled when it is first called."""

    def __init__(self, operation: Operation, coercion: Coercion) -> None:
        self._shape = operation.input
        self._coercion = coercion
        self._structs = Structs(is_wire=coercion.is_wire)
        self._is_exact = self._shape is not None and self._structs.is_exact(self._shape)
        self._settle = settled(self._shape) if self._shape is not None and self._is_exact else None

    def quick(self, value: Mapping[str, Any]) -> Any:
        """The input as a struct; None: it takes `exact` to say what it is, or what is wrong with it."""
        if self._shape is None:
            return Nothing()
        if not self._is_exact:
            return None
        try:
            given = msgspec.convert(
                value,
                self._structs.of(self._shape),
                builtin_types=(bytes, dt.datetime),
                dec_hook=self._coercion.timestamp_hook,
            )
        except (msgspec.ValidationError, RecursionError):
            return None
        return given if self._settle is None else self._settle(given)

    def exact(self, value: Mapping[str, Any]) -> Any:
        """The same, slowly.

        Raises:
            SerializationFailed: something is of a wrong type.
            ValidationFailed: something breaks a constraint.
        """
        if self._shape is None:
            return Nothing()
        try:
            return self.checked(self._coercion.structure(self._shape, value))
        except RecursionError as error:  # a shape that holds itself
            raise SerializationFailed from error

    def checked(self, values: Mapping[str, Any]) -> Any:
        """The input as a struct, of values of the right types by member name.

        Raises:
            ValidationFailed: something breaks a constraint.
        """
        if self._shape is None:
            return Nothing()
        validate(self._shape, values)
        return self._structs.made(self._shape, values)
