"""How many files a node may have open: as many as the system lets it, and shards in proportion."""

from __future__ import annotations

import resource
from typing import Final

_MOST: Final = 1 << 16
"""More would only make tables larger; some systems say that there is no limit at all."""
_OTHERS: Final = 512
"""Sockets of producers and workers, locks, logs, and what a sync or a look at retention opens meanwhile."""
_MOST_SHARDS: Final = 4_096
_FEWEST_SHARDS: Final = 64
_MOST_ENGINES: Final = 1_024
"""Engines that a worker keeps: 10 kB each."""
_FEWEST_ENGINES: Final = 64


def raise_limit() -> int:
    """Raise the soft limit of this process, and of those it starts, as far as it may. Returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS has a second limit, which it does not tell: then the old one stays
        return soft
    return wanted


def open_shards(limit: int) -> int:
    """How many shards to keep open for appending: each takes two descriptors, and twice that in a segment's roll.

    Where the limit is ample, all of a large stream: then an append opens nothing, however many shards there are. Where
    it is not, few: connections and readers take descriptors too.
    """
    return max(_FEWEST_SHARDS, min(_MOST_SHARDS, (limit - _OTHERS) // 4))


def connections(limit: int) -> int:
    """How many connections the endpoint may hold: what is left beside the open shards, two descriptors each.

    A quarter at least: where there are few descriptors, few folders have so many shards.
    """
    return max(limit // 4, limit - _OTHERS - 2 * open_shards(limit))


def kept_engines() -> int:
    """How many engines a worker keeps between grants; a shard of them takes two descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MOST if soft == resource.RLIM_INFINITY else soft
    return max(_FEWEST_ENGINES, min(_MOST_ENGINES, (limit - _OTHERS) // 4))
