"""Settings of a stream that change while it lives: retention, mode, record size, encryption, monitoring, throughput.

Each change counts as soon as it is kept; the stream is UPDATING for a while after it, as on AWS.

Source: documented: the operations; recorded: the texts on retention; chosen: the other texts, and that what is asked
for counts at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from kflow import limits
from kflow.broker.attributes import lasts
from kflow.broker.streammap import StreamMode
from kflow.errors import InvalidArgument, KflowError, LimitExceeded, ResourceInUse, ValidationFailed
from kflow.interfaces import Done
from kflow.kinesis.accounts import Accounts
from kflow.kinesis.host import Host
from kflow.kinesis.registry import Registry, Stream
from kflow.kinesis.states import require_active, require_there, within_a_day

METRICS: Final = (
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
)
_ALL: Final = "ALL"
_KEY: Final = re.compile(
    r"(arn:aws[^:]*:kms:[^:]*:\d{12}:)?"
    r"(alias/[a-zA-Z0-9/_-]+|(key/)?([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|mrk-[0-9a-f]{32}))"
)


class Alterations:
    """Belongs to the loop's thread.

    Args:
        host: changes maps, tells the time.
        registry: the streams.
        accounts: who may have warm throughput.
    """

    def __init__(self, host: Host, registry: Registry, accounts: Accounts) -> None:
        self._host = host
        self._registry = registry
        self._accounts = accounts

    def retention(self, stream: Stream, hours: int, *, longer: bool, told: Done) -> None:
        """Keep records longer, or not as long. Equal values succeed in both directions.

        Raises:
            InvalidArgument: out of range, or in the other direction.
            ResourceInUse: it is not ACTIVE.
        """
        least, most, before = limits.RETENTION_HOURS, limits.RETENTION_HOURS_MAX, stream.map.retention_hours
        asked = f"Requested retention period ({hours} hours)"
        if hours < least:
            raise InvalidArgument(f"Minimum allowed retention period is {least} hours. {asked} is too short.")
        if hours > most:
            raise InvalidArgument(f"Maximum allowed retention period is {most} hours. {asked} is too long.")
        if hours < before if longer else hours > before:
            how, other = ("shorter", "Decrease") if longer else ("longer", "Increase")
            raise InvalidArgument(
                f"{asked} for stream {stream.name} can not be {how} than existing retention period ({before} hours). "
                f"Use {other}RetentionPeriod API."
            )
        require_active(stream, self._host.now_ms())
        self._alter(stream, told, {"retention_hours": hours} if hours != before else {})

    def record_size(self, stream: Stream, kib: int, told: Done) -> None:
        """Take larger records, or only smaller ones; what is stored stays.

        Raises:
            ResourceInUse: it is not ACTIVE.
        """
        require_active(stream, self._host.now_ms())
        self._alter(stream, told, {"max_record_bytes": kib * limits.KIB})

    def mode(self, stream: Stream, mode: StreamMode, warm_mibps: int | None, told: Done) -> None:
        """Change the capacity mode; the shards stay.

        Raises:
            ResourceInUse: it is not ACTIVE, or has queues.
            LimitExceeded: it was changed twice in a day.
            InvalidArgument, ValidationFailed: it is of that mode, or something it has is for the other one only.
        """
        now_ms = self._host.now_ms()
        where = f"Stream {stream.name} under account {stream.account}"
        is_provisioned = mode is StreamMode.PROVISIONED
        if warm_mibps is not None:
            if is_provisioned:
                raise InvalidArgument("WarmThroughputMiBps is only for streams in ON_DEMAND mode.")
            self._accounts.require_commitment(stream.place, warm_mibps, now_ms)
        require_active(stream, now_ms)
        if stream.mode is mode:
            raise ValidationFailed(f"Request is invalid. {where} is in {_spoken(mode)} mode already.")
        queues = self._registry.queues_on(stream.id)
        if is_provisioned and queues:
            raise ResourceInUse(f"{where} has {queues} queues: delete them with DeleteQueue first.")
        if is_provisioned and stream.is_auto:
            raise InvalidArgument(
                f"{where} has RecordDistributionStrategy AUTO: change it to USER_PARTITION_KEY first."
            )
        recent = within_a_day(stream.attributes.modes_ms, now_ms)
        if len(recent) >= limits.MODE_CHANGES:
            raise LimitExceeded(f"{where} can change its mode {limits.MODE_CHANGES} times in 24 hours.")
        stream.next_mode = mode

        def done(failure: KflowError | None) -> None:
            stream.next_mode = None
            told(failure)

        changes = {"mode": str(mode)}
        self._alter(stream, done, changes, modes_ms=(*recent, now_ms), warm_mibps=warm_mibps, warm_before_mibps=None)

    def encrypt(self, stream: Stream, key_id: str, told: Done) -> None:
        """Say that records are encrypted with a key; they are not, here.

        Raises:
            ResourceInUse: it is not ACTIVE.
            InvalidArgument: the key has none of the forms of a key.
            LimitExceeded: keys were changed too often in a day.
        """
        now_ms = self._host.now_ms()
        _check_key(key_id)
        require_active(stream, now_ms)
        self._alter(stream, told, {}, key_id=key_id, keys_ms=self._key_changes(stream, now_ms))

    def decrypt(self, stream: Stream, key_id: str, told: Done) -> None:
        """Say so no longer.

        Raises:
            ResourceInUse: it is not ACTIVE.
            InvalidArgument: the key has none of the forms of a key, or another one is in use.
            LimitExceeded: keys were changed too often in a day.
        """
        now_ms = self._host.now_ms()
        _check_key(key_id)
        require_active(stream, now_ms)
        used = stream.attributes.key_id
        if used and key_id != used:
            raise InvalidArgument(
                f"Stream {stream.name} under account {stream.account} is encrypted with key {used}, not {key_id}."
            )
        if not used:
            told(None)
            return
        self._alter(stream, told, {}, key_id="", keys_ms=self._key_changes(stream, now_ms))

    def monitor(self, stream: Stream, names: list[str], *, enable: bool, told: Done) -> tuple[list[str], list[str]]:
        """Have shard-level metrics, or have them no longer.

        Returns:
            Their names before and after, in the order of AWS's list.

        Raises:
            ResourceInUse: it is not ACTIVE.
        """
        require_active(stream, self._host.now_ms())
        before = set(stream.attributes.metrics)
        chosen = set(METRICS) if _ALL in names else set(names)
        after = before | chosen if enable else before - chosen
        wanted = tuple(each for each in METRICS if each in after)
        self._alter(stream, told, {}, metrics=wanted)
        return [each for each in METRICS if each in before], list(wanted)

    def warm(self, stream: Stream, mibps: int, told: Done) -> dict[str, int]:
        """Have a warm throughput.

        Returns:
            What UpdateStreamWarmThroughput answers of it.

        Raises:
            ResourceInUse: it is not ACTIVE.
            InvalidArgument: it is not on-demand, or the account has no commitment, or it is too much.
        """
        now_ms = self._host.now_ms()
        if stream.mode is not StreamMode.ON_DEMAND:
            raise InvalidArgument("WarmThroughputMiBps is only for streams in ON_DEMAND mode.")
        self._accounts.require_commitment(stream.place, mibps, now_ms)
        require_active(stream, now_ms)
        current = warm_throughput(stream, now_ms)["CurrentMiBps"]
        self._alter(stream, told, {}, warm_mibps=mibps, warm_before_mibps=current)
        return {"TargetMiBps": mibps, "CurrentMiBps": current}

    def distribution(self, stream: Stream, strategy: str, told: Done) -> None:
        """Distribute records by their partition keys, or evenly. Counts at once.

        Raises:
            ResourceInUse: it is being made or deleted.
            InvalidArgument: AUTO for a provisioned stream.
        """
        require_there(stream, self._host.now_ms())
        if strategy == "AUTO" and stream.mode is not StreamMode.ON_DEMAND:
            raise InvalidArgument("RecordDistributionStrategy AUTO is only for streams in ON_DEMAND mode.")
        self._registry.change(stream, told, distribution=strategy)

    def _key_changes(self, stream: Stream, now_ms: int) -> tuple[int, ...]:
        recent = within_a_day(stream.attributes.keys_ms, now_ms)
        if len(recent) >= limits.KEY_CHANGES:
            raise LimitExceeded(
                f"Stream {stream.name} under account {stream.account} can change its encryption {limits.KEY_CHANGES} "
                "times in 24 hours."
            )
        return (*recent, now_ms)

    def _alter(self, stream: Stream, told: Done, changes: Mapping[str, int | str], **kept: Any) -> None:
        """First that it is UPDATING, so that nobody changes it meanwhile; then its map."""

        def then(failure: KflowError | None) -> None:
            if failure is not None or not changes:
                over(failure)
                return
            self._host.administrate(altered, "alter_stream", stream_id=stream.id, changes=dict(changes))

        def altered(result: Any) -> None:
            failure = result if isinstance(result, KflowError) else None
            over(stream.not_found() if failure is not None and stream.is_gone else failure)

        def over(failure: KflowError | None) -> None:
            stream.is_altering = False
            told(failure)

        stream.is_altering = True
        updated_ms = self._host.now_ms() + round(self._host.transition_s * 1000)
        self._registry.change(stream, then, updated_ms=updated_ms, **kept)


def warm_throughput(stream: Stream, now_ms: int) -> dict[str, int]:
    """The warm throughput of an on-demand stream: without one, a MiB a second for each shard, as shards take it."""
    kept = stream.attributes
    target = kept.warm_mibps if kept.warm_mibps is not None else stream.open_count
    is_under_way = lasts(kept.updated_ms, now_ms) and kept.warm_before_mibps is not None
    return {"TargetMiBps": target, "CurrentMiBps": kept.warm_before_mibps or 0 if is_under_way else target}


def _check_key(key_id: str) -> None:
    if not _KEY.fullmatch(key_id):
        raise InvalidArgument(
            f"KeyId {key_id} is none: give the id or the ARN of a key, an alias as alias/NAME, or the ARN of an alias."
        )


def _spoken(mode: StreamMode) -> str:
    return "On-Demand" if mode is StreamMode.ON_DEMAND else "Provisioned"
