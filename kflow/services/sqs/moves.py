"""Operations on message move tasks: dead letters go back."""

from __future__ import annotations

from typing import Any, Final

from kflow.aws.calls import LATER, Answer, Call
from kflow.errors import KflowError
from kflow.services.answering import answering
from kflow.services.sqs.parts import Base, operation
from kflow.sqs import limits
from kflow.sqs.attributes import parse_arn
from kflow.sqs.directory import Queue
from kflow.sqs.errors import InvalidParameterValue, MissingParameter, ResourceNotFound, invalid
from kflow.sqs.facts import Move

_KIND: Final = b"move"


class Moves(Base):
    """Operations on message move tasks."""

    @operation
    def start_message_move_task(self, call: Call, given: Any) -> Answer:
        """Source: documented: StartMessageMoveTask; recorded: the texts, but those marked below."""
        source = self._source(given.SourceArn)
        target = given.DestinationArn or ""
        if not self.directory.sources_of(source):
            raise InvalidParameterValue("Source queue must be configured as a Dead Letter Queue.")
        if target:
            self._check_target(source, target)
        rate = given.MaxNumberOfMessagesPerSecond
        if rate is not None and not 1 <= rate <= limits.MOVED_A_SECOND:  # chosen: the text
            reason = f"Must be between 1 and {limits.MOVED_A_SECOND}, if provided."
            raise invalid(rate, "MaxNumberOfMessagesPerSecond", reason)
        if self.moving.running(source) is not None:
            raise InvalidParameterValue(
                "There is already a task running. Only one active task is allowed for a source queue arn at a given "
                "time."
            )

        def told(move: Move | KflowError) -> None:
            answering(call, lambda made: {"TaskHandle": self._handle(source, made)})(move)

        self.moving.start(source, target, rate or 0, told)
        return LATER

    @operation
    def list_message_move_tasks(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListMessageMoveTasks: the newest first, ten at most, one where nothing is said."""
        del call
        source = self._source(given.SourceArn)
        most = 1 if given.MaxResults is None else given.MaxResults
        if not 1 <= most <= limits.MOVES_SHOWN:
            raise invalid(most, "MaxResults", f"Value for parameter must be between 1 and {limits.MOVES_SHOWN}.")
        return {"Results": [self._task(source, each) for each in source.facts.moves[:most]]}

    @operation
    def cancel_message_move_task(self, call: Call, given: Any) -> Answer:
        """Source: documented: CancelMessageMoveTask; chosen: the texts."""
        if not given.TaskHandle:
            raise MissingParameter("TaskHandle")
        said = self.receipts.open(_KIND, given.TaskHandle)
        if said is None:
            raise invalid(given.TaskHandle, "TaskHandle", "It is no handle of a task.")
        move_id, _, arn = said.decode().partition(" ")
        source = self.directory.by_arn(arn)
        move = None if source is None else next((each for each in source.facts.moves if each.id == move_id), None)
        if source is None or move is None:
            raise ResourceNotFound("Task does not exist.")
        if move.status != "RUNNING":
            raise InvalidParameterValue("Only active tasks can be cancelled.")
        self.moving.cancel(source, move, answering(call, lambda _: {"ApproximateNumberOfMessagesMoved": move.moved}))
        return LATER

    # ------------------------------------------------------------------ inside

    def _source(self, arn: str | None) -> Queue:
        if not arn:
            raise MissingParameter("SourceArn")
        if parse_arn(arn) is None:
            raise InvalidParameterValue(
                "You must use this format to specify the SourceArn: arn:aws:sqs:region:account:queue"
            )
        queue = self.directory.by_arn(arn)
        if queue is None:
            raise ResourceNotFound("The resource that you specified for the SourceArn parameter doesn't exist.")
        return queue

    def _check_target(self, source: Queue, arn: str) -> None:
        found = self.directory.by_arn(arn)
        if found is None:
            raise ResourceNotFound("The resource that you specified for the DestinationArn parameter doesn't exist.")
        if found is source:  # chosen: the text
            raise InvalidParameterValue("Source queue arn and destination queue arn cannot be the same.")
        if found.facts.is_fifo is not source.facts.is_fifo:  # chosen: the text
            raise InvalidParameterValue("Source queue and destination queue must be of the same type.")

    def _handle(self, source: Queue, move: Move) -> str:
        return self.receipts.close(_KIND, f"{move.id} {source.arn}".encode())

    def _task(self, source: Queue, move: Move) -> dict[str, Any]:
        return {
            "TaskHandle": self._handle(source, move) if move.status == "RUNNING" else None,
            "Status": move.status,
            "SourceArn": source.arn,
            "DestinationArn": move.target or None,
            "MaxNumberOfMessagesPerSecond": move.rate or None,
            "ApproximateNumberOfMessagesMoved": move.moved,
            "ApproximateNumberOfMessagesToMove": move.found,
            "FailureReason": move.reason or None,
            "StartedTimestamp": move.started_ms,
        }
