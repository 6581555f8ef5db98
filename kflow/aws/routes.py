"""Which operation a path means, by the model's templates: `/functions/{FunctionName}`, `/{Bucket}/{Key+}?acl`.

Several operations may have one path (S3's `GetObject` and `GetObjectAcl`, `PutObject` and `UploadPart`): the one wins
that names most of what the request has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from kflow.aws.shapes import Model, Operation

_LABEL = re.compile(r"\{([^}+]+)(\+?)\}")

Query = Sequence[tuple[str, str]]


class Found(NamedTuple):
    """An operation, and what its path says.

    Attributes:
        operation: of a model.
        labels: values by name of the template's labels, decoded.
    """

    operation: Operation
    labels: Mapping[str, str]


class _Route(NamedTuple):
    """One operation's template, compiled. `literal` is how many letters of it are fixed."""

    operation: Operation
    pattern: re.Pattern[str]
    literal: int
    query: Query


class Routes:
    """The operations of one model."""

    def __init__(self, model: Model) -> None:
        self._routes: dict[str, list[_Route]] = {}
        for name in model.operation_names:
            operation = model.operation(name)
            assert operation is not None
            self._routes.setdefault(operation.http_method, []).append(_compiled(operation))

    def find(self, method: str, path: str, query: Query, headers: Mapping[str, str]) -> Found | None:
        """The operation that fits best; None: no template fits.

        Args:
            method: of HTTP.
            path: percent-encoded.
            query: names and values, decoded.
            headers: names in lower case.
        """
        given = dict(query)
        best: tuple[tuple[int, int, int], _Route, re.Match[str]] | None = None
        for route in self._routes.get(method, ()):
            match = route.pattern.fullmatch(path)
            if match is None or any(
                name not in given or (value and given[name] != value) for name, value in route.query
            ):
                continue
            missing, present = _required(route.operation, given, headers)
            rank = (route.literal, len(route.query) - missing, present)
            if best is None or rank > best[0]:
                best = rank, route, match
        if best is None:
            return None
        _, route, match = best
        labels = {name: unquote(value) for name, value in zip(_names(route.operation), match.groups(), strict=True)}
        return Found(route.operation, labels)

    def labels(self, operation: Operation, path: str) -> Mapping[str, str]:
        """What a path says, that is known to be an operation's."""
        for route in self._routes[operation.http_method]:
            if route.operation is operation and (match := route.pattern.fullmatch(path)):
                return {name: unquote(value) for name, value in zip(_names(operation), match.groups(), strict=True)}
        return {}


def _compiled(operation: Operation) -> _Route:
    path, _, query = operation.request_uri.partition("?")
    pattern, literal, end = "", 0, 0
    for label in _LABEL.finditer(path):
        fixed = path[end : label.start()]
        literal += len(fixed)
        pattern += re.escape(fixed) + ("(.+)" if label[2] else "([^/]+)")
        end = label.end()
    rest = path[end:].rstrip("/") if end or len(path) > 1 else ""
    literal += len(rest)
    # A slash at the end is passed over, as AWS does.
    compiled = re.compile(f"{pattern}{re.escape(rest)}/?", re.DOTALL)
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
    return _Route(operation, compiled, literal, pairs)


def _names(operation: Operation) -> Iterator[str]:
    return (label[1] for label in _LABEL.finditer(operation.request_uri.partition("?")[0]))


def _required(operation: Operation, query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, int]:
    """How many required members of query and headers the request lacks, and how many it has."""
    missing = present = 0
    if operation.input is not None:
        for name in operation.input.required:
            member = operation.input.members[name]
            if member.location == "querystring":
                is_there = member.wire_name in query
            elif member.location == "header":
                is_there = member.wire_name.lower() in headers
            else:
                continue
            present, missing = (present + 1, missing) if is_there else (present, missing + 1)
    return missing, present
