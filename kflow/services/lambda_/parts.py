"""What all modules of the service share."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from kflow.aws.calls import LATER, Answer, Call, CallService, Output, Place
from kflow.errors import KflowError
from kflow.lambda_.asynchronous import Accepts
from kflow.lambda_.control import names, orphans
from kflow.lambda_.control.function import Function
from kflow.lambda_.control.host import Host
from kflow.lambda_.control.layers import Layers
from kflow.lambda_.control.mappings import Mappings
from kflow.lambda_.control.names import Named
from kflow.lambda_.control.registry import Registry
from kflow.lambda_.control.runner import Runner
from kflow.lambda_.errors import InvalidParameterValue
from kflow.lambda_.fleet import Fleet
from kflow.services.answering import answering

T = TypeVar("T")

PAGE: Final = 50
"""What a page of most lists holds. Source: documented: ListFunctions and others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Made once by whoever hosts the service.

    Attributes:
        host: the node.
        home: account and region of its data folder.
        fleet: runs functions.
        functions: all functions of all places.
        layers: all layers.
        events: takes asynchronous invocations in.
        mappings: all event source mappings.
        runner: runs these.
        invoke: calls another service.
        url: where the endpoint is, for callers that did not come through it.
    """

    host: Host
    home: Place
    fleet: Fleet
    functions: Registry
    layers: Layers
    events: Accepts
    mappings: Mappings
    runner: Runner
    invoke: CallService
    url: Callable[[], str]


class Base:
    """Operations of one module; `Lambda` inherits all of them. Each `__init__` calls the next by `super()`."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.host = parts.host
        self.fleet = parts.fleet
        self.functions = parts.functions
        self.layers = parts.layers
        self.mappings = parts.mappings
        self.runner = parts.runner

    def named(self, call: Call, text: str, qualifier: str | None = None) -> tuple[Function, Named]:
        """The function that a caller names, and how; whether it has the qualifier is not checked.

        Raises:
            ResourceNotFound: there is none.
        """
        named = names.parse(text, call.context.place, qualifier)
        return self.functions.find(named), named

    def qualified(self, call: Call, given: Any) -> tuple[Function, str]:
        """The function that a caller names, with the qualifier as it was given: there is such a version or alias.

        Raises:
            ResourceNotFound: there is none.
        """
        function, named = self.named(call, given.FunctionName, given.Qualifier)
        function.configuration(named.qualifier)
        return function, named.qualifier

    def unqualified(self, call: Call, text: str, refusal: str = names.UNQUALIFIED) -> Function:
        """The function that a caller names, who may not name a version or an alias.

        Raises:
            ResourceNotFound: there is none.
            InvalidParameterValue: with a qualifier.
        """
        return self.functions.find(names.parse_unqualified(text, call.context.place, refusal))

    def change(self, call: Call, function: Function, output: Callable[[], Output], /, **changes: Any) -> Answer:
        """Keep a change, and answer then."""
        self.functions.change(function, answering(call, lambda _: output()), **changes)
        return LATER

    def described(self, call: Call, output: Callable[[], Output]) -> Answer:
        """Answer when the sources of decorated handlers were read; they are but once."""
        is_now = True
        found: list[Output] = []

        def then() -> None:
            if is_now:
                found.append(output())
            else:
                _answer(call, output)

        self.functions.when_described(then)
        is_now = False
        return found[0] if found else LATER

    def tell_of_orphans(self, function: Function) -> None:
        """People are told of mappings that wait for what was deleted."""
        own = [each.mapping for each in self.mappings.of(function.place) if each.mapping.function == function.name]
        for text in orphans.texts(own, self.functions):
            self.host.notice("warning", text)

    def base_url(self, call: Call) -> str:
        """Of the endpoint, as this caller reaches it."""
        return call.context.base_url or self.parts.url()

    def location(self, call: Call, digest: str) -> str:
        """Where a zip can be fetched."""
        return f"{self.base_url(call)}/_kflow/lambda/code/{digest}.zip"


def _answer(call: Call, output: Callable[[], Output]) -> None:
    """Answer a call that was answered `LATER`, or refuse it."""
    try:
        found = output()
    except KflowError as error:
        call.refuse(error)
    else:
        call.answer(found)


def page(found: Iterable[T], name: Callable[[T], str], given: Any) -> tuple[list[T], str | None]:
    """One page of what is in order, and the marker of the next.

    Args:
        found: all of it, ascending by name; no more is taken than is shown.
        name: of one.
        given: the call's input, with its `Marker` and `MaxItems`.

    Raises:
        InvalidParameterValue: the marker is none of ours.
    """
    after, most = read_marker(given.Marker), min(given.MaxItems or PAGE, PAGE)
    left = (each for each in found if name(each) > after) if after else iter(found)
    shown = list(islice(left, most + 1))
    if len(shown) <= most:
        return shown, None
    return shown[:-1], base64.urlsafe_b64encode(name(shown[-2]).encode()).decode()


def read_marker(marker: str | None) -> str:
    """The name of the last one on the page before; empty: there is none.

    Raises:
        InvalidParameterValue: the marker is none of ours.
    """
    if marker is None:
        return ""
    try:
        return base64.b64decode(marker, b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        # chosen: the text
        raise InvalidParameterValue("The Marker is not one that a page of this operation ended with.") from None
