"""Records of Kinesis Data Streams: PutRecord, PutRecords, GetShardIterator, GetRecords, ListShards.

Source: recorded unless said otherwise: order of checks, and texts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Final

from kflow import limits
from kflow.arn import stream_name
from kflow.aws.calls import LATER, Answer, Call, Later, Output, Place
from kflow.aws.columns import Columns, Constant
from kflow.aws.slicing import BLOB_BYTES, ROWS
from kflow.broker.sequence import shard_id
from kflow.broker.streammap import ShardInfo
from kflow.errors import (
    AwsError,
    DryRunOperation,
    InternalError,
    InvalidArgument,
    KflowError,
    ProvisionedThroughputExceeded,
    ResourceInUse,
    ResourceNotFound,
)
from kflow.kinesis import answers, iterators, pages, putchecks, shards
from kflow.kinesis.assembly import Assembly
from kflow.kinesis.page import Page, Rows, trim_ms
from kflow.kinesis.putcalls import Entries, Outcome
from kflow.kinesis.puts import Puts
from kflow.kinesis.registry import Status, Stream
from kflow.kinesis.throttle import ShardLimits
from kflow.records import Position
from kflow.services.kinesis.control import Control
from kflow.services.kinesis.parts import Parts

log = logging.getLogger(__name__)

_LISTED: Final = 1000
_LIST: Final = b"shards"
_SLICE_SHARDS: Final = 100
_SLICE_RECORDS: Final = 1000
_SLICE_BYTES: Final = 512 * limits.KIB
"""So much of an answer is read in one round of the loop: about half a millisecond."""
_TOLD_MS: Final = 10_000
"""Why records were not stored people are told this often; the answer has AWS's own, which says nothing."""


class Records(Control):
    """Operations on records."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._limits = ShardLimits() if parts.enforce_limits else None
        self._puts = Puts(parts.host, self._limits)
        self.assembly = Assembly(parts.host.call_later)
        self._told_ms = 0
        self._tallies = parts.tallies
        parts.registry.watch(self._moved)

    def _moved(self, stream: Stream) -> None:
        if stream.is_gone:
            self.parts.reading.forget(stream.id)
            self._puts.forget(stream.id)

    # ------------------------------------------------------------------ writing

    def put_record(self, call: Call, given: Any) -> Answer:
        """Put one record. Source: documented: PutRecord."""
        stream = self.registry.named(given, call.context.place)
        if not stream.serves(self.host.now_ms()):
            raise stream.not_found()
        key = given.PartitionKey
        if key is None:
            if not stream.is_auto:
                putchecks.check_keys((None,), is_one=True)
            key = ""
        data = given.Data
        keys, datas = (key,), (data,)
        size = len(data) + putchecks.CHARACTER_BYTES * len(key)
        if size > stream.map.max_record_bytes:
            size = putchecks.check_sizes(stream, keys, datas, is_one=True)
        hash_key = given.ExplicitHashKey
        hash_keys = None if hash_key is None else putchecks.hash_keys((hash_key,))
        if given.SequenceNumberForOrdering is not None:
            putchecks.check_ordering(stream, given.SequenceNumberForOrdering, self.host.now_ms())
        if given.DryRun:
            _refuse_dry_run(given)
        tally = self._tallies.by_id.get(stream.id) or self._tallies.of(stream)
        tally.put_calls += 1
        tally.put_bytes += size
        sealed = stream.is_encrypted
        found = self._puts.put(stream, Entries(keys, datas, hash_keys, size), partial(_put_one, call, sealed))
        return LATER if found is None else _placed(found, sealed)

    def put_records(self, call: Call, given: Any) -> Answer:
        """Put up to 500 records; those that fail are marked in the answer. Source: documented: PutRecords."""
        stream = self._serving(given, call.context.place)
        records = given.Records
        keys: list[Any] = [record.PartitionKey for record in records]
        if stream.is_auto:
            keys = [key or "" for key in keys]
        else:
            putchecks.check_keys(keys, is_one=False)
        datas = [record.Data for record in records]
        size = putchecks.check_sizes(stream, keys, datas, is_one=False)
        hash_keys = putchecks.hash_keys([record.ExplicitHashKey for record in records])
        _refuse_dry_run(given)
        sealed = stream.is_encrypted
        tally = self._tallies.of(stream)
        tally.puts_calls += 1
        tally.puts_records += len(keys)
        tally.puts_bytes += size

        def then(outcome: Outcome) -> None:
            gone = next((each for each in outcome.errors.values() if isinstance(each, ResourceNotFound)), None)
            if gone is not None:  # and with the stream those of its records that had been stored
                call.refuse(gone)
            else:
                call.answer(self._put(stream, outcome, sealed))

        faults = self.parts.entry_faults(len(keys)) or ()
        found = self._puts.put(stream, Entries(keys, datas, hash_keys, size), then, faults)
        return LATER if found is None else self._put(stream, found, sealed)

    def _put(self, stream: Stream, outcome: Outcome, sealed: bool) -> Output:
        """The answer of PutRecords."""
        numbers, ids, errors = outcome
        records: Columns | list[dict[str, str]]
        if errors:
            tally = self._tallies.of(stream)
            tally.puts_failed += len(errors)
            tally.write_throttled += sum(isinstance(each, ProvisionedThroughputExceeded) for each in errors.values())
            records = [
                {"SequenceNumber": number, "ShardId": id_}
                if index not in errors
                else self._failed(stream, errors[index])
                for index, (number, id_) in enumerate(zip(numbers, ids, strict=True))
            ]
        else:
            is_one = ids.count(ids[0]) == len(ids)
            records = Columns(len(numbers), {"SequenceNumber": numbers, "ShardId": Constant(ids[0]) if is_one else ids})
        answer: dict[str, Any] = {"FailedRecordCount": len(errors), "Records": records}
        if sealed:
            answer["EncryptionType"] = "KMS"
        return answer

    def _failed(self, stream: Stream, error: KflowError) -> dict[str, str]:
        """A record that was not stored: AWS knows two reasons."""
        if isinstance(error, ProvisionedThroughputExceeded):
            return {"ErrorCode": error.code, "ErrorMessage": str(error)}
        now_ms = self.host.now_ms()
        if not 0 <= now_ms - self._told_ms < _TOLD_MS:
            self._told_ms = now_ms
            self.host.notice("error", f"records put to {stream.name} were not stored: {error}")
        return {"ErrorCode": "InternalFailure", "ErrorMessage": "Internal service failure."}

    # ------------------------------------------------------------------ reading

    def get_shard_iterator(self, call: Call, given: Any) -> Answer:
        """A token to read a shard from. Source: documented: GetShardIterator."""
        now_ms = self.host.now_ms()
        stream, shard = self._shard(given, call.context.place, now_ms)
        start = iterators.start_of(
            stream, shard, given.ShardIteratorType, given.StartingSequenceNumber, given.Timestamp, now_ms
        )
        _refuse_dry_run(given)

        def then(found: Position | KflowError) -> None:
            if isinstance(found, KflowError):
                call.refuse(self._read_error(stream, shard.index, found))
            else:
                call.answer({"ShardIterator": self._token(stream, shard.index, found)})

        position = self.parts.reading.seek(stream.map, shard.index, start, then)
        if position is None:
            return LATER
        return {"ShardIterator": self._token(stream, shard.index, position)}

    def get_records(self, call: Call, given: Any) -> Answer:
        """The next records of a shard. Source: documented: GetRecords."""
        now_ms = self.host.now_ms()
        place = iterators.decode(self.parts.seal, given.ShardIterator, now_ms)
        stream = self.registry.by_id(place.stream_id)
        if stream is None or not stream.serves(now_ms):
            raise shards.absent(place.name, call.context.place.account, place.shard)
        if given.StreamARN is not None and self.registry.by_arn(given.StreamARN) is not stream:
            raise InvalidArgument(f"StreamARN {given.StreamARN} is not of the stream that the ShardIterator reads.")
        _refuse_dry_run(given)
        if self._limits is not None and not self._limits.may_read(stream.id, place.shard, now_ms):
            self._tallies.of(stream).read_throttled += 1
            raise ProvisionedThroughputExceeded(
                f"Rate exceeded for Shard - {stream.account}/{stream.name}/{shard_id(place.shard)}"
            )
        limit = limits.GET_RECORDS_ENTRIES if given.Limit is None else given.Limit
        return _Reading(self, call, stream, place.shard, place.position, limit).begin(now_ms)

    def _answer_of(self, stream: Stream, shard: ShardInfo, rows: Rows, page: Page, now_ms: int) -> Output:
        """The answer of GetRecords: with its last page, all rows are known."""
        if self._limits is not None:
            self._limits.have_read(stream.id, shard.index, rows.size, now_ms)
        answer = answers.get_records(
            stream.map, shard, rows, page, now_ms, lambda position: self._token(stream, shard.index, position)
        )
        self._tallies.of(stream).read(len(rows.datas), rows.size, answer["MillisBehindLatest"])
        return answer

    def _read_error(self, stream: Stream, shard: int, error: KflowError) -> KflowError:
        """Why a shard could not be read: its stream may have gone meanwhile."""
        if stream.is_gone and not isinstance(error, AwsError):
            return shards.absent(stream.name, stream.account, shard)
        return error

    def list_shards(self, call: Call, given: Any) -> Answer:
        """The shards of a stream that are not expired. Source: documented: ListShards."""
        now_ms = self.host.now_ms()
        after = -1
        if given.NextToken is not None:
            stream, after, wanted = self._next_page(given, now_ms)
            self.admit(call, "ListShards", stream.name)
        else:
            if given.StreamName is None and given.StreamARN is None:
                raise InvalidArgument("Either NextToken or StreamName should be provided.")
            stream = self.named(call, "ListShards", given)
            created_ms = given.StreamCreationTimestamp
            if created_ms is not None and created_ms // 1000 != stream.created_ms // 1000:
                raise stream.not_found()
            kept = given.ShardFilter
            wanted = (None, None, None) if kept is None else (kept.Type, kept.ShardId, kept.Timestamp)
            if given.ExclusiveStartShardId is not None:
                after = shards.index_of(stream.name, stream.account, given.ExclusiveStartShardId)
        status = stream.status(now_ms)
        if status is Status.DELETING:
            raise ResourceInUse(
                f"Stream {stream.name} under account {stream.account} not ACTIVE, instead in state {status}"
            )
        found = shards.filtered(stream, *wanted, now_ms) if status is not Status.CREATING else ()
        if after >= 0:
            found = [shard for shard in found if shard.index > after]
        size = min(given.MaxResults or _LISTED, _LISTED)
        token = None
        if len(found) > size:
            last = found[size - 1].index
            token = pages.token(self.parts.seal, _LIST, now_ms, stream.id, stream.name, last, *wanted)
            found = found[:size]
        if len(found) > _SLICE_SHARDS:
            return _listed(found, token)
        return {"Shards": [shards.shard(shard) for shard in found], "NextToken": token}

    def _next_page(self, given: Any, now_ms: int) -> tuple[Stream, int, tuple[Any, Any, Any]]:
        """What a token of ListShards goes on with: stream, last shard, filter."""
        for other in ("StreamName", "StreamARN", "ExclusiveStartShardId", "StreamCreationTimestamp"):
            if getattr(given, other) is not None:
                raise InvalidArgument(f"NextToken and {other} cannot be provided together.")
        stream_id, name, after, kind, wanted_shard, epoch_ms = pages.said(
            self.parts.seal, _LIST, given.NextToken, now_ms
        )
        stream = self.registry.by_id(stream_id)
        if stream is None:
            raise ResourceNotFound(f"Stream {name} under account {self.host.folder.account} not found.")
        return stream, after, (kind, wanted_shard, epoch_ms)

    # ------------------------------------------------------------------ what they share

    def _serving(self, given: Any, place: Place) -> Stream:
        """The stream that an input names, if records may be put to it."""
        stream = self.registry.named(given, place)
        if not stream.serves(self.host.now_ms()):
            raise stream.not_found()
        return stream

    def _shard(self, given: Any, place: Place, now_ms: int) -> tuple[Stream, ShardInfo]:
        """The shard that an input names; a stream that does not exist is said as a shard that does not."""
        name = given.StreamName or stream_name(given.StreamARN or "")
        index = shards.index_of(name, place.account, given.ShardId)
        try:
            stream = self.registry.named(given, place)
        except ResourceNotFound as error:
            raise shards.absent(name, place.account, index) from error
        if not stream.serves(now_ms) or not stream.map.knows(index):
            raise shards.absent(stream.name, stream.account, index)
        return stream, stream.map.shards[index]

    def _token(self, stream: Stream, shard: int, position: Position) -> str:
        place = iterators.Place(stream.id, stream.name, shard, position)
        return iterators.encode(self.parts.seal, place, self.host.now_ms())


class _Reading:
    """One GetRecords under way: a slice a round of the loop, as many as the answer takes.

    What is short is answered at once. What is long waits for a place in the assembly, and holds nothing till then.
    """

    __slots__ = ("_call", "_is_in", "_left", "_limit", "_position", "_records", "_rows", "_shard", "_start", "_stream")

    def __init__(
        self, records: Records, call: Call, stream: Stream, shard: int, position: Position, limit: int
    ) -> None:
        self._records = records
        self._call = call
        self._stream = stream
        self._shard = stream.map.shards[shard]
        self._start = self._position = position
        self._limit = self._left = limit
        self._rows = Rows()
        self._is_in = False

    def begin(self, now_ms: int) -> Output | Later:
        """The answer, if it is short and in memory; it follows later else."""
        page = self._read(now_ms)
        if page is None:
            return LATER
        is_last = self._take(page)
        if is_last and self._is_short():
            return self._answer(page, now_ms)
        self._wait(page, is_last=is_last)
        return LATER

    def _read(self, now_ms: int) -> Page | None:
        budget = limits.GET_RECORDS_BYTES - self._rows.size
        return self._records.parts.reading.read(
            self._stream.map,
            self._shard.index,
            self._position,
            self._late,
            limit=min(self._left, _SLICE_RECORDS),
            max_bytes=min(budget, _SLICE_BYTES),
            first_bytes=budget if self._rows.datas else None,
            oldest_ms=trim_ms(self._stream.map, now_ms),
        )

    def _take(self, page: Page) -> bool:
        """Add a page; whether it was the last one."""
        self._rows.add(page)
        self._left -= page.rows
        self._position = page.position
        return not page.is_behind or not page.rows or self._left <= 0 or self._rows.size >= limits.GET_RECORDS_BYTES

    def _is_short(self) -> bool:
        """Whether it is small, and written in one slice."""
        return self._rows.size <= BLOB_BYTES and len(self._rows.datas) <= ROWS

    def _wait(self, page: Page, *, is_last: bool) -> None:
        """For a place; it is read anew where there is none at once."""
        if self._records.assembly.ask(self._admitted):
            self._is_in = True
            self._on(page, is_last=is_last)
        else:
            self._rows = Rows()
            self._position, self._left = self._start, self._limit

    def _admitted(self) -> None:
        self._is_in = True
        self._go_on()

    def _go_on(self) -> None:
        if self._call.is_closed:
            self._leave()
        else:
            self._guarded(self._read_on)

    def _read_on(self) -> None:
        page = self._read(self._records.host.now_ms())
        if page is not None:
            self._came(page)

    def _late(self, found: Page | KflowError) -> None:
        """A page, or why there is none, from a thread."""
        if self._call.is_closed:
            self._leave()
        elif isinstance(found, KflowError):
            self._refuse(self._records._read_error(self._stream, self._shard.index, found))  # noqa: SLF001  # one module
        else:
            self._guarded(lambda: self._came(found))

    def _guarded(self, work: Callable[[], None]) -> None:
        """Whatever breaks, the caller gets an answer, and the place is free again."""
        try:
            work()
        except Exception as error:
            log.exception("reading records failed stream=%s shard=%d", self._stream.name, self._shard.index)
            self._refuse(InternalError(f"{type(error).__name__}: {error}; please report it"))

    def _came(self, page: Page) -> None:
        is_last = self._take(page)
        if not self._is_in and is_last and self._is_short():
            self._call.answer(self._answer(page, self._records.host.now_ms()))
        elif not self._is_in:
            self._wait(page, is_last=is_last)
        else:
            self._on(page, is_last=is_last)

    def _on(self, page: Page, *, is_last: bool) -> None:
        """The next slice, or the answer."""
        if is_last:
            self._call.answer(self._answer(page, self._records.host.now_ms()), self._leave)
        else:
            self._records.host.call_later(0, self._go_on)

    def _refuse(self, error: KflowError) -> None:
        self._leave()
        if not self._call.is_closed:
            self._call.refuse(error)

    def _leave(self) -> None:
        if self._is_in:
            self._is_in = False
            self._records.assembly.leave()

    def _answer(self, page: Page, now_ms: int) -> Output:
        return self._records._answer_of(self._stream, self._shard, self._rows, page, now_ms)  # noqa: SLF001  # one module


def _listed(found: Sequence[ShardInfo], token: str | None) -> Generator[None, None, Output]:
    """The answer of ListShards for many shards, some of them a slice."""
    listed: list[dict[str, Any]] = []
    for at in range(0, len(found), _SLICE_SHARDS):
        listed += [shards.shard(shard) for shard in found[at : at + _SLICE_SHARDS]]
        yield
    return {"Shards": listed, "NextToken": token}


def _put_one(call: Call, sealed: bool, outcome: Outcome) -> None:
    """What came of PutRecord, where that took longer."""
    if outcome.errors:
        call.refuse(outcome.errors[0])
    else:
        call.answer(_placed(outcome, sealed))


def _placed(outcome: Outcome, sealed: bool) -> Output:
    """The answer of PutRecord. Source: recorded: EncryptionType is left out where encryption is off."""
    answer = {"ShardId": outcome.shards[0], "SequenceNumber": outcome.numbers[0]}
    if sealed:
        answer["EncryptionType"] = "KMS"
    return answer


def _refuse_dry_run(given: Any) -> None:
    """Everything was in order: say so, and do nothing. Source: documented: DryRun; chosen: the text."""
    if given.DryRun:
        raise DryRunOperation("The request was rejected because the DryRun parameter was specified.")
