"""AWS's numbers for SQS. Source: documented: Amazon SQS quotas and API reference, where nothing else is said."""

from __future__ import annotations

from typing import Final

MESSAGE_BYTES: Final = 1_048_576
"""The longest message, and the longest batch in all."""
BATCH: Final = 10
"""Entries of a batch, and messages of a receive."""
ATTRIBUTES: Final = 10
"""Attributes of a message."""
VISIBILITY_S: Final = 43_200
DELAY_S: Final = 900
WAIT_S: Final = 20
DEDUPLICATION_MS: Final = 5 * 60 * 1000
IN_FLIGHT: Final = 120_000
PURGE_MS: Final = 60_000
TAGS: Final = 50
PAGE: Final = 1000
RECEIVES: Final = 1000
"""The highest `maxReceiveCount`."""
SOURCES: Final = 10
"""Queues that a redrive allow policy names."""
MOVES_SHOWN: Final = 10
MOVED_A_SECOND: Final = 500
SEQUENCE: Final = 18 * 10**18
"""Sequence numbers have twenty digits: a message's number in its queue, on top of this. Chosen."""
