r"""The models' regular expressions are Java's; these are Python's.

A pattern must match the whole string. `\d`, `\w` and `\s` mean ASCII; `.` matches no kind of line end. Middle parts of
`a.*b.*c` are made atomic: the first `b` is as good as any later one, so a hostile value costs no more than its length
squared, and `LONGEST` bounds that.
"""

from __future__ import annotations

import logging
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Final

logger = logging.getLogger(__name__)

LONGEST: Final = 8192
"""Characters. A longer value is not matched at all where it breaks its maximum length anyway (chosen)."""

_DOT: Final = r"[^\n\r\x85\u2028\u2029]"
_POSIX: Final = {
    "ASCII": r"\x00-\x7f",
    "Alnum": "0-9A-Za-z",
    "Alpha": "A-Za-z",
    "Blank": r" \t",
    "Cntrl": r"\x00-\x1f\x7f",
    "Digit": "0-9",
    "Graph": "!-~",
    "Lower": "a-z",
    "Print": " -~",
    "Punct": r"!-/:-@\[-`{-~",
    "Space": r" \t\n\x0b\f\r",
    "Upper": "A-Z",
    "XDigit": "0-9A-Fa-f",
}
_CATEGORIES: Final = {
    "all": ("C", "L", "M", "N", "P", "S", "Z"),
    "IsAlphabetic": ("L", "Nl"),
    "LD": ("L", "Nd"),
    "IsWhitespace": ("Z",),
}
_PIECE = re.compile(
    r"\\[pP]\{\^?(?P<name>\w+)\}|\\[pP](?P<letter>\w)|\\x\{(?P<hex>[0-9A-Fa-f]+)\}|\\uD800\\uDC00-\\uDBFF\\uDFFF"
    r"|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\.|\{\d+(?:,\d*)?\}|.",
    re.DOTALL,
)
_FLAGS = re.compile(r"\(\?([is]+)\)")
_FIXED = re.compile(r"(?:\\[dDsSwW]|\\[^\w\s]|[^\\.*+?|(){}\[\]^$]|\[\^?(?:\\.|[^\\\]])+\]|\{\d+\})*")


def python_pattern(pattern: str) -> str | None:
    """The same as a pattern of Python's `re`, anchored at both ends; None: it cannot be said in Python's."""
    flags = ""
    if found := _FLAGS.match(pattern):
        flags, pattern = found[1], pattern[found.end() :]
    try:
        text = "".join(_pieces(pattern, _DOT if "s" not in flags else "."))
        text = rf"\A(?a{flags}:{_guarded(text)})\Z"
        compiled(text)
    except (re.error, OverflowError) as error:
        logger.debug("pattern is not checked pattern=%s why=%s", pattern, error)
        return None
    return text


@cache
def compiled(text: str) -> re.Pattern[str]:
    """What `python_pattern` gave, compiled once. AWS's patterns have odd classes that Python warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(text)


def _pieces(pattern: str, dot: str) -> Iterator[str]:
    in_class = False
    before = ""
    for match in _PIECE.finditer(pattern):
        piece = match[0]
        if name := match["name"] or match["letter"]:
            is_not = (piece[1] == "P") != ("{^" in piece)
            piece = _category(name, is_not)
            piece = piece if in_class else f"[{piece}]"
        elif match["hex"]:
            piece = re.escape(chr(int(match["hex"], 16)))
        elif piece.startswith(r"\uD800\u"):
            piece = r"\U00010000-\U0010ffff"
        elif piece == r"\z":
            piece = r"\Z"
        elif in_class:
            if piece == "]" and before not in {"[", "[^"}:
                in_class = False
            elif piece == "-" and before in {r"\w", r"\d", r"\s", r"\S", r"\W", r"\D"}:
                piece = r"\-"  # Java takes it as itself there
            elif piece == "[":
                piece = r"\["
        elif piece == "[":
            in_class = True
        elif piece == ".":
            piece = dot
        yield piece
        before = before + piece if before == "[" and piece == "^" else piece


def _guarded(text: str) -> str:
    """`x.*y.*z` as `x(?>.*?y).*z`, where y has but one way to match."""
    star = f"{_DOT}*"
    if "|" in re.sub(r"\([^()]*\)|\[[^\]]*\]", "", text):
        return text
    first, *rest = text.split(star)
    if len(rest) < 2 or not all(_FIXED.fullmatch(part) for part in rest[:-1]):
        return text
    return first + "".join(f"(?>{star}?{part})" for part in rest[:-1]) + star + rest[-1]


@cache
def _category(name: str, is_not: bool) -> str:
    """The inside of a class: characters of a Unicode category or a POSIX class, or all others."""
    if name in _POSIX:
        if not is_not:
            return _POSIX[name]
        inside = re.compile(f"[{_POSIX[name]}]")
        return "".join(_range(code, code) for code in range(128) if not inside.match(chr(code))) + r"\x80-\U0010ffff"
    wanted = _CATEGORIES.get(name, (name,))
    ranges = [_range(*run) for category, *run in _runs() if category.startswith(wanted) != is_not]
    if not ranges or (len(ranges) == len(_runs()) and name != "all"):
        raise re.error(f"unknown class {name}")
    return "".join(ranges)


@cache
def _runs() -> list[tuple[str, int, int]]:
    """Categories of all characters, and where each run of one begins and ends: 20 ms, where a pattern needs them.

    Planes 4 to 13 have no characters, 15 and 16 are for private use.
    """
    runs: list[tuple[str, int, int]] = []
    for start, end in ((0, 0x3_FFFF), (0xE_0000, 0xE_0FFF)):
        at = start
        for category, group in groupby(map(unicodedata.category, map(chr, range(start, end + 1)))):
            length = sum(1 for _ in group)
            runs.append((category, at, at + length - 1))
            at += length
    return [*runs, ("Cn", 0x4_0000, 0xD_FFFF), ("Cn", 0xE_1000, 0xE_FFFF), ("Co", 0xF_0000, sys.maxunicode)]


def _range(first: int, last: int) -> str:
    return f"\\U{first:08x}-\\U{last:08x}"
