"""What all modules of the service share: its engines, and how a queue is named by those who call."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from kflow.aws.calls import LATER, Answer, Call, Place
from kflow.broker.host import Host
from kflow.errors import InternalError, KflowError
from kflow.sqs.directory import Directory, Queue
from kflow.sqs.errors import MissingParameter, QueueDoesNotExist
from kflow.sqs.moving import Moving
from kflow.sqs.receipts import Receipts

log = logging.getLogger(__name__)

_DIGITS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Made once by whoever hosts the service.

    Attributes:
        host: the node.
        home: account and region of its data folder.
        url: where the endpoint is, for callers that did not come through it.
    """

    host: Host
    home: Place
    url: Callable[[], str]


class Base:
    """What each module's operations use; `Sqs` inherits all of them."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.host = parts.host
        self.directory = Directory(parts.host, parts.home)
        self.moving = Moving(parts.host, self.directory)
        self.receipts = Receipts(parts.host.folder.id.encode())
        self.directory.loaded = self.moving.resume

    def queue(self, call: Call, url: str | None) -> Queue:
        """The queue of a URL: its last two parts count, or a name alone. Scheme and host do not matter.

        Raises:
            MissingParameter: there is no URL.
            QueueDoesNotExist: it names none.
        """
        if not url:
            raise MissingParameter("QueueUrl")
        place = call.context.place
        account, name = _named(url)
        if not name:
            raise QueueDoesNotExist
        return self.directory.find(Place(account, place.region) if account else place, name)

    def url_of(self, call: Call, queue: Queue) -> str:
        """The URL of a queue, as this caller reaches it."""
        return self.url(call, queue.place, queue.facts.name)

    def url(self, call: Call, place: Place, name: str) -> str:
        """The URL of a queue by its name, whether it is there or not."""
        return f"{call.context.base_url or self.parts.url()}/{place.account}/{name}"


@functools.lru_cache(1024)
def _named(url: str) -> tuple[str, str]:
    """Account and name in a URL; empty where there is none."""
    try:
        parts = [unquote(part) for part in urlsplit(url).path.split("/") if part]
    except ValueError:
        parts = []
    if not parts:
        return "", ""
    has_account = len(parts) > 1 and len(parts[-2]) == _DIGITS and parts[-2].isdecimal()
    return parts[-2] if has_account else "", parts[-1]


class _HasBase(Protocol):
    directory: Directory


S = TypeVar("S", bound=_HasBase)


def operation(method: Callable[[S, Call, Any], Answer]) -> Callable[[S, Call, Any], Answer]:
    """An operation, which is performed when all queues are known: the first ones wait for that."""

    @functools.wraps(method)
    def run(self: S, call: Call, given: Any) -> Answer:
        if self.directory.is_loaded:
            return method(self, call, given)

        def loaded(failure: KflowError | None) -> None:
            if failure is not None:
                call.refuse(failure)
                return
            if call.is_closed:
                return
            try:
                answer: Any = method(self, call, given)
            except KflowError as error:
                call.refuse(error)
            except Exception as error:
                log.exception("a method broke operation=sqs.%s", method.__name__)
                call.refuse(InternalError(repr(error)))
            else:
                if answer is not LATER:
                    call.answer(answer)

        self.directory.when_loaded(loaded)
        return LATER

    return run
