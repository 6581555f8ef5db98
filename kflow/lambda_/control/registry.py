"""All functions of all places: found, made, changed and deleted here, and told to whoever runs them.

    create: name taken --packages, a thread: file written--> published, there
    change: in memory --a thread: file written--> published
    delete: gone from memory --a thread: file removed--> withdrawn

Decorated handlers are functions of the home place: their code and configuration are the source's, and what else may be
set on a function is kept as for others. A function that was created and has the name of one waits until that goes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from kflow.aws.calls import Place
from kflow.broker import documents
from kflow.broker.keeping import Kept
from kflow.countdown import countdown
from kflow.errors import KflowError
from kflow.interfaces import Done
from kflow.lambda_.control import names
from kflow.lambda_.control.declared import Sources
from kflow.lambda_.control.facts import FUNCTIONS, HANDLERS, LATEST, Code, Facts
from kflow.lambda_.control.function import Function, Target
from kflow.lambda_.control.host import Host
from kflow.lambda_.control.names import Named
from kflow.lambda_.control.numbers import Numbers
from kflow.lambda_.control.packages import Packages
from kflow.lambda_.control.publishing import published
from kflow.lambda_.errors import ResourceConflict
from kflow.lambda_.fleet import Fleet, Published

# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_READER: Final = msgspec.json.Decoder(Facts)


class Registry:
    """All functions. Belongs to the loop's thread.

    Args:
        host: whose folder and threads it uses.
        home: account and region of the data folder.
        fleet: runs them.
        packages: their code.

    Attributes:
        numbers: those of versions that deleted functions had.
    """

    def __init__(self, host: Host, home: Place, fleet: Fleet, packages: Packages) -> None:
        self.home = home
        self.packages = packages
        self._host = host
        self._fleet = fleet
        self._folder = host.folder
        self._functions: dict[Place, dict[str, Function]] = {}
        self._hidden: dict[str, Function] = {}
        self._kept: dict[_Key, Kept[Facts | None]] = {}  # of those that are being written
        self._latest: dict[_Key, Function] = {}
        self._pending: Counter[_Key] = Counter()
        self._making: set[tuple[Place, str]] = set()
        self._published: dict[str, Mapping[str, Published]] = {}  # what the fleet was told, by key
        self._limits: dict[str, int] = {}
        self._sources = Sources(host)
        self.numbers = Numbers(host.folder, home)

    def load(self) -> None:
        """At the start: read all functions, publish them, and take in the decorated handlers.

        What cannot be read, or has lost its code, is told to people, and harms no other.
        """
        for found in self._read(FUNCTIONS):
            self._take_in(found)
        self.numbers.load(
            lambda error: self._host.notice("error", f"versions of a deleted function begin at 1 again: {error}")
        )
        settings = {each.name: each for each in self._read(HANDLERS)}
        for name, declared in self._fleet.declared().items():
            facts = settings.get(name) or _bare(name, self.home)
            function = Function(facts, self.home, name, declared)
            hidden = self._functions.get(self.home, {}).get(name)
            if hidden is not None:
                self._hidden[name] = hidden
                self._host.notice(
                    "warning",
                    f"function {name} was created by the API, and is the handler at {function.line} now: the handler "
                    "runs, and the other one is back when that has another name",
                )
            self._put(function)
        for function in self.everywhere():
            self._publish(function)
        self.packages.clean()

    def _take_in(self, found: Facts) -> None:
        place = Place(found.account, found.region)
        try:
            for configuration in found.configurations:
                for code in configuration.codes:
                    if not self.packages.is_there(code):
                        self.packages.restore(code)
        except KflowError as error:
            self._host.notice("error", f"function {found.name} cannot run, its code is lost: {error}")
        self.packages.hold(_codes(found))
        self._put(Function(found, place, names.key(place, self.home, found.name)))

    def _read(self, folder: str) -> Iterable[Facts]:
        root = os.path.join(self._folder.path, folder)
        found = []
        for path, each in documents.load_all(root, _READER, self._folder.files):
            if isinstance(each, KflowError):
                self._host.notice("error", f"a function is not served: {each}")
                continue
            facts = each
            if os.path.dirname(path) == root:  # of home, whatever that is called now
                facts = msgspec.structs.replace(each, account=self.home.account, region=self.home.region)
            found.append(facts)
        return found

    # ------------------------------------------------------------------ finding

    def find(self, named: Named) -> Function:
        """The function of a name, whatever the qualifier.

        Raises:
            ResourceNotFound: there is none.
        """
        try:
            return self._functions[named.place][named.name]
        except KeyError:
            raise named.not_found() from None

    def get(self, place: Place, name: str) -> Function | None:
        """The same; None: there is none."""
        return self._functions.get(place, {}).get(name)

    def target(self, place: Place, text: str, qualifier: str | None = None) -> Target:
        """What a caller wants to have run.

        Args:
            place: of the caller.
            text: the function's name in any of its forms.
            qualifier: given beside it.

        Raises:
            ResourceNotFound: there is no such function, version or alias.
            InvalidParameterValue, ValidationFailed: it is named wrongly.

        Source: recorded: who wants to run a function that is not there is told of its `$LATEST`.
        """
        named = names.parse(text, place, qualifier)
        function = self.get(named.place, named.name)
        if function is None:
            raise named._replace(qualifier=named.qualifier or LATEST).not_found()
        version = function.version(named.qualifier)
        if version is None:
            raise named.not_found()
        key = names.qualified(function.key, "" if named.qualifier == LATEST else named.qualifier)
        return Target(function, named.qualifier, version, key, named.arn)

    def of(self, place: Place) -> list[Function]:
        """Those of a place, by name."""
        found = self._functions.get(place, {})
        return [found[name] for name in sorted(found)]

    def everywhere(self) -> Iterable[Function]:
        """Those of all places."""
        return [each for found in self._functions.values() for each in found.values()]

    def when_described(self, then: Callable[[], object]) -> None:
        """Call back when the sources of all decorated handlers were read: at once, but for the first time."""
        self._sources.read([each for each in self.everywhere() if each.declared is not None], then)

    # ------------------------------------------------------------------ changing

    def reserve(self, place: Place, name: str) -> None:
        """Nobody else may make a function of this name, until it is created or given up.

        Raises:
            ResourceConflict: there is one.
        """
        if self.get(place, name) is not None or (place, name) in self._making:
            raise already_there(name)
        self._making.add((place, name))

    def give_up(self, place: Place, name: str) -> None:
        """It is not made after all."""
        self._making.discard((place, name))

    def create(self, facts: Facts, done: Callable[[Function | KflowError], object]) -> None:
        """Make a function whose name was reserved.

        Args:
            facts: of it; its code was added to the packages.
            done: told when it is kept.
        """
        place = Place(facts.account, facts.region)
        function = Function(facts, place, names.key(place, self.home, facts.name))
        self.give_up(place, facts.name)
        if self.get(place, facts.name) is not None:  # its deletion was refused by the disk meanwhile
            done(already_there(facts.name))
            return
        self._set(function, facts, lambda failure: done(failure or function))

    def change(self, function: Function, done: Done, /, **changes: Any) -> None:
        """Change what is kept of a function.

        Args:
            function: which.
            done: told when that is kept, and whoever runs it knows.
            changes: new values of `Facts`, by name.
        """
        self._set(function, msgspec.structs.replace(function.facts, **changes), done)

    def delete(self, function: Function, done: Done) -> None:
        """Delete a function with its versions and aliases; or what was set on a decorated handler."""
        if function.declared is None:
            for each in self.numbers.leave(function.facts, self._host.now_ms()):
                self._forget(each, lambda _: None)  # where the disk refuses it, it is kept for longer
            self._set(function, None, done)
        else:
            self._set(function, _bare(function.name, function.place), done)

    def clear(self, then: Callable[[], object]) -> None:
        """Delete all that were created, and what was set on decorated handlers; calls back when that is kept.

        Versions begin at 1 again.
        """
        everything = [*self.everywhere(), *self._hidden.values()]
        numbers = self.numbers.clear()
        over = countdown(len(everything) + len(numbers) + 1, then)

        def deleted(failure: KflowError | None) -> None:
            if failure is not None:
                self._host.notice("error", f"a function is not deleted: {failure}")
            over()

        for function in everything:
            self._set(function, None if function.declared is None else _bare(function.name, function.place), deleted)
        for each in numbers:
            self._forget(each, deleted)
        self._hidden.clear()
        over()

    # ------------------------------------------------------------------ inside

    def _put(self, function: Function) -> None:
        self._functions.setdefault(function.place, {})[function.name] = function

    def _forget(self, facts: Facts, done: Done) -> None:
        """Remove the number of a function that is gone, in line with what else is written of that name."""
        place = Place(facts.account, facts.region)
        function = self.get(place, facts.name)
        if function is None or function.declared is not None:
            self._set(Function(facts, place, names.key(place, self.home, facts.name)), None, done)
        else:  # there is one again, which has the number
            done(None)

    def _set(self, function: Function, facts: Facts | None, done: Done) -> None:
        """Have other facts, None for none: in memory now, on the disk by a thread, with whoever runs it after that."""
        key = _Key(function.place, function.name, function.declared is not None)
        kept = self._kept.get(key)
        if kept is None:
            is_there = self._holds(function)
            kept = self._kept[key] = Kept(
                function.facts if is_there else None,
                partial(self._write, key),
                self._host,
                lambda value: self._changed(self._latest[key], value),
            )
        self._latest[key] = function
        self._pending[key] += 1
        kept.set(facts, lambda failure: self._settled(key, function, failure, done))

    def _holds(self, function: Function) -> bool:
        return self.get(function.place, function.name) is function or self._hidden.get(function.name) is function

    def _changed(self, function: Function, facts: Facts | None) -> None:
        """In memory: also back to what it was, where the disk has refused."""
        before = function.facts if self._holds(function) else None
        if facts is not None:
            self.packages.hold(_codes(facts))
            function.facts = facts
            if before is None:
                self._put(function)
        elif self.get(function.place, function.name) is function:
            del self._functions[function.place][function.name]
        function.is_gone = facts is None
        if before is not None:
            self.packages.drop(_codes(before), max((each.timeout_s for each in before.configurations), default=0))

    def _settled(self, key: _Key, function: Function, failure: KflowError | None, done: Done) -> None:
        self._pending[key] -= 1
        if not self._pending[key]:
            del self._pending[key], self._kept[key], self._latest[key]
        if failure is None:
            self._publish(function)
        done(failure)

    def _publish(self, function: Function) -> None:
        """Tell whoever runs it what is new, and nothing else: an environment ends when its function is told anew."""
        current = self.get(function.place, function.name)
        if current is not None and current is not function:
            return  # another one has its name by now, and is told of itself
        key = function.key
        before = self._published.pop(key, {})
        wanted = {} if current is None else published(function.facts, key, self.packages.folder)
        for each in before.keys() - wanted.keys():
            self._fleet.withdraw(each)
        for name, each_wanted in wanted.items():
            if before.get(name) != each_wanted:
                self._fleet.publish(each_wanted)
        if wanted:
            self._published[key] = wanted
        most = None if current is None else function.facts.reserved
        if most != self._limits.get(key):
            self._fleet.limit(key, most)
        if most is None:
            self._limits.pop(key, None)
        else:
            self._limits[key] = most

    def _write(self, key: _Key, facts: Facts | None) -> None:
        """In a thread."""
        folder = HANDLERS if key.is_declared else FUNCTIONS
        if key.place != self.home:
            folder = f"{folder}/{key.place.region}.{key.place.account}"
        path = os.path.join(self._folder.path, folder, documents.file_name(key.name))
        if facts is None:  # first: else a crash in between would lose the number
            self.numbers.write(key.place, key.name)
        is_bare = key.is_declared and facts == _bare(key.name, key.place)
        documents.keep(path, None if is_bare else facts, self._folder)


class _Key(NamedTuple):
    """What has a file of its own."""

    place: Place
    name: str
    is_declared: bool


def already_there(name: str) -> ResourceConflict:
    """The refusal of a second function of a name. Source: recorded."""
    return ResourceConflict(f"Function already exist: {name}")


def _bare(name: str, place: Place) -> Facts:
    return Facts(name=name, account=place.account, region=place.region)


def _codes(facts: Facts) -> list[Code]:
    return [code for configuration in facts.configurations for code in configuration.codes]
