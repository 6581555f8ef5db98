"""Signals are noted in the handler and acted on in the loop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from kflow.runtime.node.node import Node

INTERRUPTED = 130
"""Exit code where Ctrl-C ended the work."""


class Signals:
    """What this process does with signals while a node runs in it; `restore` before the loop is closed."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def install(self, node: Node) -> None:
        """From here on: Ctrl-C and SIGTERM stop the node, politely first; SIGCHLD makes it look for its children."""

        def interrupted() -> None:
            node.code = INTERRUPTED
            node.request_stop("Ctrl-C")

        self._set(signal.SIGINT, _in_loop(node, interrupted))
        self._set(signal.SIGTERM, _in_loop(node, lambda: node.request_stop("SIGTERM")))
        self._set(signal.SIGCHLD, _in_loop(node, node.supervisor.reap))
        self._set(signal.SIGPIPE, signal.SIG_IGN)

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
