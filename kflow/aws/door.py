"""The door: each request of the endpoint comes through here, is named, checked, and passed on to a service.

What AWS checks comes in AWS's order, so a request that is wrong in two ways gets the error that AWS gives.
Source: recorded: kinesalite's test-suite against AWS, 2014-2020.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from kflow.aws import rpc
from kflow.aws.calls import Context, Place
from kflow.aws.cbor_wire import CborWire
from kflow.aws.dispatch import Bound, Dispatcher
from kflow.aws.errors import AccessRefused, InternalFailure, SerializationFailed, UnknownOperation
from kflow.aws.failures import named
from kflow.aws.formats import Format
from kflow.aws.guard import Guard
from kflow.aws.identity import Caller, Callers, RequestIds
from kflow.aws.inflating import body_of
from kflow.aws.shapes import Model
from kflow.aws.strangers import STATUS, Signee, refusal, signee
from kflow.aws.webcall import WebCall, WireWriter
from kflow.aws.wires import JsonWire, Wire, error_body
from kflow.errors import AwsError
from kflow.web.exchange import Exchange, Handler, Headers

logger = logging.getLogger(__name__)

OWN: Final = "/_kflow/"
"""Paths that are kflow's own."""

Authenticate = Callable[[Exchange, Signee], object]
"""Strict authentication: raises the `AwsError` that says what is wrong with the signature."""

Late = Callable[[Exchange, str], tuple[Format, list[Model]] | None]
"""A format that is made when it is first needed, and the models that it is for; None: it is for others."""


class Elsewhere(Protocol):
    """Passes on what others answer.

    Attributes:
        takes: signing names, and prefixes of targets, of services that are here and are passed on all the same.
    """

    takes: frozenset[str]

    def forward(self, exchange: Exchange, caller: Caller, extra: Headers, request_id: str) -> bool:
        """Have a request answered, with these headers besides; False: nobody else answers it."""
        ...


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
        elsewhere: Elsewhere | None = None,
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
            elsewhere: asked of requests of services that are not here, and of those that it takes.
        """
        self._dispatcher = dispatcher
        self._callers = Callers(home)
        self._guard = guard or Guard()
        self._fine = self._guard.fine
        self._authenticate = authenticate
        self._own = own
        self._stranger = stranger
        self._late = late
        self._elsewhere = elsewhere
        self._taken: frozenset[str] = frozenset() if elsewhere is None else elsewhere.takes
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
        self._rpc: tuple[rpc.RpcWire, WireWriter] | None = None
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
        if self._taken and self._is_taken(exchange) and self._pass_on(exchange, head, request_id):
            return
        head.append((b"x-amz-id-2", extended_id))
        if "smithy-protocol" in headers and "x-amz-target" not in headers:
            self._answer_rpc(exchange, head, request_id)
            return
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
                plain = wire.plain(body_of(exchange))
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
                self._refuse(exchange, head, accepted, named(bound.operation, error), bound)
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

    def _answer_rpc(self, exchange: Exchange, head: Head, request_id: str) -> None:
        """The protocol whose paths name the operation."""
        bound = self._find(rpc.target(exchange.target))
        if bound is None and self._refuse_stranger(exchange, head, request_id):
            return
        if self._rpc is None:
            wire = rpc.RpcWire()
            self._rpc = wire, rpc.writer(wire, self._dispatcher.call_later)
        wire, writer = self._rpc
        try:
            if bound is None or exchange.method != "POST" or exchange.headers["smithy-protocol"] != wire.name:
                raise UnknownOperation
            if self._authenticate is not None:
                self._authenticate(exchange, bound.operation.model)
            body = body_of(exchange)
            given = wire.quick(bound, body)
            if given is None:
                given = wire.exact(bound, wire.plain(body))
        except AwsError as error:
            operation = None if bound is None else bound.operation
            refused = writer.error(operation, named(operation, error), request_id)
            exchange.respond(refused.status, [*head, *refused.headers], refused.body)
            return
        caller = self._callers.of(exchange.headers, exchange.target)
        context = Context(
            place=caller.place,
            request_id=request_id,
            access_key=caller.access_key,
            protocol=wire.name,
            version=exchange.version,
            base_url=_base_url(exchange),
        )
        self._dispatcher.run(bound, WebCall(exchange, context, bound.operation, writer, head), given)

    def _refuse_stranger(self, exchange: Exchange, head: Head, request_id: str) -> bool:
        """Whether the request is of a service that is not here, and so was passed on or refused."""
        name = self._callers.of(exchange.headers, exchange.target).signing_name
        prefix = exchange.headers.get("x-amz-target", "").rpartition(".")[0]
        if name in self._signing_names or prefix in self._prefixes:
            return False
        if self._pass_on(exchange, head, request_id):
            return True
        if self._stranger is None or not name:
            return False
        headers, body = refusal(exchange, name, self._stranger(name), request_id)
        exchange.respond(STATUS, [*head, *headers], body)
        return True

    def _is_taken(self, exchange: Exchange) -> bool:
        """Whether it is of a service that is here, and that others answer all the same."""
        target = exchange.headers.get("x-amz-target", "")
        return (
            target.rpartition(".")[0] in self._taken
            or self._callers.of(exchange.headers, exchange.target).signing_name in self._taken
        )

    def _pass_on(self, exchange: Exchange, head: Head, request_id: str) -> bool:
        """Whether others answer it; in strict mode only for who has a key of this endpoint."""
        if self._elsewhere is None:
            return False
        caller = self._callers.of(exchange.headers, exchange.target)
        extra = [(name, value) for name, value in head if name.startswith(b"Access-Control-")]
        if self._authenticate is None:
            return self._elsewhere.forward(exchange, caller, extra, request_id)
        try:
            self._authenticate(exchange, signee(exchange, caller.signing_name))
        except AwsError as error:
            headers, body = refusal(
                exchange, caller.signing_name, str(error), request_id, error.code.removesuffix("Exception")
            )
            exchange.respond(error.http_status, [*head, *headers], body)
            return True
        return self._elsewhere.forward(exchange, caller, extra, request_id)

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
                trace=exchange.headers.get("x-amzn-trace-id", ""),
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
