"""The door: each request of the endpoint comes through here, is named, checked, and passed on to a service.

What AWS checks comes in AWS's order, so a request that is wrong in two ways gets the error that AWS gives.
Source: recorded: kinesalite's test-suite against AWS, 2014-2020.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from kflow.aws.calls import Context, Place
from kflow.aws.cbor_wire import CborWire
from kflow.aws.dispatch import Bound, Dispatcher
from kflow.aws.errors import AccessRefused, InternalFailure, SerializationFailed, UnknownOperation
from kflow.aws.formats import Format
from kflow.aws.guard import Guard
from kflow.aws.identity import Callers, RequestIds
from kflow.aws.shapes import Model
from kflow.aws.strangers import STATUS, refusal
from kflow.aws.webcall import WebCall, WireWriter
from kflow.aws.wires import JsonWire, Wire, error_body
from kflow.errors import AwsError
from kflow.web.exchange import Exchange, Handler

logger = logging.getLogger(__name__)

OWN: Final = "/_kflow/"
"""Paths that are kflow's own."""

Authenticate = Callable[[Exchange, Model], object]
"""Strict authentication: raises the `AwsError` that says what is wrong with the signature."""

Late = Callable[[Exchange, str], tuple[Format, list[Model]] | None]
"""A format that is made when it is first needed, and the models that it is for; None: it is for others."""

_EXPOSED: Final = b"x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date"
_CORS: Final = [(b"Access-Control-Allow-Origin", b"*"), (b"Access-Control-Expose-Headers", _EXPOSED)]
_UNNAMED: Final = "Unable to determine service/operation name to be authorized"
_CORAL: Final = "com.amazon.coral.service#"
_JSON: Final = b"application/json"

Head = list[tuple[bytes, bytes]]
Known = tuple[Bound, Wire, Callable[[bytes], Any]]
"""An operation, the encoding of its input, and what reads that."""


class Door:
    """The handler of the web server. Belongs to the loop's thread; raises nothing."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        home: Place,
        guard: Guard | None = None,
        formats: Sequence[Format] = (),
        authenticate: Authenticate | None = None,
        own: Handler | None = None,
        stranger: Callable[[str], str] | None = None,
        late: Late | None = None,
    ) -> None:
        """Open it over these services.

        Args:
            dispatcher: performs the calls.
            home: account and region of who does not say.
            guard: checks `Host` and `Origin`; by default only names of loopback are admitted.
            formats: the protocols besides JSON and CBOR.
            authenticate: None: any credentials do, and none too.
            own: answers the paths under `/_kflow/`.
            stranger: told of a service that a request is signed for and that is not here; says what to answer.
            late: asked of requests without a target for another format, with the name they are signed for.
        """
        self._dispatcher = dispatcher
        self._callers = Callers(home)
        self._guard = guard or Guard()
        self._fine = self._guard.fine
        self._authenticate = authenticate
        self._own = own
        self._stranger = stranger
        self._late = late
        deferred = dispatcher.deferred
        self._signing_names = {model.signing_name for model in dispatcher.models.values()}
        self._signing_names |= {each.signing_name for each in deferred.values()}
        self._ids = RequestIds()
        self._targets: dict[str, Bound] = {}
        self._known: dict[tuple[str, str], Known] = {}  # by target and content type, where these suit each other
        self._prefixes = {model.target_prefix: name for name, model in dispatcher.models.items() if model.target_prefix}
        self._prefixes |= {each.target_prefix: name for name, each in deferred.items() if each.target_prefix}
        self._json = JsonWire("1.1")
        self._cbor = CborWire()
        self._wires: dict[str, Wire] = {}
        versions = {model.json_version for model in dispatcher.models.values()}
        versions = (versions | {each.json_version for each in deferred.values()}) - {"", "1.1"}
        wires: list[Wire] = [self._json, self._cbor, *map(JsonWire, sorted(versions))]
        for wire in wires:
            self._wires[wire.content_type.decode()] = wire
        self._writers = {wire: WireWriter(wire, dispatcher.call_later) for wire in self._wires.values()}
        self._formats = [
            (format_, [model for model in dispatcher.models.values() if model.protocol == format_.name])
            for format_ in formats
        ]

    def __call__(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""
        try:
            self._admit(exchange)
        except Exception:
            logger.exception("a request broke the door method=%s", exchange.method)
            if not exchange.is_closed:
                exchange.respond(
                    500, [(b"Content-Type", self._json.content_type)], error_body(self._json, InternalFailure())
                )

    def _admit(self, exchange: Exchange) -> None:
        headers = exchange.headers
        request_id, extended_id = self._ids.new()
        host = headers.get("host")
        if host not in self._fine and not self._guard.admits_host(host):
            text = (
                f"Host {host!r} is no name of this endpoint: "
                "call it by localhost or 127.0.0.1, or by the name it is bound to"
            )
            _respond_xml(exchange, [(b"x-amzn-RequestId", request_id.encode())], AccessRefused(text))
            return
        head: Head = [(b"x-amzn-RequestId", request_id.encode())]
        origin = headers.get("origin")
        if origin is not None and not self._admit_origin(exchange, origin, head):
            return
        if self._own is not None and exchange.target.startswith(OWN):
            self._own(exchange)
            return
        head.append((b"x-amz-id-2", extended_id))
        is_aimed = "x-amz-target" in headers or not (self._formats or self._late)
        if not is_aimed and self._try_formats(exchange, head, request_id):
            return
        self._answer(exchange, head, request_id)

    def _admit_origin(self, exchange: Exchange, origin: str, head: Head) -> bool:
        """False: it has been answered."""
        if not self._guard.admits_origin(origin):
            if exchange.method in {"GET", "HEAD"}:
                return True
            text = f"Origin {origin!r} may not change anything here: only pages that this machine serves may"
            _respond_xml(exchange, head, AccessRefused(text))
            return False
        if exchange.method != "OPTIONS":
            head += _CORS
            return True
        head += [(b"Access-Control-Allow-Origin", b"*"), (b"Access-Control-Max-Age", b"172800")]
        for asked, granted in (
            ("access-control-request-headers", b"Access-Control-Allow-Headers"),
            ("access-control-request-method", b"Access-Control-Allow-Methods"),
        ):
            if (value := exchange.headers.get(asked)) is not None:
                head.append((granted, value.encode("latin-1", "replace")))
        exchange.respond(200, head)
        return False

    def _answer(self, exchange: Exchange, head: Head, request_id: str) -> None:
        """AWS's JSON protocol, whatever the encoding: the checks in AWS's order."""
        headers, body = exchange.headers, exchange.body
        if exchange.method != "POST":
            if not self._refuse_stranger(exchange, head, request_id):
                _respond_xml(exchange, head, AccessRefused(_UNNAMED))
            return
        target, content_type = headers.get("x-amz-target", ""), headers.get("content-type", "")
        bound: Bound | None
        wire: Wire | None
        if body and (known := self._known.get((target, content_type))) is not None:
            bound, wire, read = known
            given = read(body)
        else:
            bound = self._targets.get(target) or self._find(target)
            if bound is None and self._refuse_stranger(exchange, head, request_id):
                return
            wire = self._wires.get(content_type)
            if wire is None:
                content_type = content_type.partition(";")[0].strip().lower()
                wire = self._wires.get(content_type)
            if not body:
                kind: AwsError = UnknownOperation() if bound is None else SerializationFailed()
                self._refuse(exchange, head, wire if isinstance(wire, JsonWire) else self._cbor, kind)
                return
            if wire is None or (bound is not None and not self._speaks(bound, wire)):
                self._refuse_type(exchange, head, bound, content_type)
                return
            given = None
            if bound is not None:
                read = wire.reader(bound)
                self._known[target, content_type] = bound, wire, read
                given = read(body)
        plain: dict[str, Any] | None = None
        if given is None:
            try:
                plain = wire.plain(body)
            except SerializationFailed as error:
                self._refuse(exchange, head, wire, error, bound)
                return
            if bound is None:
                self._refuse(exchange, head, wire, UnknownOperation())
                return
        assert bound is not None
        caller = self._callers.of(headers, exchange.target)
        accept = headers.get("accept")
        accepted = wire if accept is None else self._wires.get(accept, wire)
        if plain is not None or self._authenticate is not None:
            try:
                if self._authenticate is not None:
                    self._authenticate(exchange, bound.operation.model)
                if plain is not None:
                    given = wire.exact(bound, plain)
            except AwsError as error:
                self._refuse(exchange, head, accepted, error, bound)
                return
        context = Context(
            place=caller.place,
            request_id=request_id,
            access_key=caller.access_key,
            protocol=wire.name,
            version=exchange.version,
            base_url=_base_url(exchange),
        )
        call = WebCall(exchange, context, bound.operation, self._writers[accepted], head)
        self._dispatcher.run(bound, call, given)

    def _refuse_stranger(self, exchange: Exchange, head: Head, request_id: str) -> bool:
        """Whether the request is signed for a service that is not here, and so was refused."""
        name = self._callers.of(exchange.headers, exchange.target).signing_name
        if self._stranger is None or not name or name in self._signing_names:
            return False
        headers, body = refusal(exchange, name, self._stranger(name), request_id)
        exchange.respond(STATUS, [*head, *headers], body)
        return True

    def _find(self, target: str) -> Bound | None:
        prefix, _, name = target.rpartition(".")
        service = self._prefixes.get(prefix)
        bound = None if service is None else self._dispatcher.bound(service, name)
        if bound is not None:
            self._targets[target] = bound
        return bound

    def _speaks(self, bound: Bound, wire: Wire) -> bool:
        model = bound.operation.model
        return wire is self._cbor or wire.content_type.endswith(model.json_version.encode())

    def _refuse(self, exchange: Exchange, head: Head, wire: Wire, error: AwsError, bound: Bound | None = None) -> None:
        response = self._writers[wire].error(None if bound is None else bound.operation, error, "")
        exchange.respond(response.status, [*head, *response.headers], response.body)

    def _refuse_type(self, exchange: Exchange, head: Head, bound: Bound | None, content_type: str) -> None:
        """Bodies of a type that AWS does not take. `application/json` it half takes."""
        if content_type == "application/json":
            try:
                self._json.plain(exchange.body)
            except SerializationFailed as error:
                status, code = 400, error.code
            else:
                status, code = 404, UnknownOperation.code
            head.append((b"Content-Type", _JSON))
            body = f'{{"Output":{{"__type":"{_CORAL}{code}"}},"Version":"1.0"}}'
            exchange.respond(status, head, body.encode())
        elif bound is None:
            _respond_xml(exchange, head, AccessRefused(_UNNAMED))
        else:
            exchange.respond(404, head, b"<UnknownOperationException/>\n")

    def _try_formats(self, exchange: Exchange, head: Head, request_id: str) -> bool:
        """Whether another protocol took the request."""
        caller = self._callers.of(exchange.headers, exchange.target)
        late = None if self._late is None else self._late(exchange, caller.signing_name)
        for format_, models in self._formats if late is None else [late, *self._formats]:
            meant = [model for model in models if caller.signing_name in {"", model.signing_name}]
            operation = None
            try:
                operation = format_.route(meant, exchange) if meant else None
                if operation is None:
                    continue
                bound = self._dispatcher.bound(operation.model.service, operation.name)
                assert bound is not None, "its model is one of the dispatcher's"
                if self._authenticate is not None:
                    self._authenticate(exchange, operation.model)
                given = bound.local_input.checked(format_.parse(operation, exchange))
            except AwsError as error:
                response = format_.error(operation, error, request_id)
                exchange.respond(response.status, [*head, *response.headers], response.body)
                return True
            context = Context(
                place=caller.place,
                request_id=request_id,
                access_key=caller.access_key,
                protocol=format_.name,
                version=exchange.version,
                base_url=_base_url(exchange),
            )
            self._dispatcher.run(bound, WebCall(exchange, context, operation, format_, head), given)
            return True
        return False


def _base_url(exchange: Exchange) -> str:
    return f"{'https' if exchange.is_secure else 'http'}://{exchange.headers.get('host', '')}"


def _respond_xml(exchange: Exchange, head: Head, error: AwsError) -> None:
    """Where no encoding was agreed on. Without a content type, as AWS."""
    text = str(error).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    body = f"<{error.code}>\n  <Message>{text}</Message>\n</{error.code}>\n"
    exchange.respond(error.http_status, head, body.encode())
