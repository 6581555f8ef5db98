"""Jobs: what functions run once for somebody who waits: invocations, and parked entries that are sent again."""

from __future__ import annotations

import time

from kflow.broker.parked import ParkedStore
from kflow.lambda_.fleet import Replied, Request
from kflow.runtime import messages
from kflow.runtime.messages import DeathNote
from kflow.runtime.node.invocations import Invocations
from kflow.runtime.node.redriving import Answer, Redrives
from kflow.runtime.plan.places import Job


class Jobs:
    """Those that are under way. Belongs to the node's loop."""

    def __init__(self, parked: ParkedStore) -> None:
        self._invocations = Invocations()
        self._redrives = Redrives(parked)

    def invoke(self, request: Request, replied: Replied) -> Job:
        """An invocation; `replied` is called when it has come to its end."""
        return self._invocations.begin(request, replied)

    def redrive(self, number: int, trigger: int, answer: Answer) -> Job:
        """A parked entry that came by a trigger of its function; `answer` is called when it has been sent."""
        self._redrives.begin(number, answer)
        return Job(number, trigger, time.monotonic())

    def message(self, job: Job) -> messages.Invoke | messages.Redrive:
        """What a worker is told of it."""
        if job.trigger is None:
            return self._invocations.message(job.number)
        return messages.Redrive(job.number, job.trigger)

    def invoked(self, message: messages.Invoked) -> None:
        """A worker has run an invocation."""
        self._invocations.done(message)

    def redriven(self, message: messages.Redriven) -> None:
        """A worker has sent a parked entry."""
        self._redrives.done(message.number, message.error)

    def died(self, job: Job, death: DeathNote | None) -> None:
        """The worker died with it."""
        if job.trigger is None:
            self._invocations.died(job.number, death)
        else:
            self._redrives.died(job.number, death)

    def refuse(self, job: Job, why: str | None) -> None:
        """It gets no place any more; `why` None: because its function is no more."""
        if job.trigger is None:
            self._invocations.refuse(job.number, why)
        else:
            self._redrives.died(job.number, None)
