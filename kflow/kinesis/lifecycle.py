"""Streams come, go, and change their shards: visible in between, as on AWS, for a time that is a setting.

    create --> CREATING --time--> ACTIVE --split, merge, scale--> UPDATING --time--> resharded --> ACTIVE
                                    |                                |
                                    +--------- delete ---------------+--> DELETING --time--> gone

What is to happen is kept before it is answered, so that a start finishes what a kill interrupted. Where no time is set,
it has happened when the answer comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from kflow import limits
from kflow.aws.calls import Place
from kflow.broker import reshardplan
from kflow.broker.attributes import Attributes, Pending
from kflow.broker.sequence import shard_id, shard_index
from kflow.broker.streammap import StreamMode
from kflow.errors import (
    InvalidArgument,
    KflowError,
    LimitExceeded,
    ResourceInUse,
    StorageError,
    ValidationFailed,
)
from kflow.interfaces import Done
from kflow.kinesis import quotas, tags
from kflow.kinesis.accounts import Accounts
from kflow.kinesis.host import Host
from kflow.kinesis.registry import Registry, Status, Stream
from kflow.kinesis.states import in_state, require_active, within_a_day

RETRY_S: Final = 1.0
RETRY_MOST_S: Final = 60.0
"""What was acknowledged and cannot be done, for the disk is full perhaps, is tried again after the first, then after
twice that, and so on up to the second."""


class NewStream(NamedTuple):
    """What CreateStream asks for; None where it does not say.

    Attributes:
        name: of the stream.
        shards: how many; on-demand streams begin with four.
        mode: capacity mode.
        tags: by key.
        warm_mibps: warm throughput.
        max_record_kib: largest record.
        distribution: `AUTO` or `USER_PARTITION_KEY`.
    """

    name: str
    shards: int | None = None
    mode: StreamMode = StreamMode.PROVISIONED
    tags: Mapping[str, str] | None = None
    warm_mibps: int | None = None
    max_record_kib: int | None = None
    distribution: str | None = None


class Lifecycle:
    """Belongs to the loop's thread.

    Args:
        host: makes and deletes streams, tells the time.
        registry: the streams.
        accounts: who may have warm throughput.
    """

    def __init__(self, host: Host, registry: Registry, accounts: Accounts) -> None:
        self._host = host
        self._registry = registry
        self._accounts = accounts

    def resume(self) -> None:
        """At the start: finish what was under way when the last node ended."""
        for stream in list(self._registry.everywhere()):
            pending = stream.attributes.pending
            if pending is None:
                continue
            if _has_happened(stream, pending):
                self._over(stream, pending, None, RETRY_S)
            else:
                self._arm(stream, pending)

    # ------------------------------------------------------------------ create

    def create(self, place: Place, wanted: NewStream, told: Done) -> None:
        """Make a stream; `told` when it is there, CREATING.

        Raises:
            ResourceInUse: there is one of that name, in whatever state.
            InvalidArgument, ValidationFailed, LimitExceeded: what AWS refuses.

        Source: documented: CreateStream; chosen: an on-demand stream takes no ShardCount; some texts.
        """
        registry, name, now_ms = self._registry, wanted.name, self._host.now_ms()
        if registry.expects(place, name) or registry.has(place, name):
            raise ResourceInUse(f"Stream {name} under account {place.account} already exists.")
        shards = self._shards_of(place, wanted, now_ms)
        kept = tags.added(f"stream {name}", place.account, {}, wanted.tags or {})
        quotas.check_creation(registry, place, wanted.mode, shards, now_ms)
        attributes = Attributes(
            created_ms=now_ms,
            active_ms=now_ms + self._transition_ms,
            tags=kept,
            warm_mibps=wanted.warm_mibps,
            distribution=wanted.distribution or "USER_PARTITION_KEY",
        )
        home = place == registry.home
        registry.expect(place, name, attributes)

        def made(answer: Any) -> None:
            registry.give_up(place, name)
            told(answer if isinstance(answer, KflowError) else None)

        self._host.administrate(
            made,
            "create_stream",
            name=name,
            shards=shards,
            max_record_bytes=(wanted.max_record_kib or limits.RECORD_BYTES // limits.KIB) * limits.KIB,
            mode=str(wanted.mode),
            account="" if home else place.account,
            region="" if home else place.region,
            attributes=msgspec.to_builtins(attributes),
        )

    def _shards_of(self, place: Place, wanted: NewStream, now_ms: int) -> int:
        if wanted.mode is StreamMode.ON_DEMAND:
            if wanted.shards is not None:
                raise InvalidArgument("ShardCount is only for streams in PROVISIONED mode.")
            if wanted.warm_mibps is not None:
                self._accounts.require_commitment(place, wanted.warm_mibps, now_ms)
            return limits.ON_DEMAND_SHARDS
        if wanted.warm_mibps is not None:
            raise InvalidArgument("WarmThroughputMiBps is only for streams in ON_DEMAND mode.")
        if wanted.distribution == "AUTO":
            raise InvalidArgument("RecordDistributionStrategy AUTO is only for streams in ON_DEMAND mode.")
        if wanted.shards is None:
            raise ValidationFailed(
                "1 validation error detected: Value null at 'shardCount' failed to satisfy constraint: "
                "Member must not be null"
            )
        return wanted.shards

    # ------------------------------------------------------------------ delete

    def delete(self, stream: Stream, *, enforce: bool, told: Done) -> None:
        """Begin to delete a stream; `told` when it is DELETING for certain.

        Args:
            stream: which.
            enforce: whether registered consumers go with it.
            told: told.

        Raises:
            ResourceInUse: it is being made or deleted, or has consumers or queues.

        Source: documented: DeleteStream; chosen: the texts.
        """
        now_ms = self._host.now_ms()
        status = stream.status(now_ms)
        if status not in (Status.ACTIVE, Status.UPDATING):
            raise in_state(stream, status)
        where = f"Stream {stream.name} under account {stream.account}"
        consumers = stream.consumers(now_ms)
        if consumers and not enforce:
            names = ", ".join(each.name for each in consumers)
            raise ResourceInUse(
                f"{where} has registered consumers: {names}. Deregister them, or set EnforceConsumerDeletion."
            )
        queues = self._registry.queues_on(stream.id)
        if queues:
            raise ResourceInUse(f"{where} has {queues} queues: delete them with DeleteQueue first.")
        self._begin(stream, "delete", {}, told)

    # ------------------------------------------------------------------ shards

    def split(self, stream: Stream, shard: int, at: str, told: Done) -> None:
        """Begin to split a shard; `told` when the stream is UPDATING for certain.

        Raises:
            ResourceInUse, ResourceNotFound, LimitExceeded, InvalidArgument, ValidationFailed: in AWS's order.
        """
        require_active(stream, self._host.now_ms())
        if stream.map.mode is StreamMode.PROVISIONED and stream.map.knows(shard):
            quotas.check_shards(self._registry, stream.place, 1)
        reshardplan.split(stream.map, shard, at, account=stream.account, region=stream.place.region)
        self._begin(stream, "split", {"shard": shard_id(shard), "at": at}, told)

    def merge(self, stream: Stream, shard: int, adjacent: int, told: Done) -> None:
        """Begin to merge two shards; `told` as in `split`.

        Raises:
            ResourceInUse, ResourceNotFound, InvalidArgument, ValidationFailed: in AWS's order.
        """
        require_active(stream, self._host.now_ms())
        reshardplan.merge(stream.map, shard, adjacent, account=stream.account)
        self._begin(stream, "merge", {"shard": shard_id(shard), "adjacent": shard_id(adjacent)}, told)

    def scale(self, stream: Stream, target: int, told: Done) -> None:
        """Begin to scale to another number of shards; `told` as in `split`.

        Raises:
            ResourceInUse, LimitExceeded, InvalidArgument, ValidationFailed: in AWS's order.
        """
        now_ms = self._host.now_ms()
        require_active(stream, now_ms)
        reshardplan.scale(stream.map, target, account=stream.account, region=stream.place.region)
        quotas.check_shards(self._registry, stream.place, target - stream.open_count)
        recent = within_a_day(stream.attributes.scalings_ms, now_ms)
        if len(recent) >= limits.SCALINGS:
            raise LimitExceeded(
                f"UpdateShardCount can be called {limits.SCALINGS} times in 24 hours for a stream: "
                f"{stream.name} under account {stream.account}."
            )
        self._begin(stream, "scale", {"shards": target}, told, scalings_ms=(*recent, now_ms))

    # ------------------------------------------------------------------ what is to happen

    @property
    def _transition_ms(self) -> int:
        return round(self._host.transition_s * 1000)

    def _begin(self, stream: Stream, kind: str, arguments: Mapping[str, str | int], told: Done, **changes: Any) -> None:
        pending = Pending(
            kind=kind,
            due_ms=self._host.now_ms() + self._transition_ms,
            arguments=dict(arguments),
        )

        def kept(failure: KflowError | None) -> None:
            if failure is not None:
                told(failure)
            elif self._transition_ms:
                self._arm(stream, pending)
                told(None)
            else:
                self._happen(stream, pending, told)

        self._registry.change(stream, kept, pending=pending, **changes)

    def _arm(self, stream: Stream, pending: Pending) -> None:
        delay_s = max(0, pending.due_ms - self._host.now_ms()) / 1000
        # No longer than it would be from now on: a clock that was set back must not leave it for hours.
        self._host.call_later(min(delay_s, self._host.transition_s), lambda: self._happen(stream, pending, None))

    def _happen(self, stream: Stream, pending: Pending, told: Done | None, again_s: float = RETRY_S) -> None:
        """Do what was to happen.

        Args:
            stream: where.
            pending: what.
            told: told; None where it was acknowledged before: then it is tried again until it is done or refused, and
                people are told.
            again_s: when to try again, seconds.
        """
        if _is_settled(stream, pending):  # a deletion has taken its place
            if told is not None:
                told(None)
            return

        def done(result: Any) -> None:
            failure = result if isinstance(result, KflowError) else None
            if told is not None:
                self._answer(stream, pending, failure, told)
            elif isinstance(failure, StorageError) and not _is_settled(stream, pending):
                self._try_again(stream, pending, failure, again_s)
            else:
                self._over(stream, pending, failure, again_s)

        more: dict[str, Any] = {"although_read": True} if pending.kind == "delete" else dict(pending.arguments)
        operation = "delete_stream" if pending.kind == "delete" else pending.kind
        self._host.administrate(done, operation, stream_id=stream.id, **more)

    def _answer(self, stream: Stream, pending: Pending, failure: KflowError | None, told: Done) -> None:
        """It has happened or not, and who asked for it waits."""
        if _is_settled(stream, pending):
            told(stream.not_found() if failure is not None and stream.is_gone else failure)
            return

        def noted(later: KflowError | None) -> None:
            if later is not None:
                self._try_again(stream, pending, later, RETRY_S)
            told(failure or later)

        self._registry.change(stream, noted, pending=None)

    def _over(self, stream: Stream, pending: Pending, failure: KflowError | None, again_s: float) -> None:
        """It has happened, or is refused for good, and nobody waits: note that."""
        if _is_settled(stream, pending):
            return
        if failure is not None:
            self._complain(stream, pending, failure)

        def noted(later: KflowError | None) -> None:
            if later is not None:
                self._try_again(stream, pending, later, again_s)

        self._registry.change(stream, noted, pending=None)

    def _try_again(self, stream: Stream, pending: Pending, failure: KflowError, again_s: float) -> None:
        if _is_settled(stream, pending):
            return
        self._complain(stream, pending, failure)
        next_s = min(2 * again_s, RETRY_MOST_S)

        def again() -> None:
            if not stream.is_gone and _has_happened(stream, pending):
                self._over(stream, pending, None, next_s)
            else:
                self._happen(stream, pending, None, next_s)

        self._host.call_later(again_s, again)

    def _complain(self, stream: Stream, pending: Pending, failure: KflowError) -> None:
        self._host.notice("error", f"stream {stream.name}: cannot {pending.kind} as was asked for: {failure}")


def _is_settled(stream: Stream, pending: Pending) -> bool:
    """Whether nothing is to be done about it any more."""
    return stream.is_gone or stream.attributes.pending != pending


def _has_happened(stream: Stream, pending: Pending) -> bool:
    """Whether the shards were changed, and only that was not noted any more."""
    kind, arguments = pending.kind, pending.arguments
    if kind == "scale":
        return stream.open_count == arguments["shards"]
    if kind == "delete":
        return False
    index = shard_index(str(arguments["shard"]))
    return stream.map.knows(index) and not stream.map.shards[index].is_open
