"""The services without a node: made for one call, in this process, under the writer's lock.

    lock --> services over the log --> what a killed node left is finished --> the call --> files closed --> unlock

There is no loop: what would happen in later rounds happens before the call returns, visible transitions take no time,
and who would wait for records to come is answered with none.
"""

from __future__ import annotations

import functools
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kflow import limits
from kflow.aws import models
from kflow.aws.calls import Context
from kflow.aws.dispatch import Dispatcher, Open
from kflow.aws.shapes import Model
from kflow.broker.attributes import Attributes
from kflow.broker.encode import Part
from kflow.broker.folder import DataFolder
from kflow.broker.forgetting import forget
from kflow.broker.log import Log
from kflow.broker.resharding import carry_out
from kflow.broker.reshardplan import planner
from kflow.broker.streammap import StreamMap, StreamMode
from kflow.errors import InternalError, KflowError
from kflow.kinesis.host import PutResult, Stored, Told
from kflow.kinesis.registry import Registry
from kflow.services.kinesis.parts import Parts
from kflow.services.kinesis.service import Kinesis

log = logging.getLogger(__name__)

T = TypeVar("T")
News = Callable[[], object]


@functools.cache
def model(folder: Path) -> Model:
    """The model of Kinesis; its digest is kept in the data folder, where there is one."""
    return models.load("kinesis", cache=folder / "models" if folder.is_dir() else None)


class Turn:
    """Something to be called. `kflow.interfaces.Cancellable`.

    Attributes:
        due_s: when, monotonic.
        call: what.
    """

    __slots__ = ("call", "due_s", "is_cancelled")

    def __init__(self, due_s: float, call: Callable[[], object]) -> None:
        self.due_s = due_s
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        """Do not call it."""
        self.is_cancelled = True


class Watch:
    """One reader's interest in a shard."""

    def __init__(self, watches: list[Watch], stream_id: int, shard: int, news: News) -> None:
        self.stream_id = stream_id
        self.shard = shard
        self.news = news
        self._watches = watches
        watches.append(self)

    def close(self) -> None:
        """Tell no more."""
        if self in self._watches:
            self._watches.remove(self)


class LoneHost:
    """A `kflow.kinesis.host.Host` over a log, for whoever holds its lock; without a log it only reads.

    Attributes:
        registry: told of maps; set once it is made.
        turns: what is to be called now.
        later: what is to be called when its time has come, by whoever waits for it.
        watches: who wants to know of news.
    """

    transition_s = 0.0

    def __init__(self, folder: DataFolder, store: Log | None) -> None:
        self.folder = folder
        self.turns: deque[Turn] = deque()
        self.later: list[Turn] = []
        self.watches: list[Watch] = []
        self.registry: Registry
        self._log = store
        self._streams = {stream.id: stream for stream in folder.live_maps()}
        self._operations: dict[str, Callable[..., None]] = {
            "create_stream": self._create,
            "alter_stream": self._alter,
            "delete_stream": self._delete,
            "split": functools.partial(self._reshard, "split"),
            "merge": functools.partial(self._reshard, "merge"),
            "scale": functools.partial(self._reshard, "scale"),
        }

    @property
    def store(self) -> Log:
        """The log."""
        assert self._log is not None, "whoever writes holds the lock"
        return self._log

    def run(self) -> None:
        """Call all that is due now, and what comes of it."""
        while self.turns:
            turn = self.turns.popleft()
            if not turn.is_cancelled:
                turn.call()

    def promote(self) -> bool:
        """Have called what has become due; whether there is any."""
        now_s = time.monotonic()
        kept = [turn for turn in self.later if not turn.is_cancelled]
        due = sorted((turn for turn in kept if turn.due_s <= now_s), key=lambda turn: turn.due_s)
        self.later = [turn for turn in kept if turn.due_s > now_s]
        self.turns.extend(due)
        return bool(due)

    # ------------------------------------------------------------------ Host

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def call_later(self, seconds: float, call: Callable[[], object]) -> Turn:
        """Call once; what is not due at once is left to whoever has the time."""
        turn = Turn(time.monotonic() + seconds, call)
        if seconds <= 0:
            self.turns.append(turn)
        else:
            self.later.append(turn)
        return turn

    def submit(self, work: Callable[[], T], then: Callable[[T | KflowError], object]) -> None:
        """Do file work, here; `then` is called in its turn."""
        result: T | KflowError
        try:
            result = work()
        except KflowError as error:
            result = error
        except Exception as error:
            log.exception("work failed")
            result = InternalError(f"{type(error).__name__}: {error}; please report it")
        self.call_later(0, lambda: then(result))

    def at_once(self, work: Callable[[], T], then: Callable[[T | KflowError], object]) -> None:
        """Do work, here as all of it."""
        self.submit(work, then)

    def put(
        self, stream: StreamMap, parts: Sequence[Part], done: Callable[[list[PutResult]], object]
    ) -> list[PutResult]:
        """Append the parts of one call."""
        del done
        answers = self.store.append_each(stream, parts)
        return [answer if isinstance(answer, KflowError) else Stored(*answer) for answer in answers]

    def stream_by_id(self, stream_id: int) -> StreamMap | None:
        """The current map of a stream; None where it is gone."""
        return self._streams.get(stream_id)

    def streams(self) -> Sequence[StreamMap]:
        """The current maps of all streams of all places."""
        return list(self._streams.values())

    def watch(self, stream: StreamMap, shard: int, news: News) -> Watch:
        """Have `news` called by whoever looks."""
        return Watch(self.watches, stream.id, shard, news)

    def administrate(self, told: Told, operation: str, **arguments: Any) -> None:
        """Have a stream made, deleted or changed."""
        self.submit(lambda: self._operations[operation](**arguments), told)

    def notice(self, level: str, text: str) -> None:
        """Log it: there is nobody else to tell."""
        log.log(logging.INFO if level == "info" else logging.WARNING, "%s", text)

    # ------------------------------------------------------------------ streams

    def moved(self, stream: StreamMap) -> None:
        """There is a new map of a stream; or the last one, marked deleted."""
        if stream.deleted:
            self._streams.pop(stream.id, None)
        else:
            self._streams[stream.id] = stream
        self.registry.moved(stream)

    def lost(self, stream_id: int) -> None:
        """Somebody else has deleted a stream."""
        self._streams.pop(stream_id, None)
        self.registry.forget(stream_id)

    def _create(
        self,
        *,
        name: str,
        shards: int,
        max_record_bytes: int = limits.RECORD_BYTES,
        mode: str = StreamMode.PROVISIONED,
        account: str = "",
        region: str = "",
        attributes: dict[str, Any] | None = None,
    ) -> None:
        made = self.store.create_stream(
            name,
            shards,
            max_record_bytes=max_record_bytes,
            mode=StreamMode(mode),
            account=account,
            region=region,
            attributes=None if attributes is None else msgspec.convert(attributes, Attributes),
        )
        self.moved(made)

    def _alter(self, *, stream_id: int, changes: Mapping[str, int | str]) -> None:
        given: dict[str, Any] = dict(changes)
        if "mode" in given:
            given["mode"] = StreamMode(given["mode"])
        self.moved(self.store.alter_stream(self.folder.map_by_id(stream_id), **given))

    def _delete(self, *, stream_id: int, although_read: bool = False) -> None:
        del although_read  # no node runs, and nobody else reads as a handler does
        gone = self.store.delete(self.folder.map_by_id(stream_id))
        forget(self.folder, gone)
        self.moved(msgspec.structs.replace(gone, deleted=True))

    def _reshard(self, kind: str, *, stream_id: int, **arguments: Any) -> None:
        stream = self.folder.map_by_id(stream_id)
        plan = planner(self.folder.place_of(stream), kind, stream.name, arguments)(stream)
        self.moved(carry_out(self.store, plan))


class Alone:
    """The services over one folder.

    Attributes:
        host: what they run on.
    """

    def __init__(self, folder: DataFolder, store: Log | None) -> None:
        self.host = LoneHost(folder, store)
        self.host.registry = Registry(self.host)
        self.host.registry.load()
        self._kinesis = Kinesis(Parts(host=self.host, registry=self.host.registry))
        self.host.run()  # what a node that was killed had begun
        self._dispatcher = Dispatcher([self._kinesis], {"kinesis": model(folder.path)}, call_later=self.host.call_later)

    def call(
        self, operation: str, parameters: Mapping[str, Any], *, events: Open | None = None
    ) -> dict[str, Any] | KflowError | None:
        """Perform a call; on return nothing of it is under way.

        Returns:
            The output; why it was refused; None where events follow.
        """
        answer: dict[str, Any] | KflowError | None = None

        def done(result: dict[str, Any] | KflowError) -> None:
            nonlocal answer
            answer = result

        context = Context(place=self.host.registry.home, request_id=str(uuid.uuid4()))
        self._dispatcher.invoke(context, "kinesis", operation, parameters, done, events=events)
        self.host.run()
        self._kinesis.queues.close(lambda: None)  # who waits for records is answered with none
        self.host.run()
        if answer is not None:
            self._kinesis.parts.reading.close()
        return answer
