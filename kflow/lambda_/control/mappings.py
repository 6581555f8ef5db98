"""All event source mappings: made, changed and deleted here, and run by whoever can.

    create   Creating ---------> Enabled, or Disabled at once
    update   Updating, Enabling, Disabling ---------> Enabled, Disabled
    delete   Deleting ---------> gone

Each step is on the disk before it is answered; what runs follows, and a state in between is shown until that is so, and
for as long as transitions are to be visible. A runtime that ends meanwhile finishes it at its next start.

Triggers of decorated handlers are mappings too: their options are the source's, and whether they run may be switched.

Source: recorded: the states and the texts, but those marked chosen.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from kflow import arn
from kflow.aws.calls import Place
from kflow.broker import statefile
from kflow.countdown import countdown
from kflow.declarations import MappingOptions, QueueOptions, QueueTrigger, StreamTrigger
from kflow.errors import KflowError
from kflow.interfaces import Done
from kflow.lambda_.control import mappingfacts
from kflow.lambda_.control.host import Host
from kflow.lambda_.control.mappingfacts import Mapping, Switch
from kflow.lambda_.control.runner import Declared, Runner
from kflow.lambda_.destinations import declared_mapping
from kflow.lambda_.errors import InvalidParameterValue, ResourceConflict, ResourceInUse, ResourceNotFound

Listener = Callable[["Entry"], object]

RETRY_S: Final = 1.0
"""A change that cannot be carried out is tried again after this long; it is shown as under way until it is done."""
IN_USE: Final = "Cannot {} the event source mapping because it is in use."


class Entry:
    """One mapping; the same object for as long as it exists. Belongs to the loop's thread; others only read it.

    Attributes:
        mapping: as it is kept.
        declared: the decorator's trigger that it is; None: the API made it.
        is_shown: it is kept: before that nobody sees it, but another one cannot be made.
        transition: what it is shown as while it changes; empty: it rests.
        origin: ARN of its stream or its queue: that never changes.
    """

    __slots__ = ("declared", "is_shown", "mapping", "origin", "transition")

    def __init__(self, mapping: Mapping, declared: Declared | None = None, *, is_shown: bool = True) -> None:
        self.mapping = mapping
        self.declared = declared
        self.is_shown = is_shown
        self.transition = ""
        self.origin = _origin(mapping)

    @property
    def state(self) -> str:
        """As AWS calls it."""
        return self.transition or ("Enabled" if self.mapping.enabled else "Disabled")


class Mappings:
    """Belongs to the loop's thread.

    Args:
        host: whose folder and threads it uses.
        home: account and region of the data folder.
        runner: runs them.
    """

    def __init__(self, host: Host, home: Place, runner: Runner) -> None:
        self._host = host
        self._home = home
        self._runner = runner
        self._entries: dict[str, Entry] = {}
        self._switches: dict[str, Switch] = {}
        self._switches_file = statefile.StateFile(
            host, mappingfacts.SWITCHES, lambda: mappingfacts.switches_text(self._switches)
        )

    def load(self) -> None:
        """At the start: read all. What cannot be read was told to people already, and harms no other."""
        found, _ = mappingfacts.load_all(self._host.folder)
        self._entries = {each.uuid: Entry(each) for each in found if not each.is_deleting}
        for each in found:
            if not each.is_deleting:
                self._runner.resume(each)
            elif each.is_queue:  # others went while the node was set up
                mappingfacts.remove(self._host.folder, each.uuid)
        try:
            self._switches = mappingfacts.load_switches(self._host.folder)
        except KflowError:  # it was told, as all that was read while the node was set up
            self._switches = {}
        for declared in self._runner.declared():
            entry = self._of_declared(declared)
            self._entries[entry.mapping.uuid] = entry

    # ------------------------------------------------------------------ finding

    def find(self, name: str) -> Entry:
        """The mapping of a UUID.

        Raises:
            ResourceNotFound: there is none.
        """
        entry = self._entries.get(name)
        if entry is None or not entry.is_shown:
            raise ResourceNotFound("The resource you requested does not exist.")
        return entry

    def of(self, place: Place) -> list[Entry]:
        """Those of a place, as they were made; those of decorated handlers come first."""
        there = (place.account, place.region)
        return [each for each in self.everywhere() if (each.mapping.account, each.mapping.region) == there]

    def everywhere(self) -> list[Entry]:
        """Those of all places, likewise."""
        shown = [each for each in self._entries.values() if each.is_shown]
        return sorted(shown, key=lambda each: (each.mapping.created_ms, each.mapping.uuid))

    # ------------------------------------------------------------------ changing

    def create(self, mapping: Mapping, told: Callable[[Entry | KflowError], object]) -> None:
        """Make one; told when it is kept, and its position in the stream is.

        Args:
            mapping: without a UUID.
            told: told the entry, or why there is none.

        Raises:
            ResourceConflict: there is one of this source and this function.
        """
        now_ms = self._host.now_ms()
        self._check_conflict(mapping)
        made = replace(mapping, uuid=str(uuid.uuid4()), created_ms=now_ms, modified_ms=now_ms)
        entry = self._entries[made.uuid] = Entry(made, is_shown=False)

        def refuse(failure: KflowError) -> None:
            del self._entries[made.uuid]
            told(failure)

        def checked(failure: KflowError | None) -> None:
            if failure is not None:
                refuse(failure)
            else:
                self._host.submit(lambda: mappingfacts.store(self._host.folder, made), stored)

        def stored(failure: KflowError | None) -> None:
            if failure is not None:
                refuse(failure)
            else:
                self._runner.create(made, placed)

        def placed(failure: KflowError | None) -> None:
            if failure is not None:
                reason = failure
                self._host.submit(lambda: mappingfacts.remove(self._host.folder, made.uuid), lambda _: refuse(reason))
                return
            entry.is_shown = True
            if made.enabled:
                self._begin(entry, "Creating")(None)
            told(entry)

        self._runner.check(made, checked)

    def update(self, entry: Entry, wanted: Mapping, told: Done) -> None:
        """Change one; told when that is kept: what runs follows.

        Args:
            entry: which.
            wanted: as it is to be.
            told: None, or why it stays as it was.

        Raises:
            ResourceInUse: it is being changed.
            ResourceConflict: there is one of this source and this function.
            InvalidParameterValue: it is a decorated handler's, and more than its switch is changed.
        """
        if entry.transition:
            raise ResourceInUse(IN_USE.format("update"))
        before = entry.mapping
        after = replace(wanted, modified_ms=self._host.now_ms())
        if before.key(self._home) != after.key(self._home):
            self._check_conflict(after)
            after = replace(after, moved_from=before.key(self._home))
        name = "Updating" if before.enabled == after.enabled else "Enabling" if after.enabled else "Disabling"
        over = self._begin(entry, name)
        if entry.declared is not None:
            self._switch(entry, entry.declared, after, over, told)
            return

        def stored(failure: KflowError | None) -> None:
            if failure is not None:
                entry.transition = ""
            else:
                entry.mapping = after
                self._runner.change(before, after, changed)
            told(failure)

        is_told = False

        def changed(failure: KflowError | None) -> None:
            nonlocal is_told
            if failure is not None:  # it is kept, so it is to be done
                if not is_told:
                    is_told = True
                    self._host.notice("error", f"mapping {after.uuid} of {after.function} does not run: {failure}")
                self._host.call_later(RETRY_S, lambda: self._runner.change(before, after, changed))
                return
            if after.moved_from:
                settled = entry.mapping = replace(after, moved_from="")
                self._host.submit(lambda: mappingfacts.store(self._host.folder, settled), over)
                return
            over(None)

        self._host.submit(lambda: mappingfacts.store(self._host.folder, after), stored)

    def delete(self, entry: Entry, told: Done) -> None:
        """Delete one; told when it is certain that it goes.

        Raises:
            ResourceInUse: it is being changed.
            InvalidParameterValue: it is a decorated handler's.
        """
        mapping = entry.mapping
        if entry.declared is not None:
            raise InvalidParameterValue(
                f"This event source mapping is declared at {mapping.line}: remove it there, or disable it here."
            )
        if entry.transition:
            raise ResourceInUse(IN_USE.format("delete"))
        going = replace(mapping, is_deleting=True, modified_ms=self._host.now_ms())
        over = self._begin(entry, "Deleting", then=lambda: self._entries.pop(mapping.uuid, None))

        def stored(failure: KflowError | None) -> None:
            if failure is not None:
                entry.transition = ""
            else:
                entry.mapping = going
                self._runner.remove(going, removed)
            told(failure)

        def removed(failure: KflowError | None) -> None:
            if failure is not None:
                said(failure)
            else:
                self._host.submit(lambda: mappingfacts.remove(self._host.folder, mapping.uuid), said)

        def said(failure: KflowError | None) -> None:
            if failure is not None:
                self._host.notice("error", f"mapping {mapping.uuid} goes with the next start: {failure}")
            over(None)

        self._host.submit(lambda: mappingfacts.store(self._host.folder, going), stored)

    def tag(self, entry: Entry, tags: dict[str, str], told: Done) -> None:
        """Have other tags; told when these are kept."""
        if entry.declared is not None:
            raise InvalidParameterValue(
                f"This event source mapping is declared at {entry.mapping.line}: it has no tags."
            )
        before = entry.mapping
        after = entry.mapping = replace(before, tags=tags)

        def stored(failure: KflowError | None) -> None:
            if failure is not None:
                entry.mapping = before
            told(failure)

        self._host.submit(lambda: mappingfacts.store(self._host.folder, after), stored)

    def clear(self, then: Callable[[], object]) -> None:
        """Delete all that the API made, and all switches; calls back when nothing is left."""
        made = [entry for entry in self._entries.values() if entry.declared is None and entry.is_shown]
        over = countdown(len(made) + 1, then)
        for entry in made:
            mapping = entry.mapping
            self._entries.pop(mapping.uuid)

            def removed(_: object, mapping: Mapping = mapping) -> None:
                self._host.submit(lambda: mappingfacts.remove(self._host.folder, mapping.uuid), over)

            self._runner.remove(mapping, removed)
        self._switches.clear()
        self._keep_switches(over)
        for entry in self._entries.values():
            declared = entry.declared
            if declared is not None and declared.enabled != entry.mapping.enabled:
                entry.mapping = replace(entry.mapping, enabled=declared.enabled)
                self._runner.switch(declared.function, declared.index, enabled=declared.enabled, told=lambda _: None)

    # ------------------------------------------------------------------ inside

    def _begin(self, entry: Entry, state: str, then: Callable[[], object] = lambda: None) -> Done:
        """Show a state until what is returned is called, and for as long as transitions are to be visible."""
        entry.transition = state

        def ended() -> None:
            entry.transition = ""
            then()

        over = countdown(2, ended)
        self._host.call_later(self._host.transition_s, over)
        return over

    def _check_conflict(self, mapping: Mapping) -> None:
        """Source: recorded: the texts; chosen: that of a stream which is read by two of its ARNs."""
        key, origin = mapping.key(self._home), _origin(mapping)
        for entry in self._entries.values():
            if entry.origin != origin:
                continue
            other = entry.mapping
            if other.uuid == mapping.uuid or other.key(self._home) != key:
                continue
            if other.source == mapping.source:
                if mapping.is_queue:
                    raise ResourceConflict(
                        f'An event source mapping with SQS arn (" {mapping.source} ") and function '
                        f'(" {mapping.function} ") already exists. Please update or delete the existing mapping with '
                        f"UUID {other.uuid}"
                    )
                raise ResourceConflict(
                    f'The event source arn (" {mapping.source} ") and function (" {mapping.function} ") provided '
                    f"mapping already exists. Please update or delete the existing mapping with UUID {other.uuid}"
                )
            raise ResourceConflict(
                f"The function {mapping.function} reads the stream of {mapping.source} already, as "
                f"{other.source}: kflow keeps one position for a function in a stream. Please update or delete the "
                f"existing mapping with UUID {other.uuid}"
            )

    def _of_declared(self, declared: Declared) -> Entry:
        trigger = declared.trigger
        mapping = Mapping(
            # a queue by its ARN: a stream may have its name
            uuid=declared_mapping(
                self._home.account, self._home.region, declared.function, arn.stream_name(declared.source)
            ),
            account=self._home.account,
            region=self._home.region,
            function=declared.function,
            source=declared.source,
            options=trigger.options if isinstance(trigger, StreamTrigger) else MappingOptions(),
            queue_options=trigger.options if isinstance(trigger, QueueTrigger) else QueueOptions(),
            enabled=trigger.enabled,
            line=f"{trigger.file}:{trigger.line}",
            modified_ms=self._host.now_ms(),
        )
        return Entry(mapping, declared)

    def _switch(self, entry: Entry, declared: Declared, after: Mapping, over: Done, told: Done) -> None:
        """Keep whether a decorated handler's trigger runs, and have it so."""
        name = after.uuid
        if replace(after, enabled=entry.mapping.enabled, modified_ms=entry.mapping.modified_ms) != entry.mapping:
            entry.transition = ""
            raise InvalidParameterValue(
                f"This event source mapping is declared at {after.line}: change it there; only Enabled can be changed "
                "here."
            )
        before = self._switches.get(name)
        self._switches[name] = Switch(after.enabled, declared.enabled)

        def stored(failure: KflowError | None) -> None:
            if failure is not None:
                entry.transition = ""
                if before is None:
                    self._switches.pop(name, None)
                else:
                    self._switches[name] = before
            else:
                entry.mapping = after
                self._runner.switch(declared.function, declared.index, enabled=after.enabled, told=over)
            told(failure)

        self._keep_switches(stored)

    def _keep_switches(self, told: Done) -> None:
        files, sync = self._host.folder.files, self._host.folder.syncs
        folder = os.path.join(self._host.folder.path, os.path.dirname(mappingfacts.SWITCHES))

        def made(failure: KflowError | None) -> None:
            if failure is not None:
                told(failure)
            else:
                self._switches_file.keep(told)

        self._host.submit(lambda: files.make_folder(folder, sync=sync), made)


def _origin(mapping: Mapping) -> str:
    """The ARN of its stream, also where it reads that as a consumer; or of its queue."""
    return mapping.source.partition("/consumer/")[0]
