"""The AWS services of a node: made once, over its log and its loop, and called by whoever has a door to them."""

from __future__ import annotations

import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kflow.aws import models
from kflow.aws.calls import Context, Place, Reply
from kflow.aws.dispatch import Before, Deferred, Dispatcher
from kflow.aws.formats import Format
from kflow.aws.shapes import Model
from kflow.broker.metricpoints import of
from kflow.broker.parked_batch import ParkedBatch
from kflow.broker.streammap import StreamMap
from kflow.errors import AwsError, KflowError, ResourceNotFound
from kflow.kinesis.registry import Registry
from kflow.kinesis.tallies import Tallies
from kflow.lambda_ import eventcounts
from kflow.lambda_.eventcounts import Counted
from kflow.runtime.consumers import registering
from kflow.runtime.endpoint import deferred
from kflow.runtime.endpoint.pages import StreamRow, Table
from kflow.runtime.feed import HandlerInfo, Totals
from kflow.runtime.functions.fleet import Fleet
from kflow.runtime.intake.calling import Calling
from kflow.runtime.intake.ingest import Ingest
from kflow.runtime.intake.puts import Puts
from kflow.runtime.mappings.runner import MappingRunner
from kflow.runtime.mappings.streamrunner import StreamRunner
from kflow.runtime.measures.kinesis import KinesisMeasures
from kflow.runtime.node.node import Node
from kflow.runtime.plan.places import PlaceState
from kflow.runtime.streams.kinesis_host import KinesisHost, guarded
from kflow.runtime.tools.control import Control
from kflow.services.kinesis.parts import Parts
from kflow.services.kinesis.service import Kinesis
from kflow.settings import Settings
from kflow.web.exchange import Exchange

if TYPE_CHECKING:
    from kflow.runtime.endpoint.faults import Faults
    from kflow.runtime.forwarding.forwarder import Forwarder
    from kflow.runtime.mappings.destinations import Destinations
    from kflow.runtime.mappings.queuepolling import QueuePolling
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
        fleet: runs functions.
        runner: runs event source mappings.
        smaller: the services beside Kinesis and SQS.
        forwarder: passes on calls of other services; None: the settings let none go anywhere.
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
        tallies = Tallies(node.measures.touch)
        counted = KinesisMeasures(node.measures)
        node.measures.sources.append(lambda: counted.take(tallies))
        self.kinesis = Kinesis(
            Parts(
                tallies=tallies,
                host=self.host,
                registry=self.registry,
                enforce_limits=settings.enforce_limits,
                entry_faults=lambda count: None if faults is None else faults.entries("kinesis", "PutRecords", count),
            )
        )
        self.fleet = Fleet(node)
        self.smaller = deferred.Smaller(self.host, self.models, lambda: node.endpoint or "", self.fleet, self._call)
        self.dispatcher = Dispatcher(
            [self.kinesis],
            self.models,
            call_later=node.loop.call_later,
            before=_before(faults, self.models),
            deferred={"sqs": Deferred("sqs", "AmazonSQS", "1.0", self._make_sqs), **self.smaller.deferred},
        )
        self._sqs: Sqs | None = None
        self._queues: QueuePolling | None = None
        self._destinations: Destinations | None = None
        self._scale = settings.retry_backoff_scale
        self._forms: tuple[Format, list[Model]] | None = None
        self.calling = Calling(self.dispatcher, self.home)
        self._node = node
        self.forwarder = self._make_forwarder(settings)
        streams = StreamRunner(node, self.host, self.registry, self.home, node.resumed)
        self.runner = MappingRunner(node, self.home, streams, lambda: self.queues)
        self.smaller.lambdas.runner = self.runner
        self.smaller.lambdas.start()
        for name, chosen in settings.functions.items():
            if chosen.reserved_concurrent_executions is not None:
                self.fleet.reserve(name, chosen.reserved_concurrent_executions)

    def _call(
        self, context: Context, service: str, operation: str, parameters: Mapping[str, Any], reply: Reply
    ) -> object:
        """A service calls another one: the dispatcher, which is made after they can be."""
        return self.dispatcher.invoke(context, service, operation, parameters, reply)

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

    def tables(self) -> Sequence[Table]:
        """What else there is, for people; a service that nobody asked for yet shows nothing."""
        from kflow.runtime.endpoint.overview import tables

        busy = Counter(place.function for place in self._node.table.places.values() if place.state is PlaceState.BUSY)
        polled = () if self._queues is None else self._queues.mappings
        return tables(self._node.functions, busy, polled, () if self._sqs is None else self._sqs.directory.everywhere())

    def metrics(self, then: Callable[[bytes | KflowError], object]) -> None:
        """Have the Prometheus text made."""
        self.host.submit(self._node.exposition, then)

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

        if self.forwarder is not None:
            self.forwarder.reset()

        def cleared(failure: KflowError | None) -> None:
            if failure is None:
                self.kinesis.queues.clear(step)
            else:
                step(failure)

        self.smaller.reset(lambda: self._clear_sqs(lambda: self._clear_objects(cleared)))

    def send_failures(self) -> None:
        """Have failure documents of mappings sent from now on, also those that an earlier node left unsent."""
        node = self._node
        wanted: dict[str, list[str]] = {}
        for name, plan in node.functions.items():
            for trigger in plan.handler.triggers:
                where = trigger.options.on_failure
                if where not in {None, "drop"}:
                    wanted.setdefault(str(where), []).append(name)
        node.on_parked = lambda number: self._made_destinations().tell(number)
        node.look_for_parked = lambda: self._made_destinations().look()
        if wanted or node.parked.unsent():
            self._made_destinations().start(wanted)

    def _made_destinations(self) -> Destinations:
        """With the first document: a node whose mappings have no destinations has none of it in memory."""
        if self._destinations is None:
            from kflow.runtime.mappings.destinations import Destinations

            parked, invoke = self._node.parked, self.dispatcher.invoke
            self._destinations = Destinations(self.host, parked, invoke, self.home, scale=self._scale)
            self._destinations.counted = self._count_given_up
        return self._destinations

    def _count_given_up(self, entry: ParkedBatch, name: str) -> None:
        """A failure document was sent, or cannot be. Source: documented: types of metrics."""
        if name == eventcounts.DROPPED:
            self._node.function_measures.note(entry.function, "DestinationDeliveryFailures", of(1))
        if entry.origin is not None and self.runner.streams.counts(entry.origin.mapping):
            counted = Counted(entry.function, entry.origin.mapping, {name: len(entry.records)})
            self._node.function_measures.counted(counted)

    def stop(self, then: Callable[[], object]) -> None:
        """End what answers for as long as it is let; call back when nothing is open any more."""
        self.kinesis.end_subscriptions()
        self.smaller.lambdas.stop(lambda: self._stop_destinations(then))

    def _stop_destinations(self, then: Callable[[], object]) -> None:
        if self._destinations is None:
            self._stop_services(then)
        else:  # it calls the services
            self._destinations.stop(lambda: self._stop_services(then))

    def _stop_services(self, then: Callable[[], object]) -> None:
        last = partial(self.smaller.stop, then if self.forwarder is None else partial(self.forwarder.stop, then))
        if self._queues is None:
            self._close_queues(last)
        else:
            self._queues.close(lambda: self._close_queues(last))

    def _close_queues(self, then: Callable[[], object]) -> None:
        if self._sqs is None:
            self.kinesis.queues.close(then)
        else:
            self._sqs.close(lambda: self.kinesis.queues.close(then))

    @property
    def queues(self) -> QueuePolling:
        """What polls queues for event source mappings; made when there is the first of them."""
        if self._queues is None:
            from kflow.runtime.mappings.queuepoller import Parts as QueueParts
            from kflow.runtime.mappings.queuepolling import QueuePolling

            options = self._node.options
            self._queues = QueuePolling(
                QueueParts(
                    host=self.host,
                    fleet=self.fleet,
                    sqs=self._made_sqs,
                    timeout=self._timeout,
                    choose=self.smaller.lambdas.choose,
                    tell=self._node.people.tell,
                    most=options.max_workers,
                    backoff_scale=options.retry_backoff_scale,
                    counted=self._node.function_measures.counted,
                )
            )
            self._node.beside = self._queues
            self.fleet.changed = self._queues.function_changed
        return self._queues

    def start_queues(self, ready: Callable[[list[HandlerInfo]], object], *, again: bool = False) -> None:
        """Poll for the handlers that are decorated with a queue.

        Args:
            ready: told of each when all queues are there.
            again: they are polled already, and only what is missing is made.
        """
        plans = list(self._node.functions.values())
        if not any(plan.handler.queues for plan in plans):
            ready([])
            return
        from kflow.runtime.mappings import queuetriggers

        queuetriggers.start(self.queues, self.home, plans, ready, again=again)

    def queue_totals(self) -> Mapping[str, Totals]:
        """What became of queues' messages since the runtime started, by function."""
        return {} if self._queues is None else self._queues.totals

    def _queues_again(self, then: Callable[[], object]) -> None:
        """Queues that handlers are decorated with are made anew, empty."""
        self.start_queues(lambda _: then(), again=True)

    def _timeout(self, key: str) -> int | None:
        plan = self._node.functions.get(key)
        return None if plan is None or not plan.exists else plan.timeout_s

    def _made_sqs(self) -> Sqs:
        self.dispatcher.bound("sqs", "ReceiveMessage")
        assert self._sqs is not None, "it was just made"
        return self._sqs

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
        from kflow.runtime.measures.sqs import SqsMeasures
        from kflow.services.sqs.models import loose
        from kflow.services.sqs.parts import Parts as SqsParts
        from kflow.services.sqs.service import Sqs

        model = self.models["sqs"] = loose(models.load("sqs", cache=self._node.folder.path / "models"))
        self._sqs = Sqs(SqsParts(host=self.host, home=self.home, url=lambda: self._node.endpoint or ""))
        self._sqs.directory.counted = SqsMeasures(self._node.measures, self.host.call_later).turn
        return self._sqs, model

    def _make_forwarder(self, settings: Settings) -> Forwarder | None:
        if not settings.services:
            return None
        from kflow.runtime.forwarding import forwarder

        return forwarder.make(
            settings,
            SERVICES,
            run_dir=self._node.folder.run_dir,
            post=lambda call: self._node.loop.call_soon_threadsafe(guarded(call)),
            notice=self.host.notice,
        )

    def _clear_sqs(self, then: Callable[[], object]) -> None:
        """Delete the queues, also of a node that nobody asked for them yet."""
        if self._sqs is None and not (self._node.folder.path / "queues").is_dir():
            then()
            return
        self._made_sqs().clear(lambda: self._queues_again(then))

    def _clear_objects(self, then: Callable[[KflowError | None], object]) -> None:
        """Remove all buckets."""
        if not (self._node.folder.path / "s3").is_dir():
            then(None)
            return
        from kflow.broker.objects import Objects

        self.host.submit(Objects.of(self._node.folder).clear, then)

    def stranger(self, name: str) -> str:
        """Somebody calls a service that is not here: people are told once; returns what the caller is told."""
        known = ", ".join(SERVICES)
        if not _NAME.fullmatch(name):  # it is the caller's text, and goes to a terminal
            return f"this endpoint speaks {known} only"
        if name not in self._strangers and len(self._strangers) < _HINTS:
            self._strangers.add(name)
            self.host.notice(
                "warning",
                f"a call of {name} came to the endpoint, and was refused: kflow speaks {known} only; {_remedy(name)}, "
                "or give that client an endpoint of its own (endpoint_url)",
            )
        return f"kflow has no {name}: this endpoint speaks {known} only; {_remedy(name)}"

    def _moved(self, stream: StreamMap) -> None:
        """The engines first, then the readers of its shards."""
        is_new = self.registry.by_id(stream.id) is None
        self.host.learn(stream)
        self.registry.moved(stream)
        if is_new and stream.is_home:
            registering.register_again(self.registry, stream, self._node.functions.values(), self.host.notice)
        self.host.tell(stream)
        if is_new:
            self.runner.streams.stream_born(stream)

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
    from kflow.runtime.endpoint.faults import Faults

    faults = Faults(settings.faults, settings.fault_seed)
    for name, model in known.items():
        faults.check(name, model.operation_names)
    return faults


def _remedy(name: str) -> str:
    """What to set so that calls of a service go elsewhere; not all are signed for the name that the settings use."""
    key = name if (models.data_folder() / name).is_dir() else "default"
    return f"to pass its calls on, set {key} in [tool.kflow.services] to moto, http://HOST:PORT or aws:PROFILE"


def _before(faults: Faults | None, known: Mapping[str, Model]) -> Before | None:
    """What is asked before each call: what goes wrong on purpose. None: nothing."""
    if faults is None:
        return None

    def ask(service: str, operation: str, context: Context) -> AwsError | float | None:
        del context
        found = known[service].operation(operation)
        return faults.meet(service, operation, () if found is None else found.errors)

    return ask
