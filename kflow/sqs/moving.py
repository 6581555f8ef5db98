"""Message move tasks: dead letters go back to where they came from, or elsewhere, at a rate.

    started --take some--> set aside --accepted in the other queue--> dropped --> take some ...
                |  none left: COMPLETED                 +--it cannot be: back in their place, FAILED

Each step is kept with the source queue, so a task goes on where it was after a kill; a message may then come twice.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from kflow.broker.host import Host
from kflow.broker.messagequeues import Counts, Message
from kflow.errors import KflowError
from kflow.sqs import limits
from kflow.sqs.asking import Count, Received, Take
from kflow.sqs.directory import Directory, Queue
from kflow.sqs.facts import Move
from kflow.sqs.turns import source_of

log = logging.getLogger(__name__)

_STEP: Final = 100
"""So many messages are moved at a time."""
_NO_QUEUE: Final = "AWS.SimpleQueueService.NonExistentQueue"
_NO_SOURCE: Final = "CouldNotDetermineMessageSource"


class Moving:
    """All tasks. Belongs to the loop's thread."""

    def __init__(self, host: Host, directory: Directory) -> None:
        self._host = host
        self._directory = directory
        self._is_over = False

    def resume(self) -> None:
        """Go on with what a stop or a kill interrupted."""
        for queue in self._directory.everywhere():
            running = self.running(queue)
            if running is not None:
                self._step(queue, running.id)

    def stop(self) -> None:
        """Take no more steps; the next start resumes them."""
        self._is_over = True

    def running(self, queue: Queue) -> Move | None:
        """The task whose source a queue is, while it runs; None: there is none."""
        return next((each for each in queue.facts.moves if each.status == "RUNNING"), None)

    def start(self, queue: Queue, target: str, rate: int, told: Callable[[Move | KflowError], object]) -> None:
        """Start a task; `told` is told when it is kept.

        Args:
            queue: its source.
            target: ARN of where messages go; empty: each to the queue that it came from.
            rate: messages a second; 0: as fast as it goes.
            told: told the task, or why it was not started.
        """

        def counted(reply: Any) -> None:
            if isinstance(reply, KflowError):
                told(reply)
                return
            assert isinstance(reply, Counts)
            move = Move(
                id=uuid.uuid4().hex[:16], target=target, rate=rate, started_ms=self._host.now_ms(), found=reply.visible
            )
            moves = (move, *queue.facts.moves)[: limits.MOVES_SHOWN]
            changed = msgspec.structs.replace(queue.facts, moves=moves)
            self._directory.change(queue, changed, lambda failure: kept(failure, move))

        def kept(failure: KflowError | None, move: Move) -> None:
            told(move if failure is None else failure)
            if failure is None:
                self._step(queue, move.id)

        queue.desk.ask(Count(), counted)

    def cancel(self, queue: Queue, move: Move, told: Callable[[KflowError | None], object]) -> None:
        """Move no more messages; what is on its way arrives."""
        self._set(queue, move.id, told, status="CANCELLED")

    # ------------------------------------------------------------------ inside

    def _find(self, queue: Queue, move_id: str) -> Move | None:
        """The task, while it runs and its queue is there."""
        if self._is_over or self._directory.by_arn(queue.arn) is not queue:
            return None
        running = self.running(queue)
        return running if running is not None and running.id == move_id else None

    def _step(self, queue: Queue, move_id: str) -> None:
        move = self._find(queue, move_id)
        if move is not None:
            some = min(_STEP, move.rate or _STEP)
            queue.desk.ask(Take(some), lambda reply: self._took(queue, move_id, reply))

    def _took(self, queue: Queue, move_id: str, reply: Received | KflowError) -> None:
        move = self._find(queue, move_id)
        if move is None:
            if isinstance(reply, Received) and reply.aside:
                self._directory.bring(queue, reply.aside, None, lambda _: None)
        elif isinstance(reply, KflowError):
            log.warning("a move task waits queue=%s error=%s", queue.facts.name, reply)
            self._host.call_later(1, lambda: self._step(queue, move_id))
        elif not reply.aside:
            self._set(queue, move_id, lambda _: None, status="COMPLETED")
        else:
            self._bring(queue, move, list(_by_target(move, reply.aside)), 0)

    def _bring(self, queue: Queue, move: Move, left: list[tuple[str, list[Message]]], moved: int) -> None:
        """Bring what was taken, one target after the other."""
        if not left:
            self._stepped(queue, move, moved, "")
            return
        target, messages = left.pop(0)

        def over(is_there: bool) -> None:
            if is_there:
                self._bring(queue, move, left, moved + len(messages))
                return
            for _, rest in left:
                self._directory.bring(queue, rest, None, lambda _: None)
            self._stepped(queue, move, moved, _NO_QUEUE if target else _NO_SOURCE)

        self._directory.bring(queue, messages, self._directory.by_arn(target) if target else None, over)

    def _stepped(self, queue: Queue, move: Move, moved: int, reason: str) -> None:
        now = next((each for each in queue.facts.moves if each.id == move.id), move)
        changes: dict[str, Any] = {"moved": now.moved + moved}
        if reason and now.status == "RUNNING":
            changes |= {"status": "FAILED", "reason": reason}
        seconds = moved / move.rate if move.rate else 0

        def kept(failure: KflowError | None) -> None:
            del failure  # the next step tries again
            self._host.call_later(seconds, lambda: self._step(queue, move.id))

        self._set(queue, move.id, kept, **changes)

    def _set(self, queue: Queue, move_id: str, told: Callable[[KflowError | None], object], **changes: Any) -> None:
        moves = tuple(
            msgspec.structs.replace(each, **changes) if each.id == move_id else each for each in queue.facts.moves
        )
        self._directory.change(queue, msgspec.structs.replace(queue.facts, moves=moves), told)


def _by_target(move: Move, messages: Sequence[Message]) -> list[tuple[str, list[Message]]]:
    """Messages by the ARN of where they go; empty: nobody knows."""
    found: dict[str, list[Message]] = {}
    for each in messages:
        found.setdefault(move.target or source_of(each), []).append(each)
    return list(found.items())
