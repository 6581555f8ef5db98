"""Failure documents on their way to the destinations of stream mappings. The shards never wait for them.

    parked, unsent --told, or found at the start--> read --> sent --> noted in the name of the parked file
                                                     ^        |
                                                     +-- after a pause: failed, up to `TRIES` times
                                                              |
                                                    stays parked and unsent until the next start, or until something
                                                    else reaches the same destination

A document is sent at least once: whoever dies between the sending and the note has the next node send it again. An
object of S3 is the same one then.

Source: documented: the documents; chosen: how often it is tried, and that what cannot be sent is kept.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from kflow.aws.calls import CallService, Place
from kflow.broker.host import Host
from kflow.broker.parked import ParkedBatch, ParkedStore
from kflow.errors import AwsError, KflowError, UsageError
from kflow.lambda_ import destinations, eventcounts
from kflow.lambda_.destinations import Destination, Kind
from kflow.lambda_.documents import document, object_suffix, s3_object
from kflow.runtime.mappings.destinationcalls import DestinationCalls, is_missing

log = logging.getLogger(__name__)

TRIES: Final = 5
AT_ONCE: Final = 4
"""So many documents are read and sent at the same time."""
GRACE_S: Final = 5.0
"""At the end, what is under way has so long."""
_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0)


class _Letter(NamedTuple):
    """What is to be sent."""

    entry: ParkedBatch
    destination: Destination
    text: str


class Destinations:
    """Belongs to the loop's thread.

    Args:
        host: the node.
        parked: what was given up.
        invoke: calls a service.
        home: the place of functions that name none.
        scale: factor on the pauses between tries.

    Attributes:
        counted: told the metric of its mapping that a batch counts for, when it was sent or could not be.
    """

    def __init__(
        self, host: Host, parked: ParkedStore, invoke: CallService, home: Place, *, scale: float = 1.0
    ) -> None:
        self.counted: Callable[[ParkedBatch, str], object] = lambda *_: None
        self._host = host
        self._parked = parked
        self._home = home
        self._scale = scale
        self._calls = DestinationCalls(host, invoke)
        self._queue: deque[int] = deque()
        self._known: set[int] = set()
        self._again: set[int] = set()
        self._tries: dict[int, int] = {}
        self._left_alone: dict[str, set[int]] = {}
        self._under_way = 0
        self._preparing = 0
        self._ended: Callable[[], object] | None = None

    def start(self, wanted: Mapping[str, Iterable[str]]) -> None:
        """Make the logical destinations that are missing, say which others are, then send what is unsent.

        Args:
            wanted: destinations as `on_failure` names them, each with the functions that name it.
        """
        for text, functions in wanted.items():
            destination = destinations.parse(text).within(*self._home)
            self._preparing += 1
            self._prepare(destination, "on_failure of " + ", ".join(sorted(set(functions))))
        self.look()

    def look(self) -> None:
        """Send what is unsent and nobody told of: at the start, and after a worker died. Costs a look at names."""
        self._under_way += 1

        def found(numbers: object) -> None:
            self._under_way -= 1
            if isinstance(numbers, KflowError):
                self._host.notice("error", f"failure documents may wait for the next start: {numbers}")
            else:
                assert isinstance(numbers, set)
                news = sorted(numbers.difference(self._known, *self._left_alone.values()))
                self._known.update(news)
                self._queue.extend(news)
            self._go_on()

        self._host.submit(lambda: set(self._parked.unsent()), found)

    def tell(self, number: int) -> None:
        """A batch was parked, and its document is to be sent."""
        if number in self._known:
            self._again.add(number)
            return
        self._known.add(number)
        self._queue.append(number)
        self._go_on()

    def stop(self, then: Callable[[], object]) -> None:
        """Send what can be sent within `GRACE_S`, try nothing again, and call back."""

        def over() -> None:
            if self._ended is not None:
                self._ended = None
                then()

        self._ended = over
        self._go_on()
        if self._ended is not None:
            self._host.call_later(GRACE_S, over)

    # ------------------------------------------------------------------ destinations that must be there

    def _prepare(self, destination: Destination, who: str) -> None:
        """At the start: make it, or say that it is missing."""

        def looked(failure: KflowError | None) -> None:
            if failure is None:
                self._prepared()
            elif not is_missing(failure):
                self._host.notice("warning", f"{who}: {destination.arn} cannot be looked at: {_why(failure)}")
                self._prepared()
            elif destination.is_logical:
                self._make(destination, who, self._prepared)
            else:
                self._host.notice(
                    "warning",
                    f"{who}: there is no {destination.words} ({destination.arn}): failure documents for it are kept",
                )
                self._prepared()

        self._calls.look(destination, looked)

    def _prepared(self) -> None:
        self._preparing -= 1
        self._go_on()

    def _make(self, destination: Destination, who: str, then: Callable[[], object]) -> None:
        def made(failure: KflowError | None) -> None:
            if failure is None:
                self._host.notice("info", f"made the {destination.words}: {who}")
            else:
                self._host.notice("warning", f"the {destination.words} cannot be made ({who}): {_why(failure)}")
            then()

        self._calls.make(destination, made)

    # ------------------------------------------------------------------ one document

    def _go_on(self) -> None:
        """Begin with as many as may be under way; at the end, say when none is."""
        while self._queue and self._under_way < AT_ONCE and not self._preparing:
            self._under_way += 1
            self._read(self._queue.popleft())
        if self._ended is not None and not self._under_way and not self._preparing:
            self._ended()

    def _read(self, number: int) -> None:
        def read(letter: _Letter | KflowError | None) -> None:
            if isinstance(letter, _Letter):
                self._send(letter)
            elif letter is None or isinstance(letter, UsageError):  # it was sent, redriven or dropped meanwhile
                self._done(number)
            else:
                self._failed(number, None, letter)

        self._host.submit(lambda: self._letter(number), read)

    def _letter(self, number: int) -> _Letter | None:
        """In a thread: read the batch and write its document. None: there is nothing to send."""
        entry = self._parked.show(number)
        if not entry.is_unsent or entry.origin is None:
            return None
        _, _, _, region, account, *_ = entry.origin.function_arn.split(":")
        destination = destinations.parse(entry.destination).within(account, region)
        if destination.kind is Kind.S3:
            return _Letter(entry, destination, "")
        text = msgspec.json.encode(document(entry, region=region, account=account)).decode()
        return _Letter(entry, destination, text)

    def _put(self, letter: _Letter) -> None:
        """In a thread: write the object."""
        entry = letter.entry
        assert entry.origin is not None, "it has a destination"
        _, _, _, region, account, *_ = entry.origin.function_arn.split(":")
        key, body = s3_object(entry, region=region, account=account, suffix=object_suffix(entry))
        self._calls.objects.put(letter.destination.name, key, body)

    def _send(self, letter: _Letter) -> None:
        number = letter.entry.number

        def sent(failure: KflowError | None) -> None:
            if failure is None:
                self.counted(letter.entry, eventcounts.DELIVERED)
                self._host.submit(lambda: self._parked.sent(letter.entry), noted)
            elif is_missing(failure) and letter.destination.is_logical and not self._tries.get(number):
                self._tries[number] = 1
                who = f"on_failure of {letter.entry.function}"
                self._make(letter.destination, who, lambda: self._send(letter))
            else:
                self._failed(number, letter, failure)

        def noted(result: object) -> None:
            if isinstance(result, KflowError) and not isinstance(result, UsageError):
                log.warning("a failure document was sent, and is sent again parked=%d: %s", number, result)
            for each in sorted(self._left_alone.pop(letter.entry.destination, ())):
                self.tell(each)
            self._done(number)

        if letter.destination.kind is Kind.S3:
            self._host.submit(
                lambda: self._put(letter), lambda result: sent(result if isinstance(result, KflowError) else None)
            )
        else:
            self._calls.send(letter.destination, letter.text, sent)

    def _failed(self, number: int, letter: _Letter | None, failure: KflowError) -> None:
        """Try it again after a pause, or leave it alone: at once where others for the same destination were left."""
        destination = "" if letter is None else letter.entry.destination
        is_known = destination in self._left_alone
        tries = self._tries[number] = self._tries.get(number, 0) + 1
        if self._ended is not None:
            self._done(number)
            return
        if tries < TRIES and not is_known:
            self._under_way -= 1

            def again() -> None:
                self._queue.append(number)
                self._go_on()

            self._host.call_later(_PAUSES_S[tries - 1] * self._scale, again)
            self._go_on()
            return
        self._left_alone.setdefault(destination, set()).add(number)
        if letter is not None:
            self.counted(letter.entry, eventcounts.DROPPED)
        if not is_known:  # people are told once, until it is reached
            where = (
                f" of {letter.entry.function} could not be sent to {letter.destination.arn}"
                if letter
                else " is not sent"
            )
            self._host.notice(
                "error",
                f"the failure document of parked #{number}{where}: {_why(failure)}; it stays parked, as others that "
                "follow, and is sent at the next start",
            )

        def noted(result: object) -> None:
            if isinstance(result, KflowError) and not isinstance(result, UsageError):
                log.warning("parked=%d why it is not sent could not be noted: %s", number, result)
            self._done(number)

        self._host.submit(lambda: self._parked.not_sent(number, _why(failure)), noted)

    def _done(self, number: int) -> None:
        self._under_way -= 1
        self._known.discard(number)
        self._tries.pop(number, None)
        if number in self._again:  # it was parked anew meanwhile
            self._again.discard(number)
            self.tell(number)
        self._go_on()


def _why(failure: KflowError) -> str:
    text = str(failure).removesuffix(".")
    return f"{failure.code}: {text}" if isinstance(failure, AwsError) else text
