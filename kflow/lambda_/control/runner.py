"""What event source mappings need of whoever runs them: the node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kflow.declarations import QueueTrigger, StreamTrigger
from kflow.errors import KflowError
from kflow.interfaces import Done
from kflow.lambda_.control.mappingfacts import Mapping


@dataclass(frozen=True, slots=True)
class Declared:
    """A trigger of a decorated handler.

    Attributes:
        function: the handler's name.
        index: of the trigger; of a queue's -1, -2 and so on.
        trigger: as its decorator has it, but for `enabled`, which says how it is now.
        source: ARN that its events name.
        enabled: as its decorator has it.
    """

    function: str
    index: int
    trigger: StreamTrigger | QueueTrigger
    source: str
    enabled: bool


class Runner(Protocol):
    """Runs mappings. Everything here belongs to the loop's thread."""

    def check(self, mapping: Mapping, told: Done) -> None:
        """Whether its source is there and may be read by it; the error is in AWS's words."""
        ...

    def create(self, mapping: Mapping, told: Done) -> None:
        """Have its position from now on, durably; and run it, where it is enabled."""
        ...

    def resume(self, mapping: Mapping) -> None:
        """At the start, for one that is kept: run it, unless that was done while the node was set up."""
        ...

    def change(self, before: Mapping, after: Mapping, told: Done) -> None:
        """Go on after the last settled record with other options, or another function; or pause, or go on.

        Told when nothing runs any more that is as it was before.
        """
        ...

    def remove(self, mapping: Mapping, told: Done) -> None:
        """End it, after the running attempt, and forget where it stood."""
        ...

    def results(self, mappings: Sequence[Mapping], told: Callable[[list[str] | KflowError], object]) -> None:
        """What became of the last batch of each: `ok`, `failed`; empty: there was none."""
        ...

    def declared(self) -> Sequence[Declared]:
        """The triggers of all decorated handlers."""
        ...

    def switch(self, function: str, index: int, *, enabled: bool, told: Done) -> None:
        """Have a decorated handler's trigger run or not."""
        ...
