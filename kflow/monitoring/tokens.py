"""The tokens of an expression, taken one after the other by whoever parses it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_SIGNS: Final = {"sign", "name"}


class Token(NamedTuple):
    """One of them.

    Attributes:
        kind: name of the group of the pattern that found it.
        text: what it is; without what the group leaves out, as quotes.
    """

    kind: str
    text: str


class Tokens:
    """Those of a text.

    Args:
        text: what is parsed.
        pattern: of one token, with a named group a kind; those that `takes` looks for are a `sign` or a `name`.
        invalid: makes the error that says why the text is none.
    """

    def __init__(self, text: str, pattern: re.Pattern[str], invalid: Callable[[str], Exception]) -> None:
        self._invalid = invalid
        self._tokens: list[Token] = []
        self._next = 0
        at = 0
        text = text.rstrip()
        while at < len(text):
            found = pattern.match(text, at)
            if found is None or found.lastgroup is None:
                raise invalid(f"cannot be read at {text[at : at + 20]!r}")
            self._tokens.append(Token(found.lastgroup, found[found.lastgroup]))
            at = found.end()

    def peek(self) -> Token:
        """The next one, which stays; one of no kind at the end."""
        return self._tokens[self._next] if self._next < len(self._tokens) else Token("", "")

    def take(self) -> Token:
        """The next one; raises at the end."""
        if self._next == len(self._tokens):
            raise self._invalid("it ends too soon")
        self._next += 1
        return self._tokens[self._next - 1]

    def takes(self, sign: str) -> bool:
        """Whether the next one is this sign, which is taken then."""
        kind, text = self.peek()
        if text == sign and kind in _SIGNS:
            self._next += 1
            return True
        return False

    def end(self) -> None:
        """Raises where any is left."""
        if self._next < len(self._tokens):
            raise self._invalid(f"nothing belongs before {self._tokens[self._next].text!r}")
