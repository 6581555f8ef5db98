"""`put` and `put_many`: the two calls most users need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from kflow.errors import UsageError
from kflow.producing import local
from kflow.producing.aws import RemoteStream, client
from kflow.producing.payload import all_as_bytes, as_bytes
from kflow.producing.pipeline import CHUNK_RECORDS, Entries
from kflow.producing.targets import target as find_target
from kflow.records import Placed


def put(
    stream: str, data: Any, *, partition_key: str, explicit_hash_key: int | None = None, target: str | None = None
) -> Placed:
    """Append one record and wait until it is stored.

    On return every reader sees it, and it survives a kill of any process. Where no node runs, this process appends it
    itself. A local `put` is never doubled by a restart of the node; boto3's own retries against AWS may double one.

    Args:
        stream: name or ARN; it must exist, `put` never creates one.
        data: bytes as they are, str in UTF-8, anything else as compact JSON.
        partition_key: 1 to 256 characters; its MD5 picks the shard.
        explicit_hash_key: 0 to 2**128 - 1; used in place of the MD5.
        target: `local`, `aws` or a URL; see `kflow.target`.

    Returns:
        Shard id and sequence number; the number is larger than all before it in that shard.

    Raises:
        ResourceNotFound: there is no such stream; the text has the line that creates it.
        ValidationFailed, InvalidArgument: key or data break a limit.
        PutFailed: it was not acknowledged: refused, or, after 10 s without a sign of the writer, unknown.
    """
    if type(data) is not bytes:
        data = as_bytes(data)
    to = find_target(target)
    if to.kind != "local":
        return RemoteStream(stream, client(to)).put_one(data, partition_key, explicit_hash_key)
    return local.put_one(to.where, stream, data, partition_key, explicit_hash_key)


def put_many(
    stream: str, records: Iterable[tuple[Any, str]], *, ordered: bool = False, target: str | None = None
) -> list[Placed]:
    """Append many records and wait until all are stored.

    The records of a key keep their order: always in local data, on AWS with `ordered`.

    Args:
        stream: name or ARN; it must exist.
        records: any number of (data, partition key) or (data, partition key, explicit hash key); data as for `put`.
        ordered: on AWS, keep the order of each key's records, at the price of one call a record.
        target: `local`, `aws` or a URL; see `kflow.target`.

    Returns:
        Where each record is, in the order of the call.

    Raises:
        PutFailed: some records were not acknowledged; `failed` names each. The others are stored.
        ValidationFailed, InvalidArgument, UsageError: a record is not acceptable; nothing was stored.
    """
    entries = _columns(records)
    if not entries.keys:
        return []
    to = find_target(target)
    if to.kind == "local":
        if len(entries.keys) > CHUNK_RECORDS or type(entries.datas[0]) is not bytes:
            entries = _all_bytes(entries)
        try:
            return local.put_all(to.where, stream, entries)
        except UsageError:
            # Nothing of a mixed call was sent; to look at each type first would cost a twentieth of a call of bytes.
            converted = _all_bytes(entries)
            if converted is entries:
                raise
            return local.put_all(to.where, stream, converted)
    return _put_remote(client(to), stream, entries, ordered=ordered)


def put_many_by(sdk: Any, stream: str, records: Iterable[tuple[Any, str]], *, ordered: bool = False) -> list[Placed]:
    """As `put_many`, through an SDK client that the caller has made."""
    entries = _columns(records)
    return _put_remote(sdk, stream, entries, ordered=ordered) if entries.keys else []


def _put_remote(sdk: Any, stream: str, entries: Entries, *, ordered: bool) -> list[Placed]:
    placed, failures = RemoteStream(stream, sdk).put_all(_all_bytes(entries), ordered=ordered)
    if failures:
        raise local.put_failed(stream, len(placed), failures)
    return cast("list[Placed]", placed)


def _columns(records: Iterable[tuple[Any, str]]) -> Entries:
    rows = records if isinstance(records, list) else list(records)
    if not rows:
        return Entries((), ())
    hash_keys: list[int | None] | None = None
    datas: Sequence[Any]
    keys: Sequence[str]
    try:
        datas, keys = zip(*rows, strict=True)
    except (TypeError, ValueError):
        datas, keys, hash_keys = _columns_of_three(rows)
    return Entries(keys, datas, hash_keys)


def _all_bytes(entries: Entries) -> Entries:
    """The same with every payload as bytes; the same object where they are."""
    if _BYTES.issuperset(map(type, entries.datas)):
        return entries
    return entries._replace(datas=all_as_bytes(entries.datas))


_BYTES = frozenset({bytes})


def _columns_of_three(rows: list[Any]) -> tuple[list[Any], list[str], list[int | None]]:
    """The columns of rows of which some have an explicit hash key; names the first row that has another form."""
    datas: list[Any] = []
    keys: list[str] = []
    hash_keys: list[int | None] = []
    for index, row in enumerate(rows):
        if not isinstance(row, tuple | list) or len(row) not in (2, 3):
            raise UsageError(
                f"record {index} must be (data, partition key), or with an explicit hash key behind, not {row!r:.80}"
            )
        datas.append(row[0])
        keys.append(row[1])
        hash_keys.append(row[2] if len(row) > 2 else None)
    return datas, keys, hash_keys
