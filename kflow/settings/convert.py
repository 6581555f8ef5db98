"""A value in its setting's type: from TOML, where text is text, or from a variable or flag, where text spells it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kflow.errors import UsageError
from kflow.settings.table import Setting


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the nearest known name, or the empty text."""
    import difflib  # only ever needed to word an error

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean `{found[0]}`?" if found else ""


def not_built(spelled: str) -> NoReturn:
    """Refuse what a later version will honour."""
    raise UsageError(f"{spelled} is not built yet in this version of kflow: take it out")


def convert(setting: Setting, value: Any, spelled: str, origin: str) -> Any:
    """The value in the setting's type; UsageError with the range where it does not fit.

    A variable or a flag is text that spells its value; in a file, text is text.
    """
    if isinstance(value, str) and not origin.endswith(".toml"):
        converted = _parsed(setting, value)
    else:
        converted = _typed(setting.type, value)
    fits = converted is not None
    if fits and setting.choices:
        fits = converted in setting.choices
    if fits and setting.pattern:
        fits = re.fullmatch(setting.pattern, converted) is not None
    if fits and setting.minimum is not None and setting.maximum is not None:
        fits = setting.minimum <= converted <= setting.maximum
    if not fits:
        close = nearest(value, setting.choices) if isinstance(value, str) and setting.choices else ""
        raise UsageError(f"{spelled} must be {setting.expected}, not {value!r}{close}")
    return converted


def _parsed(setting: Setting, text: str) -> Any:
    """What `text` spells as a value of the setting; None where it spells none."""
    kind = setting.type
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return None
    if kind is list:
        return [part.strip() for part in text.split(setting.separator) if part.strip()]
    return _typed(kind, text)


def _typed(kind: type, value: Any) -> Any:
    """`value` as a `kind`; None where it is none."""
    if kind is list:
        texts = isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, str) for v in value)
        return list(value) if texts else None
    if kind is dict:
        texts = isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())
        return dict(value) if texts else None
    if kind is Path:
        return value if isinstance(value, (str, Path)) and str(value) else None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is kind else None
