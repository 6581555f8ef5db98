"""Layers: zips that functions unpack beside their own, in versions that never change.

    lambda/layers/<name>.json                        of the folder's own account and region
    lambda/layers/<region>.<account>/<name>.json     of others

A version that is deleted stays for the functions that use it. Numbers are never used again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import msgspec

from kflow.aws.calls import Place
from kflow.broker import documents
from kflow.broker.keeping import Kept
from kflow.countdown import countdown
from kflow.errors import KflowError
from kflow.interfaces import Done
from kflow.lambda_.control.facts import Code, LayerUse, Policy
from kflow.lambda_.control.host import Host
from kflow.lambda_.control.packages import Packages
from kflow.lambda_.errors import InvalidParameterValue, ResourceNotFound

FOLDER: Final = "lambda/layers"

_LAYER: Final = re.compile(r"arn:aws[a-zA-Z-]*:lambda:([a-z0-9-]+):(\d{12}):layer:([a-zA-Z0-9_-]+)(?::(\d+))?")


class LayerVersion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version.

    Attributes:
        policy: who may use it: kept and shown.
    """

    number: int
    code: Code
    created_ms: int
    description: str = ""
    license: str = ""
    runtimes: tuple[str, ...] | None = None
    architectures: tuple[str, ...] | None = None
    policy: Policy | None = None


class LayerFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A layer.

    Attributes:
        versions: by number as text, in their order.
        last: number of the newest one ever published.
    """

    name: str
    account: str
    region: str
    versions: dict[str, LayerVersion] = {}
    last: int = 0


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_READER: Final = msgspec.json.Decoder(LayerFacts)


class Layer:
    """One layer. Belongs to the loop's thread."""

    __slots__ = ("facts", "place")

    def __init__(self, facts: LayerFacts, place: Place) -> None:
        self.facts = facts
        self.place = place

    @property
    def arn(self) -> str:
        """Without a version."""
        return f"arn:aws:lambda:{self.place.region}:{self.place.account}:layer:{self.facts.name}"

    def arn_of(self, version: LayerVersion) -> str:
        """Of a version."""
        return f"{self.arn}:{version.number}"

    @property
    def newest_first(self) -> list[LayerVersion]:
        """Its versions."""
        return sorted(self.facts.versions.values(), key=lambda each: -each.number)


class Named(NamedTuple):
    """A layer as somebody names it; version 0: none was."""

    place: Place
    name: str
    version: int = 0


def parse(text: str, place: Place) -> Named:
    """A layer's name or ARN, with a version or without.

    Raises:
        InvalidParameterValue: it is an ARN of something else.
        ResourceNotFound: it is of another region.
    """
    if ":" not in text:
        return Named(place, text)
    match = _LAYER.fullmatch(text)
    if match is None:
        raise InvalidParameterValue(f"{text} is not the name or the ARN of a layer.")  # chosen
    if match[1] != place.region:
        raise not_there()
    return Named(Place(match[2], match[1]), match[3], int(match[4] or 0))


def not_there() -> ResourceNotFound:
    """The refusal of a layer or a version that is not there. Source: recorded."""
    return ResourceNotFound("The resource you requested does not exist.")


class Layers:
    """All layers. Belongs to the loop's thread.

    Attributes:
        packages: their code, and that of functions.
    """

    def __init__(self, host: Host, home: Place, packages: Packages) -> None:
        self._host = host
        self._home = home
        self.packages = packages
        self._layers: dict[Place, dict[str, Layer]] = {}
        self._kept: dict[tuple[Place, str], Kept[LayerFacts | None]] = {}

    def load(self) -> None:
        """At the start, before the functions; what cannot be read is told to people, and harms no other."""
        root = os.path.join(self._host.folder.path, FOLDER)
        for path, each in documents.load_all(root, _READER, self._host.folder.files):
            if isinstance(each, KflowError):
                self._host.notice("error", f"a layer is not served: {each}")
                continue
            facts = each
            if os.path.dirname(path) == root:  # of home, whatever that is called now
                facts = msgspec.structs.replace(each, account=self._home.account, region=self._home.region)
            self.packages.hold(each.code for each in facts.versions.values())
            self._put(facts)

    def of(self, place: Place) -> list[Layer]:
        """Those of a place that have a version, by name."""
        found = self._layers.get(place, {})
        return [found[name] for name in sorted(found) if found[name].facts.versions]

    def find(self, named: Named) -> tuple[Layer, LayerVersion]:
        """A version.

        Raises:
            ResourceNotFound: there is none.
        """
        layer = self.get(named)
        version = None if layer is None else layer.facts.versions.get(str(named.version))
        if layer is None or version is None:
            raise not_there()
        return layer, version

    def get(self, named: Named) -> Layer | None:
        """A layer, whatever the version; None: there is none."""
        return self._layers.get(named.place, {}).get(named.name)

    def use(self, arn: str) -> LayerUse | None:
        """A version for a function; None: there is none. Accounts may use each other's, as if they had been allowed."""
        match = _LAYER.fullmatch(arn)
        if match is None or match[4] is None:
            return None
        layer = self._layers.get(Place(match[2], match[1]), {}).get(match[3])
        version = None if layer is None else layer.facts.versions.get(match[4])
        return None if version is None else LayerUse(arn, version.code)

    def publish(
        self, place: Place, name: str, make: Callable[[int], LayerVersion], done: Callable[[Layer | KflowError], object]
    ) -> LayerVersion:
        """Add a version, whose code was added to the packages.

        Args:
            place: account and region.
            name: of the layer.
            make: the version, told its number.
            done: told when it is kept.
        """
        layer = self.get(Named(place, name))
        facts = LayerFacts(name=name, account=place.account, region=place.region) if layer is None else layer.facts
        made = make(facts.last + 1)
        after = msgspec.structs.replace(facts, versions={**facts.versions, str(made.number): made}, last=made.number)
        there = self._put(after) if layer is None else layer
        self._change(there, after, lambda failure: done(failure or there), before=None if layer is None else facts)
        return made

    def replace(self, layer: Layer, version: LayerVersion, done: Done) -> None:
        """Change what may be changed of a version: its policy."""
        facts = layer.facts
        after = msgspec.structs.replace(facts, versions={**facts.versions, str(version.number): version})
        self._change(layer, after, done, before=facts)

    def delete(self, layer: Layer, version: LayerVersion, done: Done) -> None:
        """Delete a version; functions that use it keep it."""
        facts = layer.facts
        left = {number: each for number, each in facts.versions.items() if each is not version}
        self._change(layer, msgspec.structs.replace(facts, versions=left), done, before=facts)

    def clear(self, then: Callable[[], object]) -> None:
        """Delete all; calls back when that is kept."""
        everything = [layer for found in self._layers.values() for layer in found.values()]
        over = countdown(len(everything) + 1, then)

        def deleted(failure: KflowError | None) -> None:
            if failure is not None:
                self._host.notice("error", f"a layer is not deleted: {failure}")
            over()

        for layer in everything:
            self._change(layer, None, deleted, before=layer.facts)
        over()

    def _put(self, facts: LayerFacts) -> Layer:
        place = Place(facts.account, facts.region)
        made = self._layers.setdefault(place, {})[facts.name] = Layer(facts, place)
        return made

    def _change(self, layer: Layer, facts: LayerFacts | None, done: Done, *, before: LayerFacts | None) -> None:
        """Have other facts; a new layer has none before, and goes again where the disk refuses it."""
        key = layer.place, layer.facts.name
        kept = self._kept.get(key)
        if kept is None:
            if before is None:
                layer.facts = msgspec.structs.replace(layer.facts, versions={})
            kept = self._kept[key] = Kept(before, partial(self._write, key), self._host, partial(self._changed, layer))
        kept.set(facts, done)

    def _changed(self, layer: Layer, facts: LayerFacts | None) -> None:
        before = layer.facts
        if facts is None:
            layer.facts = msgspec.structs.replace(before, versions={})
        else:
            layer.facts = facts
            self.packages.hold(each.code for each in facts.versions.values())
        self.packages.drop(each.code for each in before.versions.values())

    def _write(self, key: tuple[Place, str], facts: LayerFacts | None) -> None:
        """In a thread."""
        place, name = key
        folder = FOLDER if place == self._home else f"{FOLDER}/{place.region}.{place.account}"
        path = os.path.join(self._host.folder.path, folder, documents.file_name(name))
        documents.keep(path, facts, self._host.folder)
