"""What a shape of records reads of a block of the log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Block:
    """Payloads and partition keys, from a counter on, of one time of arrival."""

    datas: list[bytes]
    keys: list[str]
    arrival_ms: int = 1_700_000_000_123
    first_counter: int = 7

    @property
    def count(self) -> int:
        return len(self.datas)

    def columns(self):
        return self.datas, self.keys
