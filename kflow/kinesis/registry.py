"""The streams of all places in memory, each with its map and with what is kept of it beside that.

Maps are published by whoever reshards (`learn`, `forget`); attributes change here, and nowhere else.
"""

from __future__ import annotations

import bisect
import enum
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from kflow import arn
from kflow.aws.calls import Place
from kflow.broker import attributes as attributefiles
from kflow.broker.attributes import DEFAULTS, Attributes, Consumer, lasts
from kflow.broker.keeping import Kept
from kflow.broker.streammap import StreamMap, StreamMode
from kflow.errors import InvalidArgument, KflowError, ResourceNotFound
from kflow.interfaces import Done
from kflow.kinesis.host import Host

__all__ = ["Done", "Named", "Registry", "Status", "Stream", "no_consumer", "no_stream"]

log = logging.getLogger(__name__)

Listener = Callable[["Stream"], object]

_ARN: Final = re.compile(
    r"arn:aws[^:]*:kinesis:([^:]*):(\d{12}):stream/([a-zA-Z0-9_.-]+)(?:/consumer/([a-zA-Z0-9_.-]+):(\d+))?"
)


class Status(enum.StrEnum):
    """State of a stream or a consumer. Source: documented: StreamDescription."""

    CREATING = "CREATING"
    ACTIVE = "ACTIVE"
    UPDATING = "UPDATING"
    DELETING = "DELETING"


class Named(Protocol):
    """An input that names a stream by its name, its ARN, or both."""

    StreamName: str | None
    StreamARN: str | None


class Stream:
    """One stream; the same object for as long as it exists. Belongs to the loop's thread; others only read it.

    Attributes:
        map: as it is now.
        place: account and region.
        attributes: as they are now; replaced by `Registry.change` alone.
        is_gone: whether it was deleted.
        open_count: how many open shards it has.
        is_altering: whether a setting is being changed, which can take longer than the time it is to be visible.
        next_mode: its capacity mode, once a change that is under way is done; None where there is none.
    """

    __slots__ = ("arn", "attributes", "is_altering", "is_gone", "map", "next_mode", "open_count", "place")

    def __init__(self, stream: StreamMap, place: Place, attributes: Attributes) -> None:
        self.learn(stream)
        self.place = place
        self.attributes = attributes
        self.is_gone = False
        self.is_altering = False
        self.next_mode: StreamMode | None = None
        self.arn = arn.stream_arn(place.region, place.account, stream.name)

    def learn(self, stream: StreamMap) -> None:
        """Its map was published."""
        self.map = stream
        self.open_count = sum(shard.closed is None for shard in stream.shards)

    @property
    def name(self) -> str:
        """Its name."""
        return self.map.name

    @property
    def id(self) -> int:
        """Its id: one that is created anew under the name has another."""
        return self.map.id

    @property
    def account(self) -> str:
        """Twelve digits, as in texts of errors."""
        return self.place.account

    @property
    def created_ms(self) -> int:
        """StreamCreationTimestamp, milliseconds since the epoch."""
        return self.attributes.created_ms or self.map.created_s * 1000

    @property
    def mode(self) -> StreamMode:
        """The capacity mode that whatever is asked for now has to suit."""
        return self.next_mode or self.map.mode

    @property
    def is_encrypted(self) -> bool:
        """Whether puts and records say `EncryptionType: KMS`."""
        return bool(self.attributes.key_id)

    @property
    def is_auto(self) -> bool:
        """Whether records are distributed without regard to their partition keys."""
        return self.attributes.distribution == "AUTO"

    def status(self, now_ms: int) -> Status:
        """Its state."""
        kept = self.attributes
        if kept.pending is not None:
            return Status.DELETING if kept.pending.kind == "delete" else Status.UPDATING
        if lasts(kept.active_ms, now_ms):
            return Status.CREATING
        return Status.UPDATING if self.is_altering or lasts(kept.updated_ms, now_ms) else Status.ACTIVE

    @property
    def is_going(self) -> bool:
        """Whether it is being deleted, or is gone."""
        pending = self.attributes.pending
        return self.is_gone or (pending is not None and pending.kind == "delete")

    def serves(self, now_ms: int) -> bool:
        """Whether records may be put and read."""
        if self.is_gone:
            return False
        kept = self.attributes
        if kept.pending is not None:
            return kept.pending.kind != "delete"
        return kept.active_ms <= now_ms or not lasts(kept.active_ms, now_ms)

    def consumers(self, now_ms: int) -> list[Consumer]:
        """Its registered consumers that are not gone yet, by name."""
        there = (each for each in self.attributes.consumers if not each.is_gone(now_ms))
        return sorted(there, key=lambda each: each.name)

    def consumer_arn(self, consumer: Consumer) -> str:
        """The ARN of one of its consumers."""
        return f"{self.arn}/consumer/{consumer.name}:{consumer.created_s}"

    def not_found(self) -> ResourceNotFound:
        """The refusal of whoever asks for it while it does not serve."""
        return no_stream(self.name, self.account)


class Registry:
    """All streams. Belongs to the loop's thread.

    Args:
        host: whose folder and threads it uses.

    Attributes:
        queues_on: how many queues there are on a stream, by its id; whoever keeps queues sets it.
        missed: told of each look for a stream that is not in that place, before it is refused.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._folder = host.folder
        self._by_id: dict[int, Stream] = {}
        self._by_name: dict[Place, dict[str, Stream]] = {}
        self._names: dict[Place, list[str]] = {}  # in order
        self._expected: dict[tuple[Place, str], Attributes] = {}
        self._kept: dict[int, Kept[Attributes]] = {}  # of streams that were changed
        self._listeners: list[Listener] = []
        self.queues_on: Callable[[int], int] = lambda stream_id: 0  # noqa: ARG005  # nobody keeps any
        self.missed: Callable[[Place, str], object] = lambda place, name: None  # noqa: ARG005  # nobody wants to know

    @property
    def home(self) -> Place:
        """The place of streams whose map names none."""
        return Place(self._folder.account, self._folder.region)

    def load(self) -> None:
        """At the start, before the loop runs: read what is kept of every stream.

        Raises:
            StorageError: something cannot be read.
        """
        for found in sorted(self._host.streams(), key=lambda each: each.is_home):
            if found.name in self._by_name.get(self._place(found), {}):
                log.warning("two streams of one name and place, the home one counts stream=%s", found.name)
            self._add(found, attributefiles.load(self._folder.stream_dir(found), self._folder.files))

    # ------------------------------------------------------------------ finding

    def find(self, place: Place, name: str) -> Stream:
        """The stream of a name, in whatever state.

        Raises:
            ResourceNotFound: there is none in this place.
        """
        try:
            return self._by_name[place][name]
        except KeyError:
            self.missed(place, name)
            raise no_stream(name, place.account) from None

    def has(self, place: Place, name: str) -> bool:
        """Whether there is a stream of a name, in whatever state."""
        return name in self._by_name.get(place, {})

    def named(self, given: Named, place: Place) -> Stream:
        """The stream that an input names: by name in the caller's place, by ARN wherever that says; both must agree.

        Raises:
            InvalidArgument: neither is given, they disagree, or the ARN names no stream.
            ResourceNotFound: there is none.

        Source: documented: StreamName, StreamARN; chosen: the texts of the first ones.
        """
        name, text = given.StreamName, given.StreamARN
        if text is None:
            if name is None:
                raise InvalidArgument("Neither StreamName nor StreamARN was provided.")
            return self.find(place, name)
        stream = self.by_arn(text)
        if name is not None and name != stream.name:
            raise InvalidArgument(f"StreamARN {text} and StreamName {name} do not name the same stream.")
        return stream

    def by_arn(self, text: str) -> Stream:
        """The stream of a stream's ARN, in whatever state.

        Raises:
            InvalidArgument: the ARN is not a stream's.
            ResourceNotFound: there is none.
        """
        match = _ARN.fullmatch(text)
        if match is None or match[4] is not None:
            raise InvalidArgument(f"{text} is not the ARN of a stream: arn:aws:kinesis:REGION:ACCOUNT:stream/NAME")
        return self.find(Place(match[2], match[1]), match[3])

    def by_consumer_arn(self, text: str, now_ms: int) -> tuple[Stream, Consumer]:
        """The consumer of a consumer's ARN, in whatever state, and its stream.

        Raises:
            InvalidArgument: the ARN is not a consumer's.
            ResourceNotFound: there is none.
        """
        match = _ARN.fullmatch(text)
        if match is None or match[4] is None:
            raise InvalidArgument(f"{text} is not the ARN of a consumer: STREAM_ARN/consumer/NAME:SECONDS")
        place = Place(match[2], match[1])
        stream = self._by_name.get(place, {}).get(match[3])
        if stream is not None:
            for each in stream.consumers(now_ms):
                if each.name == match[4] and each.created_s == int(match[5]):
                    return stream, each
        raise no_consumer(text, place.account)

    def by_id(self, stream_id: int) -> Stream | None:
        """The stream of an id; None where it is gone."""
        return self._by_id.get(stream_id)

    def streams(self, place: Place) -> list[Stream]:
        """The streams of a place, by name."""
        return self.page(place, "", len(self._names.get(place, ())))

    def page(self, place: Place, after: str, count: int) -> list[Stream]:
        """So many streams of a place, by name, those after a name."""
        names = self._names.get(place, [])
        first = bisect.bisect_right(names, after)
        found = self._by_name.get(place, {})
        return [found[name] for name in names[first : first + count]]

    def everywhere(self) -> Iterable[Stream]:
        """The streams of all places."""
        return self._by_id.values()

    def elsewhere(self, name: str, place: Place) -> list[Place]:
        """The other places that have a stream of this name: for a hint to people."""
        return sorted(each for each, found in self._by_name.items() if each != place and name in found)

    # ------------------------------------------------------------------ changing

    def expect(self, place: Place, name: str, attributes: Attributes) -> None:
        """A stream is about to be made, with these attributes in its folder; nobody else may take its name."""
        self._expected[place, name] = attributes

    def expects(self, place: Place, name: str) -> bool:
        """Whether a stream of this name is being made."""
        return (place, name) in self._expected

    def expected(self, place: Place) -> list[Attributes]:
        """What is being made in a place."""
        return [kept for (each, _), kept in self._expected.items() if each == place]

    def give_up(self, place: Place, name: str) -> None:
        """The stream was not made after all, or it was: expect it no longer."""
        self._expected.pop((place, name), None)

    def learn(self, stream: StreamMap) -> None:
        """A map was published: of a new stream, or a new one of a stream that is known."""
        known = self._by_id.get(stream.id)
        if known is None:
            place, name = self._place(stream), stream.name
            before = self._by_name.get(place, {}).get(name)
            if before is None:
                kept = self._expected.pop((place, name), DEFAULTS)
            else:  # it was emptied: made anew with all that is kept beside its map
                kept = msgspec.structs.replace(before.attributes, pending=None, created_ms=0)
            known = self._add(stream, kept)
        else:
            known.learn(stream)
        self._tell(known)

    def forget(self, stream_id: int) -> None:
        """A stream is gone."""
        known = self._by_id.pop(stream_id, None)
        if known is None:
            return
        known.is_gone = True
        self._kept.pop(stream_id, None)
        names = self._by_name[known.place]
        if names.get(known.name) is known:
            del names[known.name]
            ordered = self._names[known.place]
            del ordered[bisect.bisect_left(ordered, known.name)]
        self._tell(known)

    def moved(self, stream: StreamMap) -> None:
        """A map was published, or the stream is gone: `learn` or `forget`."""
        if stream.deleted:
            self.forget(stream.id)
        else:
            self.learn(stream)

    def change(self, stream: Stream, done: Done, /, **changes: Any) -> None:
        """Change attributes: in memory now, on the disk by a thread.

        Args:
            stream: whose.
            done: told when it is kept.
            changes: new values of `Attributes`, by name.
        """
        kept = self._kept.get(stream.id)
        if kept is None:
            kept = self._kept[stream.id] = self._keep(stream)

        def told(failure: KflowError | None) -> None:
            # While it goes its folder may be away already.
            done(stream.not_found() if failure is not None and stream.is_going else failure)

        kept.set(msgspec.structs.replace(kept.value, **changes), told)

    def _keep(self, stream: Stream) -> Kept[Attributes]:
        folder = self._folder
        path = folder.stream_dir(stream.map)

        def write(attributes: Attributes) -> None:
            attributefiles.store(path, attributes, folder.files, sync=folder.syncs)

        def changed(attributes: Attributes) -> None:
            stream.attributes = attributes
            self._tell(stream)

        return Kept(stream.attributes, write, self._host, changed)

    def watch(self, listener: Listener) -> Callable[[], object]:
        """Call `listener` on the loop whenever a stream's map or attributes have changed, or it is gone.

        Changes that only time brings (CREATING to ACTIVE) are not told. Returns what ends it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self, stream: Stream) -> None:
        for listener in tuple(self._listeners):
            listener(stream)

    def _place(self, found: StreamMap) -> Place:
        account, region = self._folder.place_of(found)
        return Place(account, region)

    def _add(self, found: StreamMap, attributes: Attributes) -> Stream:
        place = self._place(found)
        stream = self._by_id[found.id] = Stream(found, place, attributes)
        names = self._by_name.setdefault(place, {})
        if found.name not in names:
            bisect.insort(self._names.setdefault(place, []), found.name)
        names[found.name] = stream
        return stream


def no_stream(name: str, account: str) -> ResourceNotFound:
    """The refusal of a stream that does not exist. Source: recorded."""
    return ResourceNotFound(f"Stream {name} under account {account} not found.")


def no_consumer(name_or_arn: str, account: str) -> ResourceNotFound:
    """The refusal of a consumer that does not exist. Source: chosen: AWS's text is not known."""
    return ResourceNotFound(f"Consumer {name_or_arn}, account {account} not found.")
