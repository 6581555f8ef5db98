"""Where a queue is asked: a desk that knows of news by watching the open shards of its stream."""

from __future__ import annotations

from collections.abc import Callable

from kflow import desk
from kflow.desk import Asked
from kflow.errors import KflowError
from kflow.kinesis.host import Host, Watch
from kflow.kinesis.queues.asking import Ask, Entry, Receive, Received, Reply, Settle, Terms, Verb
from kflow.kinesis.queues.turns import Turns


class Desk(desk.Desk[Terms, Ask, Reply]):
    """One queue's. Belongs to the loop's thread.

    Args:
        host: loop and threads.
        opened: opens the queue's files; in a thread.
        terms: what holds now; raises where the queue does not serve.
    """

    _host: Host

    def __init__(self, host: Host, opened: Callable[[], Turns], terms: Callable[[], Terms]) -> None:
        def watched() -> Terms:
            held = terms()
            self._watch(held)
            return held

        super().__init__(host, opened, watched, [])
        self._watches: dict[int, Watch] = {}

    def _reply(self, asked: Asked[Ask], reply: Reply | KflowError) -> None:
        if isinstance(reply, KflowError) or not isinstance(asked.ask, Receive):
            asked.tell(reply)
        else:
            self._received(asked, reply, is_something=bool(reply))

    def _back(self, reply: Reply) -> Ask | None:
        entries = [Entry(each.delivery) for each in reply if isinstance(each, Received)]
        return Settle(Verb.GIVE_BACK, entries, entries[0].delivery.dead) if entries else None

    def _watch(self, terms: Terms) -> None:
        """Before anything is read, so that nothing is missed: appends to all open shards are news."""
        stream = terms.stream
        there = {shard.index for shard in stream.shards if shard.is_open}
        for index in there - self._watches.keys():
            self._watches[index] = self._host.watch(stream, index, self.changed)
        for index in self._watches.keys() - there:
            self._watches.pop(index).close()

    def _rest(self) -> None:
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()
        super()._rest()
