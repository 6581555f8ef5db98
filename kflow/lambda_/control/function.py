"""One function: what is kept of it, what it is called, and what its qualifiers mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kflow import arn
from kflow.aws.calls import Place
from kflow.lambda_.control import names
from kflow.lambda_.control.declared import Described
from kflow.lambda_.control.facts import LATEST, Code, Configuration, Facts
from kflow.lambda_.control.names import Named
from kflow.lambda_.errors import InvalidParameterValue
from kflow.lambda_.fleet import Published


class Function:
    """One function; the same object for as long as it exists. Belongs to the loop's thread; others only read it.

    Attributes:
        facts: what is kept of it; changed by the registry alone.
        place: account and region.
        name: its own.
        arn: without a qualifier.
        key: for the fleet, without a qualifier.
        declared: the decorated handler that it is; None: it was created.
        is_updating: its code is being taken in.
        is_gone: it was deleted.
    """

    __slots__ = (
        "_described",
        "arn",
        "declared",
        "facts",
        "is_gone",
        "is_updating",
        "key",
        "name",
        "place",
    )

    def __init__(self, facts: Facts, place: Place, key: str, declared: Published | None = None) -> None:
        self.facts = facts
        self.place = place
        self.name = facts.name
        self.arn = arn.function_arn(place.region, place.account, facts.name)
        self.key = key
        self.declared = declared
        self.is_updating = False
        self.is_gone = False
        self._described: Described | None = None

    @property
    def latest(self) -> Configuration:
        """`$LATEST`; of a decorated handler as its source says, as far as that has been read."""
        if self.declared is not None:
            if self._described is None:
                self._described = Described(self.declared, self.place)
            return self._described.configuration
        assert self.facts.latest is not None, "one that was created has it"
        return self.facts.latest

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """`$LATEST` and all versions."""
        return (self.latest, *self.facts.versions.values())

    def describe(self, code: Code, modified_ms: int) -> None:
        """The source of a decorated handler was read."""
        assert self.declared is not None, "others have a zip"
        self._described = Described(self.declared, self.place, code, modified_ms)

    def version(self, qualifier: str) -> str | None:
        """The version that a qualifier means; None: none."""
        if qualifier in {"", LATEST}:
            return LATEST
        alias = self.facts.aliases.get(qualifier)
        if alias is not None:
            return alias.version
        return qualifier if qualifier in self.facts.versions else None

    def configuration(self, qualifier: str) -> Configuration:
        """The version that a qualifier means.

        Raises:
            ResourceNotFound: none.
        """
        version = self.version(qualifier)
        if version is None:
            raise Named(self.place, self.name, qualifier).not_found()
        return self.latest if version == LATEST else self.facts.versions[version]

    def qualified(self, qualifier: str) -> str:
        """Its ARN with a qualifier, which may be empty."""
        return names.qualified(self.arn, qualifier)

    @property
    def line(self) -> str:
        """Where a decorated handler stands, as `file:line`."""
        return "" if self.declared is None else self.declared.handler.place

    def require_created(self, what: str) -> None:
        """Refuse what only the source of a decorated handler can change.

        Raises:
            InvalidParameterValue: it is one.
        """
        if self.declared is not None:
            raise InvalidParameterValue(
                f"{self.name} is the handler at {self.line}: {what} is changed there, and loaded with the next start"
            )


class Target(NamedTuple):
    """What is to be run.

    Attributes:
        function: whose.
        qualifier: as the caller gave it: empty, `$LATEST`, a number or an alias.
        version: what that means now: `$LATEST` or a number; of an alias with weights the first one.
        key: for the fleet.
        arn: with the qualifier, if one was given.
    """

    function: Function
    qualifier: str
    version: str
    key: str
    arn: str

    @property
    def configuration(self) -> Configuration:
        """Of the version."""
        return self.function.configuration(self.version)

    @property
    def weights(self) -> Mapping[str, float]:
        """Of an alias: the part of the invocations that goes to other versions, by their numbers."""
        alias = self.function.facts.aliases.get(self.qualifier)
        return {} if alias is None else alias.weights
