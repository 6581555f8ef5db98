"""The AWS services of a node: made once, over its log and its loop, and called by whoever has a door to them."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from kflow.aws import models
from kflow.aws.calls import Context, Place
from kflow.aws.dispatch import Before, Deferred, Dispatcher
from kflow.aws.formats import Format
from kflow.aws.shapes import Model
from kflow.broker.streammap import StreamMap
from kflow.errors import AwsError, KflowError, ResourceNotFound
from kflow.kinesis.registry import Registry
from kflow.runtime import deferred, registering
from kflow.runtime.calling import Calling
from kflow.runtime.control import Control
from kflow.runtime.ingest import Ingest
from kflow.runtime.kinesis_host import KinesisHost, guarded
from kflow.runtime.node import Node
from kflow.runtime.pages import StreamRow
from kflow.runtime.puts import Puts
from kflow.services.kinesis.parts import Parts
from kflow.services.kinesis.service import Kinesis
from kflow.settings import Settings
from kflow.web.exchange import Exchange

if TYPE_CHECKING:
    from kflow.runtime.faults import Faults
    from kflow.services.sqs.service import Sqs

log = logging.getLogger(__name__)

SERVICES: Final = ("kinesis", "sqs", *deferred.NAMES)
_HINTS: Final = 1000
"""So many streams that are elsewhere, and strange services, are told of: who invents names must not fill the log."""
_NAME: Final = re.compile(r"[a-z0-9-]{1,40}")


class Services:
    """All of them. Belongs to the loop's thread.

    Attributes:
        dispatcher: calls their operations.
        home: the place of callers that name none.
        registry: the streams of all places.
        host: the node, as the engines see it.
        calling: answers this machine's own clients.
        smaller: the services beside Kinesis and SQS.
    """

    def __init__(self, settings: Settings, node: Node, ingest: Ingest, control: Control) -> None:
        folder = node.folder
        self.home = Place(settings.account, settings.region)
        self._strangers: set[str] = set()
        self._hinted: set[tuple[Place, str]] = set()
        self.host = KinesisHost(
            node,
            control.admin,
            put=Puts(ingest).put,
            transition_ms=settings.transition_ms,
            streams=folder.live_maps(),
        )
        self.registry = Registry(self.host)
        self.registry.missed = self._missed
        self.registry.load()
        control.watch_streams(guarded(self._moved))
        self.models = {"kinesis": models.load("kinesis", cache=folder.path / "models")}
        faults = _faults(settings, self.models)
        for name in SERVICES[1:]:
            if faults is not None and any(text.lstrip().startswith(f"{name}.") for text in settings.faults):
                faults.check(name, models.load(name, cache=folder.path / "models").operation_names)
        self.kinesis = Kinesis(
            Parts(
                host=self.host,
                registry=self.registry,
                enforce_limits=settings.enforce_limits,
                entry_faults=lambda count: None if faults is None else faults.entries("kinesis", "PutRecords", count),
            )
        )
        self.smaller = deferred.Smaller(self.host, self.models, lambda: node.endpoint or "")
        self.dispatcher = Dispatcher(
            [self.kinesis],
            self.models,
            call_later=node.loop.call_later,
            before=_before(faults, self.models),
            deferred={"sqs": Deferred("sqs", "AmazonSQS", "1.0", self._make_sqs), **self.smaller.deferred},
        )
        self.smaller.invoke = self.dispatcher.invoke
        self._sqs: Sqs | None = None
        self._forms: tuple[Format, list[Model]] | None = None
        self.calling = Calling(self.dispatcher, self.home)
        self._node = node

    def streams(self) -> Sequence[StreamRow]:
        """All streams of all places, as people are shown them."""
        now_ms = self.host.now_ms()
        rows = (
            StreamRow(
                stream.name,
                stream.place.region,
                stream.place.account,
                stream.status(now_ms),
                len(stream.map.open_shards),
            )
            for stream in self.registry.everywhere()
        )
        return sorted(rows)

    def reset(self, then: Callable[[KflowError | None], object]) -> None:
        """Remove everything of all places; streams that running handlers read are made anew, empty.

        Args:
            then: told, on the loop, when that is done, or of the first stream that could not be removed.
        """
        reads = {stream.id for plan in self._node.functions.values() for stream in plan.maps}
        left = deque(self.host.streams())

        def step(result: Any = None) -> None:
            if isinstance(result, KflowError) and not isinstance(result, ResourceNotFound):
                then(result)
            elif not left:
                then(None)
            else:
                stream = left.popleft()
                self.host.administrate(
                    lambda answer: anew(stream, answer), "delete_stream", stream_id=stream.id, although_read=True
                )

        def anew(stream: StreamMap, answer: Any) -> None:
            if isinstance(answer, KflowError) or stream.id not in reads:
                step(answer)
                return
            self.host.administrate(
                step,
                "create_stream",
                name=stream.name,
                shards=len(stream.open_shards),
                retention_hours=stream.retention_hours,
                max_record_bytes=stream.max_record_bytes,
                mode=stream.mode,
            )

        self.smaller.reset(lambda: self._clear_sqs(lambda: self.kinesis.queues.clear(step)))

    def stop(self, then: Callable[[], object]) -> None:
        """End what answers for as long as it is let; call back when nothing is open any more."""
        self.kinesis.end_subscriptions()
        if self._sqs is None:
            self.kinesis.queues.close(then)
        else:
            self._sqs.close(lambda: self.kinesis.queues.close(then))

    def form(self, exchange: Exchange, signing_name: str) -> tuple[Format, list[Model]] | None:
        """The query protocol of one of the services, for a request that is in it; None: it is not."""
        found = self.smaller.form(exchange, signing_name)
        if found is not None:
            return found
        if signing_name not in {"", "sqs"}:
            return None
        from kflow.services.sqs.forms import Forms, is_form  # of older SDKs, which come seldom

        if not signing_name and not is_form(exchange):
            return None
        if self._forms is None:
            from kflow.services.sqs.models import forms

            self._forms = (Forms(), [forms(models.load("sqs", cache=self._node.folder.path / "models"))])
        return self._forms

    def _make_sqs(self) -> tuple[Sqs, Model]:
        """With the first call: a node that nobody asks for queues has none of it in memory."""
        from kflow.services.sqs.models import loose
        from kflow.services.sqs.parts import Parts as SqsParts
        from kflow.services.sqs.service import Sqs

        model = self.models["sqs"] = loose(models.load("sqs", cache=self._node.folder.path / "models"))
        self._sqs = Sqs(SqsParts(host=self.host, home=self.home, url=lambda: self._node.endpoint or ""))
        return self._sqs, model

    def _clear_sqs(self, then: Callable[[], object]) -> None:
        """Delete the queues, also of a node that nobody asked for them yet."""
        if self._sqs is None and not (self._node.folder.path / "queues").is_dir():
            then()
            return
        self.dispatcher.bound("sqs", "DeleteQueue")
        assert self._sqs is not None, "it was just made"
        self._sqs.clear(then)

    def stranger(self, name: str) -> str:
        """Somebody calls a service that is not here: people are told once; returns what the caller is told."""
        known = ", ".join(SERVICES)
        if not _NAME.fullmatch(name):  # it is the caller's text, and goes to a terminal
            return f"this endpoint speaks {known} only"
        if name not in self._strangers and len(self._strangers) < _HINTS:
            self._strangers.add(name)
            self.host.notice(
                "warning",
                f"a call of {name} came to the endpoint, and was refused: kflow speaks {known} only; give that client "
                "an endpoint of its own (endpoint_url)",
            )
        return f"kflow has no {name}: this endpoint speaks {known} only"

    def _moved(self, stream: StreamMap) -> None:
        """The engines first, then the readers of its shards."""
        is_new = self.registry.by_id(stream.id) is None
        self.host.learn(stream)
        self.registry.moved(stream)
        if is_new and stream.is_home:
            registering.register_again(self.registry, stream, self._node.functions.values(), self.host.notice)
        self.host.tell(stream)

    def _missed(self, place: Place, name: str) -> None:
        """Somebody asked for a stream that is not in this place: perhaps for one that is in another."""
        if (place, name) in self._hinted or len(self._hinted) >= _HINTS:
            return
        others = self.registry.elsewhere(name, place)
        if others:
            self._hinted.add((place, name))
            where = ", ".join(f"{other.region} of account {other.account}" for other in others)
            self.host.notice(
                "warning",
                f"stream {name} was asked for in {place.region} of account {place.account}, and is in {where}: "
                "the client's region or access key decides where it looks",
            )


def _faults(settings: Settings, known: Mapping[str, Model]) -> Faults | None:
    """The rules of the settings; None where there are none.

    Raises:
        UsageError: one cannot be read, or names an operation that there is not.
    """
    if not settings.faults:
        return None
    from kflow.runtime.faults import Faults

    faults = Faults(settings.faults, settings.fault_seed)
    for name, model in known.items():
        faults.check(name, model.operation_names)
    return faults


def _before(faults: Faults | None, known: Mapping[str, Model]) -> Before | None:
    """What is asked before each call: what goes wrong on purpose. None: nothing."""
    if faults is None:
        return None

    def ask(service: str, operation: str, context: Context) -> AwsError | float | None:
        del context
        found = known[service].operation(operation)
        return faults.meet(service, operation, () if found is None else found.errors)

    return ask
