"""How a change of shards is shown, of a stream here or elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from kflow.broker.sequence import shard_index
from kflow.cli.arguments import Arguments
from kflow.cli.terminal import Terminal, count

_NAMED = 6
"""More shards than this are not named one by one."""


def show(
    arguments: Arguments,
    terminal: Terminal,
    *,
    stream: str,
    closed: Sequence[str],
    opened: Sequence[str],
    open_shards: int,
) -> int:
    """Say what became of a stream's shards: ids of those that were closed and opened, and how many are open."""
    done = {"stream": stream, "closed": list(closed), "opened": list(opened), "open_shards": open_shards}
    text = f"{stream}: {_numbers(closed)} -> {_numbers(opened)}, {count(open_shards, 'open shard')}"
    terminal.answer(text, done, json=arguments.json)
    return 0


def _numbers(ids: Sequence[str]) -> str:
    """Shards in few words: `shard 3`, `shards 0, 1`, `shards 0 to 499`, `shards 0, 1, 7 … 91`."""
    numbers = [shard_index(each) for each in ids]
    head = "shard " if len(numbers) == 1 else "shards "
    if len(numbers) > _NAMED and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{head}{numbers[0]} to {numbers[-1]}"
    if len(numbers) > _NAMED:
        return head + ", ".join(map(str, numbers[: _NAMED - 1])) + f" … {numbers[-1]}"
    return head + ", ".join(map(str, numbers))
