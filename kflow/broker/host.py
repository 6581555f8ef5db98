"""What all engines that keep something need of whoever hosts them: the node."""

from __future__ import annotations

from typing import Protocol

from kflow.broker.folder import DataFolder
from kflow.interfaces import Loop


class Host(Loop, Protocol):
    """Everything here belongs to the loop's thread, and never waits for a disk.

    Attributes:
        folder: the data folder.
    """

    folder: DataFolder

    def notice(self, level: str, text: str) -> None:
        """Tell people something."""
        ...
