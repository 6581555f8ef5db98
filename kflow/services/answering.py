"""How calls are answered that wait: for a disk, for an engine, for another service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kflow.aws.calls import Call, Output
from kflow.errors import KflowError


def answering(call: Call, output: Callable[[Any], Output] = lambda _: None) -> Callable[[Any], None]:
    """For whoever is told what something came to: answers the call then, or refuses it with the error that came of it.

    Args:
        call: which was answered `LATER`.
        output: of the result; what it raises refuses nothing, so it does not raise.
    """

    def told(result: Any) -> None:
        if isinstance(result, KflowError):
            call.refuse(result)
        else:
            call.answer(output(result))

    return told
