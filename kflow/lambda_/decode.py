"""From a record's bytes to the `T` of `Record[T]`: the way back of what `put` encodes.

`bytes` is the payload itself and `str` its UTF-8 text; everything else is JSON: decoded strictly by msgspec for what it
knows (dataclass, `TypedDict`, `Struct`, builtins), by Pydantic's `TypeAdapter` for its models, as strict as those are.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import msgspec

from kflow.errors import UsageError

Decode = Callable[[bytes], Any]


def decoder(value_type: Any) -> Decode:
    """A function that decodes payloads to `value_type`; made once, called for each record.

    For what does not decode it raises `msgspec.DecodeError`, `pydantic.ValidationError` or `UnicodeDecodeError`.

    Raises:
        UsageError: nothing decodes JSON to this type.
        NameError: the type mentions a name that does not exist (yet).
    """
    if value_type is bytes:
        return bytes
    if value_type is str:
        return _text
    if _has_pydantic(value_type):
        # A Pydantic model can only be there if Pydantic is; kflow itself does not need it.
        from pydantic import TypeAdapter  # type: ignore[import-not-found, unused-ignore]  # not a dependency

        validate: Decode = TypeAdapter(value_type).validate_json
        return validate
    try:
        _refuse_custom(msgspec.inspect.type_info(value_type))
        return msgspec.json.Decoder(value_type, strict=True).decode
    except TypeError as error:
        raise UsageError(
            f"JSON cannot be decoded to `{type_name(value_type)}` ({error}): use a dataclass, a TypedDict, a "
            "msgspec.Struct, a Pydantic model or a builtin type"
        ) from error


def type_name(value_type: Any) -> str:
    """The type as an author writes it."""
    return value_type.__name__ if isinstance(value_type, type) else str(value_type)


def _text(data: bytes) -> str:
    return data.decode()


def _has_pydantic(value_type: Any) -> bool:
    if hasattr(value_type, "__pydantic_validator__"):
        return True
    return any(_has_pydantic(argument) for argument in typing.get_args(value_type))


def _refuse_custom(info: msgspec.inspect.Type) -> None:
    """A class that msgspec does not know is accepted when the decoder is made, and fails for every record.

    Looked for as deep as containers go; fields of dataclasses are their author's.
    """
    if isinstance(info, msgspec.inspect.CustomType):
        raise TypeError(f"msgspec does not know `{type_name(info.cls)}`")
    for name in ("item_type", "key_type", "value_type", "item_types", "types"):
        inner = getattr(info, name, ())
        for each in inner if isinstance(inner, tuple) else (inner,):
            if isinstance(each, msgspec.inspect.Type):
                _refuse_custom(each)
