"""Amazon SQS, put together.

A method translates and decides nothing: the engines of `kflow.sqs` do. It is called on the loop with the call and its
input, and answers at once or later (`kflow.aws.calls`). What an input must hold is checked by the engines too: AWS's
model of SQS has no constraint but which members are required, and says that in other words than SQS does.
"""

from __future__ import annotations

from collections.abc import Callable

from kflow.services.sqs.messages import Messages
from kflow.services.sqs.moves import Moves
from kflow.services.sqs.queues import Queues

__all__ = ["Sqs"]


class Sqs(Messages, Queues, Moves):
    """All operations. Belongs to the loop's thread."""

    service_name = "sqs"

    def clear(self, then: Callable[[], object]) -> None:
        """Delete all queues; calls back when nothing of them is left."""
        self.directory.when_loaded(lambda _: self.directory.clear(then))

    def close(self, then: Callable[[], object]) -> None:
        """Answer who waits with nothing, and close all files; calls back then."""
        self.moving.stop()
        self.directory.close(then)
