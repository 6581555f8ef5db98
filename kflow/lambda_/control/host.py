"""What functions as resources need of whoever hosts them: the node."""

from __future__ import annotations

from typing import Protocol

from kflow.broker import host


class Host(host.Host, Protocol):
    """Everything here belongs to the loop's thread, and never waits for a disk.

    Attributes:
        transition_s: how long visible transitions take, seconds.
    """

    transition_s: float
