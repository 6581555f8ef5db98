"""Appending without a node: what a channel does under the writer lock."""

from __future__ import annotations

from kflow.broker.log import Log
from kflow.errors import KflowError, ResourceNotFound, StaleMap
from kflow.producing.frames import Answer, Failure, Frame

Failed = dict[int, KflowError]


def append_here(log: Log, frame: Frame, producer: int, failed: Failed) -> None:
    """Append what of a frame is not stored yet, and note what came of each part.

    Args:
        log: the log, its lock held.
        frame: the frame; where it was sent before, each part is looked for first.
        producer: id of the producer.
        failed: shards where an earlier frame failed: nothing may overtake it. Added to.

    Raises:
        StorageError: the folder cannot be used.
    """
    try:
        if frame.sent or failed:
            answers = _append_missing(log, frame, producer, failed)
        else:
            # Noted first: if an interrupt ends this call between an append and its answer, the next try looks for it.
            frame.tails = [log.shard(frame.stream, part[0]).tail for part in frame.parts]
            frame.sent = True
            answers = log.append_each(frame.stream, frame.parts, producer, frame.number)
    except (StaleMap, ResourceNotFound) as error:
        frame.fail_all(Failure("stale", error))
        return
    frame.note(answers)
    for place, failure in (frame.failures or {}).items():
        failed.setdefault(frame.parts[place].shard, failure.error)


def _append_missing(log: Log, frame: Frame, producer: int, failed: Failed) -> list[Answer | KflowError]:
    stream, number = frame.stream, frame.number
    stale = log.folder.current(stream).generation != frame.generation
    behind = dict(failed)
    answers: list[Answer | KflowError] = []
    for place, part in enumerate(frame.parts):
        try:
            shard = log.shard(stream, part.shard)
            found = None
            if frame.sent:
                found = log.find(stream, part.shard, producer, number, place, frame.tails[place])
            if found is None:
                if stale:
                    raise StaleMap(f"the shards of stream {stream.name} have changed")
                if part.shard in behind:
                    raise behind[part.shard]
                found = shard.append(part.body, part.count, part.crc, part.flags, producer, number, place)
            answers.append(found)
        except KflowError as error:
            behind.setdefault(part.shard, error)
            answers.append(error)
    return answers
