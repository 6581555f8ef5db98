"""Which way a request goes: by the name it is signed for, or by its target where it is not signed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from kflow.aws import catalogue
from kflow.errors import UsageError
from kflow.settings.services import DEFAULT, NOWHERE, Route, route


class Way(NamedTuple):
    """Where a request goes.

    Attributes:
        route: as the settings say.
        service: what people call the service: botocore's name where the settings name it, else the signing name, or
            the prefix of the target.
        named: the services of the settings that it may be of, by botocore's names; empty: none of them.
    """

    route: Route
    service: str
    named: tuple[str, ...] = ()


class Routes:
    """The table of the settings, by what requests say of themselves. Read-only once made.

    Attributes:
        ways: of what the settings name, by service; those that go nowhere too.
        default: of all others.
        taken: the services that kflow speaks, and that go elsewhere because the settings name them.
        takes: their signing names and prefixes of targets.

    Raises:
        UsageError: services whose requests cannot be told apart are to go different ways.
    """

    def __init__(self, table: Mapping[str, str], spoken: Collection[str]) -> None:
        self.default = route(table[DEFAULT], f"services.{DEFAULT}") if DEFAULT in table else NOWHERE
        self.ways: dict[str, Route] = {}
        self._by_target: dict[str, Way] = {}
        self._by_name: dict[str, Way] = {}
        taken: list[str] = []
        takes: set[str] = set()
        for service, text in table.items():
            if service == DEFAULT:
                continue
            found = catalogue.named(service)
            if found is None:
                raise UsageError(f"services.{service}: the botocore that is installed has no model of it")
            way = self.ways[service] = route(text, f"services.{service}")
            if service in spoken:
                if way == NOWHERE:
                    continue  # kflow's own answers
                taken.append(service)
                takes |= {found.signing_name, found.target_prefix} - {""}
            if found.target_prefix:
                self._add(self._by_target, found.target_prefix, service, way)
            self._add(self._by_name, found.signing_name, service, way, is_strict=not found.target_prefix)
        self.taken = tuple(taken)
        self.takes = frozenset(takes)

    @property
    def is_empty(self) -> bool:
        """Whether nothing goes anywhere."""
        return self.default == NOWHERE and all(way == NOWHERE for way in self.ways.values())

    def _add(self, table: dict[str, Way], key: str, service: str, chosen: Route, *, is_strict: bool = True) -> None:
        before = table.get(key)
        if before is None:
            table[key] = Way(chosen, service, (service,))
        elif before.route == chosen:
            table[key] = before._replace(named=(*before.named, service))
        elif is_strict:
            raise UsageError(
                f"services.{before.service} and services.{service} must be the same: requests of both are signed for "
                f"{key}, and cannot be told apart"
            )

    def of(self, signing_name: str, target_prefix: str) -> Way:
        """The way of a request.

        Args:
            signing_name: in its credential scope; empty where it is not signed.
            target_prefix: of its target, without the dot; empty where it has none.
        """
        found = self._by_target.get(target_prefix) or self._by_name.get(signing_name)
        if found is not None:
            return found
        return Way(self.default, signing_name or target_prefix) if signing_name or target_prefix else Way(NOWHERE, "")
