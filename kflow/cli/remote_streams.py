"""`kflow streams ...` on another endpoint or on real AWS."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from kflow.broker.hashkeys import middle
from kflow.broker.sequence import shard_id, shard_index
from kflow.cli import resharded
from kflow.cli.arguments import Arguments
from kflow.cli.progress import Progress
from kflow.cli.remote import Remote, named
from kflow.cli.terminal import Terminal, count
from kflow.errors import ResourceNotFound, UsageError

_PATIENCE_S = 900.0
"""AWS takes tens of seconds for a change of shards, and minutes for many."""
_LOOK_S = 1.0


def list_streams(remote: Remote, arguments: Arguments, terminal: Terminal) -> int:
    """One line a stream."""
    found = [remote.summary(name) for name in remote.stream_names()]
    if arguments.json:
        terminal.json([_summary(each) for each in found])
    elif found:
        rows = [("stream", "status", "shards", "retention", "mode")]
        rows += [
            (
                each["StreamName"],
                each["StreamStatus"],
                str(each["OpenShardCount"]),
                f"{each['RetentionPeriodHours']} h",
                each.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED"),
            )
            for each in found
        ]
        terminal.table(rows, right=(2, 3))
    else:
        terminal.line(f"no streams on {remote.where}")
    return 0


def create(remote: Remote, arguments: Arguments, terminal: Terminal) -> int:
    """Create one, and wait until it is ACTIVE."""
    members: dict[str, Any] = {"StreamName": arguments.name, "ShardCount": arguments.shards or 1}
    if arguments.max_record_size_in_kib is not None:
        members["MaxRecordSizeInKiB"] = arguments.max_record_size_in_kib
    remote.call("create_stream", **members)
    _wait(remote, arguments.name, terminal, lambda found: found["StreamStatus"] == "ACTIVE")
    if arguments.retention_hours is not None:
        hours = arguments.retention_hours
        remote.call("increase_stream_retention_period", StreamName=arguments.name, RetentionPeriodHours=hours)
    text = f"created stream {arguments.name} with {count(members['ShardCount'], 'shard')} on {remote.where}"
    terminal.answer(text, {"stream": arguments.name, "shards": members["ShardCount"]}, json=arguments.json)
    return 0


def describe(remote: Remote, arguments: Arguments, terminal: Terminal) -> int:
    """Everything about one."""
    found, shards = remote.summary(arguments.name), remote.shards(arguments.name)
    if arguments.json:
        terminal.json({**_summary(found), "shards": [_shard(each) for each in shards]})
        return 0
    terminal.line(f"{found['StreamName']}  {found['StreamStatus']}  retention {found['RetentionPeriodHours']} h")
    terminal.line(f"{found['StreamARN']}")
    closed = len(shards) - found["OpenShardCount"]
    terminal.line(f"{count(found['OpenShardCount'], 'open shard')}" + (f", {closed} closed" if closed else ""))
    table = [("shard", "state", "first hash key", "parents")]
    table += [
        (
            each["ShardId"],
            "open" if _is_open(each) else "closed",
            f"{int(each['HashKeyRange']['StartingHashKey']):032x}",
            ", ".join(str(shard_index(parent)) for parent in _parents(each)) or "-",
        )
        for each in shards
    ]
    terminal.table(table if closed else [row[:-1] for row in table])
    return 0


def split(remote: Remote, arguments: Arguments, terminal: Terminal) -> int:
    """Split a shard, and wait for the children."""
    chosen = _find(remote.shards(arguments.name), arguments.shard, arguments.name)
    keys = chosen["HashKeyRange"]
    at = arguments.at or str(middle(int(keys["StartingHashKey"]), int(keys["EndingHashKey"])))
    return _change(
        remote,
        arguments,
        terminal,
        lambda: remote.call(
            "split_shard", ShardToSplit=chosen["ShardId"], NewStartingHashKey=at, **named(arguments.name)
        ),
    )


def merge(remote: Remote, arguments: Arguments, terminal: Terminal) -> int:
    """Merge two shards, and wait for the child."""
    shards = remote.shards(arguments.name)
    first, second = (_find(shards, each, arguments.name) for each in (arguments.shard, arguments.adjacent))
    members = {"ShardToMerge": first["ShardId"], "AdjacentShardToMerge": second["ShardId"]}
    return _change(remote, arguments, terminal, lambda: remote.call("merge_shards", **members, **named(arguments.name)))


def scale(remote: Remote, arguments: Arguments, terminal: Terminal) -> int:
    """Have another number of open shards, and wait for it."""
    members = {"TargetShardCount": arguments.shards, "ScalingType": "UNIFORM_SCALING", **named(arguments.name)}
    return _change(remote, arguments, terminal, lambda: remote.call("update_shard_count", **members))


def delete(remote: Remote, arguments: Arguments, terminal: Terminal) -> int:
    """Delete one, with its records, and wait until it is gone."""
    found = remote.summary(arguments.name)
    question = f"Delete stream {found['StreamARN']} on {remote.where}, with its records?"
    if not terminal.confirm(question, yes=arguments.yes):
        terminal.line("nothing was changed")
        return 1
    remote.call("delete_stream", **named(arguments.name))
    try:
        _wait(remote, arguments.name, terminal, lambda _: False)
    except ResourceNotFound:
        terminal.answer(f"deleted stream {arguments.name}", {"deleted": arguments.name}, json=arguments.json)
    return 0


def _change(remote: Remote, arguments: Arguments, terminal: Terminal, begin: Callable[[], object]) -> int:
    before = {each["ShardId"]: _is_open(each) for each in remote.shards(arguments.name)}
    begin()
    found = _wait(remote, arguments.name, terminal, lambda found: found["StreamStatus"] == "ACTIVE")
    after = {each["ShardId"]: _is_open(each) for each in remote.shards(arguments.name)}
    closed = [each for each, was_open in before.items() if was_open and not after.get(each, False)]
    opened = [each for each, is_open in after.items() if is_open and each not in before]
    return resharded.show(
        arguments,
        terminal,
        stream=found["StreamName"],
        closed=closed,
        opened=opened,
        open_shards=sum(after.values()),
    )


def _wait(remote: Remote, name: str, terminal: Terminal, is_done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look once a second.

    Raises:
        ResourceNotFound: the stream is gone.
        UsageError: it takes longer than a quarter of an hour.
    """
    deadline = time.monotonic() + _PATIENCE_S
    progress = Progress(terminal, "seconds", None)
    waited = 0
    try:
        while not is_done(found := remote.summary(name)):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"stream {name} on {remote.where} is still {found['StreamStatus']}; look again with "
                    f"`kflow streams describe {name}`"
                )
            time.sleep(_LOOK_S)
            waited += 1
            progress.update(waited)
    finally:
        progress.finish()
    return found


def _find(shards: Sequence[dict[str, Any]], wanted: str, stream: str) -> dict[str, Any]:
    try:
        name = shard_id(shard_index(wanted))
    except ValueError as error:
        raise UsageError(f"a shard is a number such as 0, or an id such as {shard_id(0)}, not {wanted!r}") from error
    found = next((each for each in shards if each["ShardId"] == name), None)
    if found is None:
        raise UsageError(f"stream {stream} has no shard {name}: `kflow streams describe {stream}` shows those it has")
    return found


def _is_open(shard: dict[str, Any]) -> bool:
    return "EndingSequenceNumber" not in shard["SequenceNumberRange"]


def _parents(shard: dict[str, Any]) -> list[str]:
    return [shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if shard.get(name)]


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "stream": found["StreamName"],
        "arn": found["StreamARN"],
        "status": found["StreamStatus"],
        "open_shards": found["OpenShardCount"],
        "retention_hours": found["RetentionPeriodHours"],
        "mode": found.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED"),
    }


def _shard(shard: dict[str, Any]) -> dict[str, Any]:
    keys, numbers = shard["HashKeyRange"], shard["SequenceNumberRange"]
    return {
        "shard_id": shard["ShardId"],
        "starting_hash_key": keys["StartingHashKey"],
        "ending_hash_key": keys["EndingHashKey"],
        "parents": _parents(shard),
        "starting_sequence_number": numbers["StartingSequenceNumber"],
        "ending_sequence_number": numbers.get("EndingSequenceNumber"),
        "open": _is_open(shard),
    }
