"""Functions as resources, put together for a node: made when somebody calls, or at the start where some are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kflow.aws.calls import Place
from kflow.errors import KflowError
from kflow.runtime.functions.fleet import Fleet
from kflow.runtime.streams.kinesis_host import KinesisHost
from kflow.web.exchange import Exchange

if TYPE_CHECKING:
    from kflow.aws.calls import CallService
    from kflow.lambda_.control.layers import Layers
    from kflow.lambda_.control.mappings import Mappings
    from kflow.lambda_.control.registry import Registry
    from kflow.lambda_.queue_mapping import QueueMapping
    from kflow.runtime.functions.asyncinvokes import AsyncInvokes
    from kflow.runtime.mappings.runner import MappingRunner
    from kflow.services.lambda_.service import Lambda

_FOLDER: Final = "lambda"


class Lambdas:
    """Belongs to the loop's thread.

    Args:
        host: the node.
        fleet: runs functions.
        url: where the endpoint is.
        invoke: calls another service, once something was made.

    Attributes:
        runner: runs event source mappings; set before anything is made.
    """

    def __init__(self, host: KinesisHost, fleet: Fleet, url: Callable[[], str], invoke: CallService) -> None:
        self.runner: MappingRunner
        self._host = host
        self._fleet = fleet
        self._url = url
        self._invoke = invoke
        self._functions: Registry | None = None
        self._layers: Layers | None = None
        self._service: Lambda | None = None
        self._mappings: Mappings | None = None
        self._events: AsyncInvokes | None = None

    @property
    def is_there(self) -> bool:
        """Whether anything is made, or kept of an earlier run."""
        return self._functions is not None or (self._host.folder.path / _FOLDER).is_dir()

    def start(self) -> None:
        """Before the node serves: functions of earlier runs work from the first call on."""
        if self.is_there:
            self.mappings  # noqa: B018  # made by being asked for, and functions before them
            self.events.start()

    def stop(self, then: Callable[[], object]) -> None:
        """Run no asynchronous invocation any more; calls back when all that is known of them is kept."""
        if self._events is None:
            then()
        else:
            self._events.close(then)

    @property
    def functions(self) -> Registry:
        """All functions."""
        if self._functions is None:
            from kflow.lambda_.control.registry import Registry

            made = Registry(self._host, self.home, self._fleet, self.layers.packages)
            made.load()
            self._functions = made
        return self._functions

    def choose(self, mapping: QueueMapping) -> str:
        """Key of what an invocation for a queue runs: by the weights of an alias, where it has some."""
        _, _, _, region, account, _, _, *qualifier = mapping.function_arn.split(":")
        if not qualifier:
            return mapping.key
        from kflow.lambda_.asyncconfig import choose

        try:
            return choose(self.functions.target(Place(account, region), mapping.function_arn)).key
        except KflowError:  # it is gone; the fleet says so
            return mapping.key

    @property
    def layers(self) -> Layers:
        """All layers, and the packages of all code."""
        if self._layers is None:
            from kflow.lambda_.control.layers import Layers
            from kflow.lambda_.control.packages import Packages

            self._layers = Layers(self._host, self.home, Packages(self._host))
            self._layers.load()
        return self._layers

    @property
    def mappings(self) -> Mappings:
        """All event source mappings; those of queues run from now on."""
        if self._mappings is None:
            from kflow.lambda_.control import orphans
            from kflow.lambda_.control.mappings import Mappings

            self.functions  # noqa: B018  # what is read is run by one of them
            made = Mappings(self._host, self.home, self.runner)
            made.load()
            self._mappings = made
            for text in orphans.texts((each.mapping for each in made.everywhere()), self.functions):
                self._host.notice("warning", text)
        return self._mappings

    @property
    def home(self) -> Place:
        """Account and region of the data folder."""
        return Place(self._host.folder.account, self._host.folder.region)

    @property
    def events(self) -> AsyncInvokes:
        """Asynchronous invocations."""
        if self._events is None:
            from kflow.lambda_.asyncconfig import Configured
            from kflow.runtime.functions.asyncinvokes import AsyncInvokes
            from kflow.runtime.functions.deliveries import Deliveries

            self._events = AsyncInvokes(
                self._host,
                self._fleet,
                Configured(self.functions, self._fleet.most),
                Deliveries(self._host, self._invoke).send,
                self._fleet.retry_backoff_scale,
            )
            self._events.counted = self._host.function_measures.event
        return self._events

    @property
    def service(self) -> Lambda:
        """The operations."""
        if self._service is None:
            from kflow.services.lambda_.parts import Parts
            from kflow.services.lambda_.service import Lambda

            self._service = Lambda(
                Parts(
                    host=self._host,
                    home=self.home,
                    fleet=self._fleet,
                    functions=self.functions,
                    layers=self.layers,
                    events=self.events,
                    mappings=self.mappings,
                    runner=self.runner,
                    invoke=self._invoke,
                    url=self._url,
                )
            )
        return self._service

    def send_code(self, exchange: Exchange, name: str) -> bool:
        """Answer with a zip; False: nobody uses one of this name."""
        if not self.is_there:
            return False
        path = self.layers.packages.zip(name.removesuffix(".zip"))
        if path is None:
            return False
        from kflow.runtime.functions.fileanswer import send

        send(exchange, path, b"application/zip", self._host, self._host.folder.files)
        return True

    def clear(self, then: Callable[[], object]) -> None:
        """Delete all of it; calls back when nothing is left."""
        if self.is_there:
            self.events.clear(lambda: self.service.clear(then))
        else:
            then()
