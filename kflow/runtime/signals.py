"""Signals are noted in the handler and acted on in the loop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from kflow.runtime.node.node import Node

INTERRUPTED = 130
"""Exit code where Ctrl-C ended the work."""


class Starting:
    """Ctrl-C while a runtime is set up: it interrupts as ever, and is remembered.

    Python raises it wherever it comes, also where nothing is done with it (a finalizer) or another error is made of it
    (an import, a clean-up): a runtime that was interrupted does not start all the same, and says nothing of what
    followed.

    Attributes:
        is_interrupted: whether it came.
    """

    def __init__(self) -> None:
        self.is_interrupted = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)
        if error is not None and self.is_interrupted and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error

    def _interrupted(self, signum: int, frame: FrameType | None) -> None:
        self.is_interrupted = True
        signal.default_int_handler(signum, frame)


class Signals:
    """What this process does with signals while a node runs in it; `restore` before the loop is closed."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def install(self, node: Node, starting: Starting) -> None:
        """From here on: Ctrl-C and SIGTERM stop the node, politely first; SIGCHLD makes it look for its children."""

        def interrupted() -> None:
            node.code = INTERRUPTED
            node.request_stop("Ctrl-C")

        self._set(signal.SIGINT, _in_loop(node, interrupted))
        self._set(signal.SIGTERM, _in_loop(node, lambda: node.request_stop("SIGTERM")))
        self._set(signal.SIGCHLD, _in_loop(node, node.supervisor.reap))
        self._set(signal.SIGPIPE, signal.SIG_IGN)
        if starting.is_interrupted:
            node.loop.call_soon(interrupted)

    def restore(self) -> None:
        """As it was before `install`."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()

    def _set(self, signum: int, handler: Any) -> None:
        self._before[signum] = signal.signal(signum, handler)


def _in_loop(node: Node, call: Callable[[], object]) -> Callable[[int, FrameType | None], None]:
    def handler(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        node.loop.call_soon_threadsafe(call)

    return handler
