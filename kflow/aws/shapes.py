"""A service's model, linked: its operations and the shapes of what they take and give.

All that the protocols know of a service comes from here. Made lazily from the digest (`kflow.aws.digest`): a shape or
an operation exists once somebody has asked for it. Words are those of AWS's model files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Raw: TypeAlias = Mapping[str, Any]
"""A part of the digest: JSON as in the model file, without documentation."""

SCALARS: Final = frozenset(
    {
        "string",
        "character",
        "integer",
        "long",
        "short",
        "byte",
        "float",
        "double",
        "bigdecimal",
        "biginteger",
        "boolean",
        "blob",
        "timestamp",
    }
)

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(name: str) -> str:
    """An operation's name as Python's: `ListTagsForStream` is `list_tags_for_stream`."""
    return _WORD.sub("_", name).lower()


class Shape:
    """What a value looks like. Its subclasses are all there are: `Structure`, `ListOf`, `MapOf`, `Scalar`.

    Attributes:
        model: whose shape it is.
        name: in the model; unique there.
        kind: the model's `type`: `structure`, `list`, `map`, or one of `SCALARS`.
        traits: the raw definition.
        minimum: least length (strings: characters; blobs: bytes; lists, maps: items) or least number; None: no bound.
        maximum: the greatest, likewise.
    """

    __slots__ = ("kind", "maximum", "minimum", "model", "name", "traits")

    def __init__(self, model: Model, name: str, traits: Raw) -> None:
        self.model = model
        self.name = name
        self.kind: str = traits["type"]
        self.traits = traits
        self.minimum: int | None = traits.get("min")
        self.maximum: int | None = traits.get("max")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model.service}.{self.name}>"


class Scalar(Shape):
    """A value without parts.

    Attributes:
        pattern: regular expression (Java's) that the whole string must match, as the model writes it; None: any.
        enum: the strings allowed, in the model's order; empty: any.
    """

    __slots__ = ("enum", "pattern")

    def __init__(self, model: Model, name: str, traits: Raw) -> None:
        super().__init__(model, name, traits)
        self.pattern: str | None = traits.get("pattern")
        self.enum: tuple[str, ...] = tuple(traits.get("enum", ()))


class Member:
    """A place where a shape is used: a structure's member, a list's element, a map's key or value.

    Traits given at the place win over those of the shape, as in AWS's SDKs.

    Attributes:
        name: in the model; `member`, `key` or `value` in lists and maps.
        shape: what the value looks like.
        traits: the raw reference.
        is_required: whether the structure requires it.
        location: `header`, `headers`, `querystring`, `uri`, `statusCode`, or empty: in the body.
        location_name: what the wire calls it where it is not called `name`; empty otherwise.
        wire_name: `location_name`, else `name`.
    """

    __slots__ = ("is_required", "location", "location_name", "name", "shape", "traits", "wire_name")

    def __init__(self, name: str, shape: Shape, traits: Raw, *, is_required: bool = False) -> None:
        self.name = name
        self.shape = shape
        self.traits = traits
        self.is_required = is_required
        self.location: str = traits.get("location", "")
        self.location_name: str = traits.get("locationName") or shape.traits.get("locationName", "")
        self.wire_name = self.location_name or name

    def trait(self, name: str, default: Any = None) -> Any:
        """A trait of this place, else of its shape: `flattened`, `xmlNamespace`, `timestampFormat`, `streaming` ..."""
        value = self.traits.get(name)
        return self.shape.traits.get(name, default) if value is None else value

    def __repr__(self) -> str:
        return f"<Member {self.name}: {self.shape!r}>"


class Structure(Shape):
    """Named members.

    Attributes:
        required: names of those that must be given.
        payload: the member that is the whole body (rest protocols); empty: all members without a location are in it.
        is_exception: whether it is an error.
        is_event_stream: whether its members are events.
        is_document: whether it is any JSON (`members` is empty then).
        error_code: of an exception: what the wire calls it.
        http_status: of an exception: status of the answer.
        is_sender_fault: of an exception: whether the caller can mend it.
    """

    __slots__ = (
        "_members",
        "error_code",
        "http_status",
        "is_document",
        "is_event_stream",
        "is_exception",
        "is_sender_fault",
        "payload",
        "required",
    )

    def __init__(self, model: Model, name: str, traits: Raw) -> None:
        super().__init__(model, name, traits)
        self._members: dict[str, Member] | None = None
        self.required: tuple[str, ...] = tuple(traits.get("required", ()))
        self.payload: str = traits.get("payload", "")
        self.is_event_stream: bool = traits.get("eventstream", False)
        self.is_document: bool = traits.get("document", False)
        self.is_exception: bool = traits.get("exception", False)
        error: Raw = traits.get("error", {})
        is_fault = bool(traits.get("fault")) or error.get("fault", False)
        self.error_code: str = error.get("code", name)
        self.http_status: int = error.get("httpStatusCode", 500 if is_fault else 400)
        self.is_sender_fault: bool = error.get("senderFault", self.http_status < 500)

    @property
    def members(self) -> dict[str, Member]:
        """By name, in the model's order."""
        if self._members is None:
            required = set(self.required)
            self._members = {
                name: Member(name, self.model.shape(traits["shape"]), traits, is_required=name in required)
                for name, traits in self.traits["members"].items()
            }
        return self._members


class ListOf(Shape):
    """Any number of one shape.

    Attributes:
        is_flattened: whether XML and query forms have no element around the elements.
    """

    __slots__ = ("_element", "is_flattened")

    def __init__(self, model: Model, name: str, traits: Raw) -> None:
        super().__init__(model, name, traits)
        self._element: Member | None = None
        self.is_flattened: bool = traits.get("flattened", False)

    @property
    def element(self) -> Member:
        """What it holds."""
        if self._element is None:
            traits = self.traits["member"]
            self._element = Member("member", self.model.shape(traits["shape"]), traits)
        return self._element


class MapOf(Shape):
    """Values by key; keys are strings.

    Attributes:
        is_flattened: whether XML and query forms have no element around the entries.
    """

    __slots__ = ("_key", "_value", "is_flattened")

    def __init__(self, model: Model, name: str, traits: Raw) -> None:
        super().__init__(model, name, traits)
        self._key: Member | None = None
        self._value: Member | None = None
        self.is_flattened: bool = traits.get("flattened", False)

    @property
    def key(self) -> Member:
        """What its keys look like."""
        if self._key is None:
            traits = self.traits["key"]
            self._key = Member("key", self.model.shape(traits["shape"]), traits)
        return self._key

    @property
    def value(self) -> Member:
        """What its values look like."""
        if self._value is None:
            traits = self.traits["value"]
            self._value = Member("value", self.model.shape(traits["shape"]), traits)
        return self._value


_KINDS: Final[Mapping[str, type[Shape]]] = {"structure": Structure, "list": ListOf, "map": MapOf}


class Operation:
    """What a client may ask of a service.

    Attributes:
        model: of its service.
        name: as on the wire, for example `PutRecord`.
        method_name: of the service object's method, for example `put_record`.
        http_method: for example `POST`.
        request_uri: path template, for example `/2015-03-31/functions/{FunctionName}`; may have a query.
        http_status: of a success.
        errors: names of the exception shapes that the model lists.
        traits: the raw definition.
    """

    __slots__ = (
        "_input",
        "_output",
        "errors",
        "http_method",
        "http_status",
        "method_name",
        "model",
        "name",
        "request_uri",
        "traits",
    )

    def __init__(self, model: Model, name: str, traits: Raw) -> None:
        self.model = model
        self.name = name
        self.method_name = snake_case(name)
        self.traits = traits
        http: Raw = traits.get("http", {})
        self.http_method: str = http.get("method", "POST")
        self.request_uri: str = http.get("requestUri", "/")
        self.http_status: int = int(http.get("responseCode", 200))
        self.errors: tuple[str, ...] = tuple(error["shape"] for error in traits.get("errors", ()))
        self._input: Structure | None = None
        self._output: Structure | None = None

    @property
    def input(self) -> Structure | None:
        """What it takes; None: nothing at all."""
        if self._input is None and "input" in self.traits:
            self._input = self.model.structure(self.traits["input"]["shape"])
        return self._input

    @property
    def output(self) -> Structure | None:
        """What it gives; None: an empty body."""
        if self._output is None and "output" in self.traits:
            self._output = self.model.structure(self.traits["output"]["shape"])
        return self._output

    @property
    def input_reference(self) -> Raw:
        """Traits at the place where the input is named: `locationName`, `xmlNamespace` (rest-xml)."""
        traits: Raw = self.traits.get("input", {})
        return traits

    @property
    def output_reference(self) -> Raw:
        """Traits at the place where the output is named: `resultWrapper` (query)."""
        traits: Raw = self.traits.get("output", {})
        return traits

    @property
    def event_stream(self) -> Member | None:
        """The output's member that is a stream of events; None: the answer is whole."""
        if self.output is None:
            return None
        for member in self.output.members.values():
            if isinstance(member.shape, Structure) and member.shape.is_event_stream:
                return member
        return None

    @property
    def static_context(self) -> Mapping[str, Any]:
        """Fixed parameters of the endpoint's rules, for example `{"OperationType": "data"}`."""
        given: Raw = self.traits.get("staticContextParams", {})
        return {name: value["value"] for name, value in given.items()}

    def __repr__(self) -> str:
        return f"<Operation {self.model.service}.{self.name}>"


class Model:
    """A service. Shapes and operations are made when they are asked for, and kept.

    Attributes:
        service: as botocore's data folder is named, for example `kinesis`.
        digest: what it is made of.
        metadata: the model's.
        protocol: `json`, `query`, `rest-json`, `rest-xml` or `ec2`; the first of `protocols` that kflow speaks.
        json_version: `1.0` or `1.1`; empty where the protocol is another.
        target_prefix: of the `X-Amz-Target` header, without the dot; empty where the protocol is another.
        signing_name: in the credential scope, for example `kinesis`.
        api_version: for example `2013-12-02`.
        operation_names: all, in the model's order.
    """

    __slots__ = (
        "_operations",
        "_raw_operations",
        "_raw_shapes",
        "_shapes",
        "api_version",
        "digest",
        "json_version",
        "metadata",
        "operation_names",
        "protocol",
        "service",
        "signing_name",
        "target_prefix",
    )

    def __init__(self, service: str, digest: Raw) -> None:
        self.service = service
        self.digest = digest
        metadata: Raw = digest["metadata"]
        self.metadata = metadata
        spoken = ("json", "rest-json", "query", "rest-xml", "ec2")
        offered = metadata.get("protocols", ())
        self.protocol: str = next((name for name in offered if name in spoken), metadata["protocol"])
        self.json_version: str = metadata.get("jsonVersion", "")
        self.target_prefix: str = metadata.get("targetPrefix", "")
        self.signing_name: str = metadata.get("signingName") or metadata["endpointPrefix"]
        self.api_version: str = metadata.get("apiVersion", "")
        self._raw_operations: Raw = digest["operations"]
        self._raw_shapes: Raw = digest["shapes"]
        self.operation_names: tuple[str, ...] = tuple(self._raw_operations)
        self._operations: dict[str, Operation] = {}
        self._shapes: dict[str, Shape] = {}

    def operation(self, name: str) -> Operation | None:
        """By its name on the wire; None: the service has no such operation."""
        found = self._operations.get(name)
        if found is None and (traits := self._raw_operations.get(name)) is not None:
            found = self._operations[name] = Operation(self, name, traits)
        return found

    def shape(self, name: str) -> Shape:
        """By its name in the model. `KeyError`: there is none."""
        found = self._shapes.get(name)
        if found is None:
            traits = self._raw_shapes[name]
            found = self._shapes[name] = _KINDS.get(traits["type"], Scalar)(self, name, traits)
        return found

    def structure(self, name: str) -> Structure:
        """A shape that is a structure."""
        shape = self.shape(name)
        assert isinstance(shape, Structure)
        return shape

    def error(self, code: str) -> Structure | None:
        """The exception that the wire calls `code`; None: the model knows none."""
        for name, traits in self._raw_shapes.items():
            if traits.get("exception") and code in {name, traits.get("error", {}).get("code")}:
                return self.structure(name)
        return None
