"""The endpoint of a node: the web server, the door to the AWS services, and the services themselves, on its loop.

    made ---> bound: connections wait in the kernel --start()--> serves --stop()--> answers what is under way --> closed

It is bound before anything else is set up, because handlers are told the port when they are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from kflow.aws.door import Authenticate, Door
from kflow.aws.guard import Guard
from kflow.broker import handshake, wirecalls
from kflow.broker.folder import DataFolder
from kflow.countdown import countdown
from kflow.lambda_.event_size import EVENT_BYTES
from kflow.runtime import descriptors
from kflow.runtime.endpoint import ports
from kflow.runtime.endpoint.pages import Facts, Pages
from kflow.runtime.endpoint.services import SERVICES, Services
from kflow.runtime.endpoint.warming import Warming
from kflow.runtime.feed import HandlerInfo, Totals
from kflow.runtime.intake.connection import Connection
from kflow.runtime.intake.ingest import Ingest
from kflow.runtime.loop import Loop
from kflow.runtime.node.node import Node
from kflow.runtime.tools.control import Control
from kflow.settings import Settings
from kflow.web.exchange import Exchange, Handler, Headers
from kflow.web.options import Tls, WebOptions
from kflow.web.server import Server

GRACE_S: Final = 5.0
"""At the end, answers that are under way have so long."""
CODE_BYTES: Final = 70_167_211
"""Of requests that upload code. Source: recorded: Lambda, the text of RequestEntityTooLargeException."""
CODE_TARGETS: Final = ("/2015-03-31/functions", "/2018-10-31/layers")
"""Where code is uploaded."""
_UPLOADS: Final = (
    ("/code", "UpdateFunctionCode", CODE_BYTES),
    ("/versions", "PublishLayerVersion", CODE_BYTES),
    ("/invocations", "InvokeFunction", EVENT_BYTES),
    ("", "CreateFunction", CODE_BYTES),
)
"""What such a path ends with, and what a body that is too long is told of."""
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared
"""Addresses that are no name of this machine: it may be called by any."""


class Endpoint:
    """Belongs to the loop's thread.

    Attributes:
        loop: hosts it.
        url: where it is reached from this machine: https, where it speaks TLS.
        plain_url: the same without TLS: for handlers, whose SDKs would have to trust a certificate of our own making.

    Raises:
        UsageError: the port is taken and no other will do, or TLS cannot be had.
    """

    def __init__(self, settings: Settings, folder: DataFolder, loop: Loop) -> None:
        self.loop = loop
        self._settings = settings
        self._data_dir = folder.path
        self._door: Handler | None = None
        self._services: Services | None = None
        self._server = Server(loop, self._handle, options=_options(settings, folder))
        port = ports.choose(settings.bind, settings.port, is_set=settings.given("port"), listen=self._server.listen)
        self.url = ports.url(settings.bind, port, tls=settings.tls)
        self.plain_url = ports.url(settings.bind, port, tls=False)
        ports.keep(self._data_dir, self.url)

    def start(self, node: Node, ingest: Ingest, control: Control) -> None:
        """Serve from now on; what connected meanwhile is answered in the loop's first rounds."""
        settings = self._settings
        services = self._services = Services(settings, node, ingest, control)
        door = Door(
            services.dispatcher,
            home=services.home,
            guard=Guard(None if settings.bind in _EVERYWHERE else (settings.bind,)),
            authenticate=_authenticate(settings, services),
            own=Pages(self._facts(services)),
            stranger=services.stranger,
            late=services.form,
            elsewhere=services.forwarder,
        )
        self._door = Warming(door, services.host.submit, node.folder.path / "models")
        node.endpoint = self.url
        node.before_end = self.stop
        services.send_failures()
        if ports.is_loopback(settings.bind):
            return
        if settings.auth != "strict":
            node.notice(
                "warning",
                f"the endpoint listens at {settings.bind}, and whoever reaches it may read and change everything: "
                "set auth = 'strict' and access_keys, or bind = '127.0.0.1'",
            )
        elif settings.allow_reset:
            node.notice(
                "warning",
                f"the endpoint listens at {settings.bind}, and whoever reaches it may empty it by /_kflow/reset, which "
                "nobody signs: leave allow_reset out, or set bind = '127.0.0.1'",
            )

    def start_queues(self, ready: Callable[[list[HandlerInfo]], object]) -> None:
        """Poll queues for the handlers that are decorated with them; `ready` is told of each when all are there."""
        assert self._services is not None, "it is started before"
        self._services.start_queues(ready)

    def queue_totals(self) -> Mapping[str, Totals]:
        """What became of queues' messages, by function."""
        return {} if self._services is None else self._services.queue_totals()

    def call(self, connection: Connection, request: int, call: wirecalls.Call) -> None:
        """Answer one call of this machine's own clients, which comes over the node's socket."""
        assert self._services is not None, "the loop runs only once everything is set up"
        self._services.calling.call(connection, request, call)

    def stop(self, then: Callable[[], None]) -> None:
        """Accept nothing more, answer what is under way, then call back; what takes too long is cut off."""
        assert self._services is not None, "the loop runs only once everything is set up"
        over = countdown(2, then)
        self._server.close(GRACE_S, over)
        self._services.stop(over)

    def close(self) -> None:
        """Let go of everything at once. After `stop`, or where it never came to that."""
        self._server.close()
        ports.forget(self._data_dir)

    def _handle(self, exchange: Exchange) -> None:
        assert self._door is not None, "the loop runs only once everything is set up"
        self._door(exchange)

    def _facts(self, services: Services) -> Facts:
        settings = self._settings
        project = settings.project
        is_open = settings.auth != "strict" or ports.is_loopback(settings.bind)
        return Facts(
            url=self.url,
            project=None if project is None else str(project),
            services=SERVICES,
            version=handshake.library_version(),
            streams=services.streams if is_open else None,
            tables=services.tables,
            metrics=services.metrics if is_open else None,
            reset=services.reset if settings.allow_reset else None,
            code=services.smaller.lambdas.send_code,
        )


def _authenticate(settings: Settings, services: Services) -> Authenticate | None:
    if settings.auth != "strict":
        return None
    from kflow.aws.signature import Verifier

    return Verifier(settings.access_keys, services.host.now_ms, services.smaller.session).verify


def _options(settings: Settings, folder: DataFolder) -> WebOptions:
    tls = None
    if settings.tls:
        tls = Tls(certificate=settings.tls_cert, key=settings.tls_key, folder=folder.path / "tls")
    return WebOptions(
        large_bytes=CODE_BYTES,
        large_targets=CODE_TARGETS,
        large_refusal=_too_large,
        connections=settings.http_connections or descriptors.connections(descriptors.raise_limit()),
        idle_s=float(settings.http_idle_seconds),
        tls=tls,
    )


def _too_large(method: str, target: str) -> tuple[Headers, bytes]:
    """What Lambda says to a body that it does not even read. Source: recorded."""
    del method
    path = target.partition("?")[0]
    operation, most = next(each[1:] for each in _UPLOADS if path.endswith(each[0]))
    text = f"Request must be smaller than {most} bytes for the {operation} operation"
    kind = b"RequestEntityTooLargeException"
    return ((b"content-type", b"application/json"), (b"x-amzn-errortype", kind)), json.dumps({"Message": text}).encode()
