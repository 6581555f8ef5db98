"""AWS CloudWatch Logs: the logs of functions, and groups and events of others, as the SDKs read and write them.

Source: documented: CloudWatch Logs API reference; recorded: the texts, but those marked chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from kflow.aws.calls import LATER, Answer, Call, Output, Place
from kflow.broker.host import Host
from kflow.monitoring import filterpatterns
from kflow.monitoring.errors import InvalidParameter, NoResource
from kflow.monitoring.logged import LAST_ID, Logged, first_id, is_id
from kflow.monitoring.loggroups import DAY_MS, Group, LogGroups, Page, Rejected, Stream, tagged
from kflow.monitoring.onethread import OneThread
from kflow.services.answering import answering

T = TypeVar("T")

_ARN: Final = re.compile(r"arn:(aws[a-z-]*):logs:([a-z0-9-]+):([0-9]{12}):log-group:([^:*]+)(?::\*)?")
_DAYS: Final = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
"""How long a retention may be. Source: documented: PutRetentionPolicy."""
_LISTED: Final = 50
_EVENTS: Final = 10_000
_PUT_BYTES: Final = 1 << 20
_EVENT_BYTES: Final = 26
_FAR_MS: Final = 99_999_999_999_999


class Logs:
    """Its operations. Belongs to the loop's thread.

    Args:
        host: the node.
        home: account and region of functions that name none.
    """

    service_name = "logs"

    def __init__(self, host: Host, home: Place) -> None:
        self._host = host
        self._home = home
        self._thread = OneThread(host)
        self._made: LogGroups | None = None

    def close(self, then: Callable[[], object]) -> None:
        """Close the files, when what is under way is done."""

        def close() -> None:
            if self._made is not None:
                self._made.close()

        self._thread.do(close, lambda _: then())

    def clear(self, then: Callable[[], object]) -> None:
        """Forget what is kept beside the functions' logs."""
        self._thread.do(lambda: self._groups().clear(), lambda _: then())

    # ------------------------------------------------------------------ groups

    def describe_log_groups(self, call: Call, given: Any) -> Answer:
        """Those of a place, by name."""
        if given.logGroupNamePrefix and given.logGroupNamePattern:
            raise InvalidParameter("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
        if given.includeLinkedAccounts or given.accountIdentifiers:
            raise InvalidParameter("No accounts are linked to this one.")  # chosen
        wanted = given.logGroupIdentifiers
        names = None if wanted is None else {_name_of(each) for each in wanted}
        pattern = (given.logGroupNamePattern or "").lower()

        def shown(groups: list[Group]) -> Output:
            found = [
                each
                for each in groups
                if each.name.startswith(given.logGroupNamePrefix or "")
                and pattern in each.name.lower()
                and (names is None or each.name in names)
                and given.logGroupClass in (None, each.facts.kind)
            ]
            page, token = _page(found, given.limit or _LISTED, given.nextToken, lambda each: each.name)
            return {"logGroups": [_group(call.context.place, each) for each in page], "nextToken": token}

        return self._do(call, lambda groups: groups.groups(call.context.place), shown)

    def create_log_group(self, call: Call, given: Any) -> Answer:
        """Make one. A key is shown, and encrypts nothing."""
        place = call.context.place

        def make(groups: LogGroups) -> None:
            groups.make(
                place,
                given.logGroupName,
                kind=given.logGroupClass or "STANDARD",
                tags=dict(given.tags or {}),
                key=given.kmsKeyId or "",
                is_protected=bool(given.deletionProtectionEnabled),
            )

        return self._do(call, make)

    def delete_log_group(self, call: Call, given: Any) -> Answer:
        """Delete one, with the log of the function that it is of."""
        return self._do(call, lambda groups: groups.delete(call.context.place, given.logGroupName))

    def put_log_group_deletion_protection(self, call: Call, given: Any) -> Answer:
        """Keep one from being deleted, or not any more."""
        place, name = call.context.place, _name_of(given.logGroupIdentifier)
        is_protected = bool(given.deletionProtectionEnabled)
        return self._do(
            call,
            lambda groups: groups.change(
                place, name, lambda facts: msgspec.structs.replace(facts, is_protected=is_protected)
            ),
        )

    def put_retention_policy(self, call: Call, given: Any) -> Answer:
        """Keep events so many days."""
        days = given.retentionInDays
        if days not in _DAYS:
            raise InvalidParameter(
                f"1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{', '.join(map(str, _DAYS))}]"
            )
        return self._retain(call, given.logGroupName, days)

    def delete_retention_policy(self, call: Call, given: Any) -> Answer:
        """Keep events for ever; those of functions as long as the files have room."""
        return self._retain(call, given.logGroupName, None)

    def _retain(self, call: Call, name: str, days: int | None) -> Answer:
        place = call.context.place
        return self._do(
            call,
            lambda groups: groups.change(
                place, name, lambda facts: msgspec.structs.replace(facts, retention_days=days)
            ),
        )

    # ------------------------------------------------------------------ tags

    def tag_log_group(self, call: Call, given: Any) -> Answer:
        """Add tags."""
        return self._tag(call, given.logGroupName, dict(given.tags), ())

    def untag_log_group(self, call: Call, given: Any) -> Answer:
        """Take tags off."""
        return self._tag(call, given.logGroupName, {}, given.tags)

    def list_tags_log_group(self, call: Call, given: Any) -> Answer:
        """All tags."""
        return self._tags(call, given.logGroupName)

    def tag_resource(self, call: Call, given: Any) -> Answer:
        """Add tags, by ARN."""
        return self._tag(call, _named_by(call.context.place, given.resourceArn), dict(given.tags), ())

    def untag_resource(self, call: Call, given: Any) -> Answer:
        """Take tags off, by ARN."""
        return self._tag(call, _named_by(call.context.place, given.resourceArn), {}, given.tagKeys)

    def list_tags_for_resource(self, call: Call, given: Any) -> Answer:
        """All tags, by ARN."""
        return self._tags(call, _named_by(call.context.place, given.resourceArn))

    def _tag(self, call: Call, name: str, tags: dict[str, str], without: Sequence[str]) -> Answer:
        place = call.context.place
        return self._do(
            call, lambda groups: groups.change(place, name, lambda facts: tagged(facts, tags, without=without))
        )

    def _tags(self, call: Call, name: str) -> Answer:
        place = call.context.place
        return self._do(call, lambda groups: groups.facts(place, name), lambda facts: {"tags": facts.tags})

    # ------------------------------------------------------------------ streams

    def describe_log_streams(self, call: Call, given: Any) -> Answer:
        """Those of a group, by name or by when they were written last."""
        place, name = call.context.place, _group_name(given)
        by_time = given.orderBy == "LastEventTime"
        if by_time and given.logStreamNamePrefix:
            raise InvalidParameter("Cannot order by LastEventTime with a logStreamNamePrefix.")
        prefix = given.logStreamNamePrefix or ""

        def key(stream: Stream) -> str:
            return f"{stream.last_ms or 0:014d} {stream.name}" if by_time else stream.name

        def shown(streams: list[Stream]) -> Output:
            found = sorted((each for each in streams if each.name.startswith(prefix)), key=key)
            page, token = _page(
                found[::-1] if given.descending else found,
                given.limit or _LISTED,
                given.nextToken,
                key,
                descending=bool(given.descending),
            )
            return {"logStreams": [_stream(place, name, each) for each in page], "nextToken": token}

        return self._do(call, lambda groups: groups.streams(place, name), shown)

    def create_log_stream(self, call: Call, given: Any) -> Answer:
        """Make one."""
        place = call.context.place
        return self._do(call, lambda groups: groups.make_stream(place, given.logGroupName, given.logStreamName))

    def delete_log_stream(self, call: Call, given: Any) -> Answer:
        """Delete one, with its events."""
        place = call.context.place
        return self._do(call, lambda groups: groups.delete_stream(place, given.logGroupName, given.logStreamName))

    # ------------------------------------------------------------------ events

    def put_log_events(self, call: Call, given: Any) -> Answer:
        """Take in events: up to 10,000, and 1 MiB of them."""
        place = call.context.place

        def put(groups: LogGroups) -> Rejected:
            events = [(each.timestamp, each.message) for each in given.logEvents]
            return groups.put(place, given.logGroupName, given.logStreamName, events, _checked_size(events))

        def shown(rejected: Rejected) -> Output:
            info = {
                "tooOldLogEventEndIndex": rejected.too_old,
                "expiredLogEventEndIndex": rejected.expired,
                "tooNewLogEventStartIndex": rejected.too_new,
            }
            is_whole = all(value is None for value in info.values())
            token = first_id(self._host.now_ms())
            return {"nextSequenceToken": token, **({} if is_whole else {"rejectedLogEventsInfo": info})}

        return self._do(call, put, shown)

    def get_log_events(self, call: Call, given: Any) -> Answer:
        """A page of one stream: forwards, or backwards from its end."""
        place, name = call.context.place, _group_name(given)
        kind, _, id_ = (given.nextToken or "").partition("/")
        if given.nextToken and (kind not in {"f", "b"} or not is_id(id_)):
            raise InvalidParameter("The specified nextToken is invalid.")
        since_ms = given.startTime or 0
        until_ms = _FAR_MS if given.endTime is None else given.endTime
        is_forward = kind == "f" or (not kind and bool(given.startFromHead))
        after = (id_ or first_id(since_ms)) if is_forward else ""
        before = "" if is_forward else (id_ or LAST_ID)

        def shown(events: list[Logged]) -> Output:
            edge = after or before
            if edge == LAST_ID:  # a stream without events: what comes is forwards
                edge = first_id(since_ms)
            return {
                "events": [
                    {"timestamp": each.ms, "message": each.text, "ingestionTime": each.taken_ms} for each in events
                ],
                "nextForwardToken": f"f/{events[-1].id if events else edge}",
                "nextBackwardToken": f"b/{events[0].id if events else edge}",
            }

        return self._do(
            call,
            lambda groups: groups.page(
                place,
                name,
                given.logStreamName,
                since_ms=since_ms,
                until_ms=until_ms,
                after=after,
                before=before,
                limit=given.limit or _EVENTS,
            ),
            shown,
        )

    def filter_log_events(self, call: Call, given: Any) -> Answer:
        """Events of a group that match a pattern, of all its streams together, in order of time."""
        place, name = call.context.place, _group_name(given)
        if given.logStreamNames and given.logStreamNamePrefix:
            raise InvalidParameter("Only one of logStreamNames and logStreamNamePrefix may be specified.")  # chosen
        kind, _, id_ = (given.nextToken or "").rpartition("/")
        if given.nextToken and (kind not in {"", "b"} or not is_id(id_)):
            raise InvalidParameter("The specified nextToken is invalid.")
        is_backward = kind == "b" or (not id_ and given.startFromHead is False)
        matches = filterpatterns.compiled(given.filterPattern or "")
        since_ms = given.startTime or 0
        until_ms = _FAR_MS if given.endTime is None else given.endTime + 1  # documented: later events are left out

        def shown(page: Page) -> Output:
            token = f"b/{page.after}" if is_backward else page.after
            return {
                "events": [
                    {
                        "logStreamName": each.stream,
                        "timestamp": each.ms,
                        "message": each.text,
                        "ingestionTime": each.taken_ms,
                        "eventId": each.id,
                    }
                    for each in page.events
                ],
                "searchedLogStreams": [],  # documented: it is empty now
                "nextToken": token if page.after else None,
            }

        return self._do(
            call,
            lambda groups: groups.search(
                place,
                name,
                streams=given.logStreamNames,
                prefix=given.logStreamNamePrefix or "",
                since_ms=since_ms,
                until_ms=until_ms,
                after="" if is_backward else id_ or first_id(since_ms),
                before=(id_ or LAST_ID) if is_backward else "",
                limit=given.limit or _EVENTS,
                matches=matches,
            ),
            shown,
        )

    def test_metric_filter(self, call: Call, given: Any) -> Answer:
        """Which of these messages a pattern matches. The values that it takes out of them are not told."""
        del call
        matches = filterpatterns.compiled(given.filterPattern)
        found = [
            {"eventNumber": number, "eventMessage": text, "extractedValues": {}}
            for number, text in enumerate(given.logEventMessages, 1)
            if matches is None or matches(text)
        ]
        return {"matches": found}

    # ------------------------------------------------------------------ inside

    def _groups(self) -> LogGroups:
        """In that thread."""
        if self._made is None:
            self._made = LogGroups(self._host.folder, self._home, self._host.now_ms)
        return self._made

    def _do(self, call: Call, work: Callable[[LogGroups], T], shown: Callable[[T], Output] = lambda _: None) -> Answer:
        """Do file work, and answer with what it came to; that is put into words in the thread too: it may be long."""
        self._thread.do(lambda: shown(work(self._groups())), answering(call, lambda found: found))
        return LATER


def _checked_size(events: Sequence[tuple[int, str]]) -> int:
    """Bytes of events that are put, as they are counted."""
    size = sum(len(text.encode()) + _EVENT_BYTES for _, text in events)
    if size > _PUT_BYTES:
        raise InvalidParameter(f"Upload too large: {size} bytes exceeds limit of {_PUT_BYTES}")
    times = [ms for ms, _ in events]
    if times != sorted(times):
        raise InvalidParameter("Log events in a single PutLogEvents request must be in chronological order.")
    if times[-1] - times[0] > DAY_MS:
        raise InvalidParameter(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
        )
    return size


def _group_name(given: Any) -> str:
    """By name, or by an identifier: a name or an ARN."""
    if given.logGroupName and given.logGroupIdentifier:
        raise InvalidParameter("LogGroup name and LogGroup identifier are mutually exclusive parameters.")
    name = given.logGroupName or given.logGroupIdentifier
    if not name:
        raise InvalidParameter("LogGroup name or LogGroup identifier must be specified.")  # chosen
    return _name_of(name)


def _name_of(identifier: str) -> str:
    found = _ARN.fullmatch(identifier)
    return identifier if found is None else found[4]


def _named_by(place: Place, arn: str) -> str:
    found = _ARN.fullmatch(arn)
    if found is None or (found[3], found[2]) != place:
        raise NoResource
    return found[4]


def _arn(place: Place, name: str) -> str:
    return f"arn:aws:logs:{place.region}:{place.account}:log-group:{name}"


def _page(
    found: Sequence[T], limit: int, token: str | None, key: Callable[[T], str], *, descending: bool = False
) -> tuple[Sequence[T], str | None]:
    """A page behind what a token names."""
    if token is not None:
        found = [each for each in found if (key(each) < token if descending else key(each) > token)]
    page = found[:limit]
    return page, key(page[-1]) if len(found) > limit else None


def _group(place: Place, group: Group) -> dict[str, Any]:
    arn = _arn(place, group.name)
    return {
        "logGroupName": group.name,
        "creationTime": group.facts.created_ms,
        "retentionInDays": group.facts.retention_days,
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "storedBytes": group.stored_bytes,
        "kmsKeyId": group.facts.key or None,
        "logGroupClass": group.facts.kind,
        "logGroupArn": arn,
        "deletionProtectionEnabled": group.facts.is_protected,
    }


def _stream(place: Place, group: str, stream: Stream) -> dict[str, Any]:
    return {
        "logStreamName": stream.name,
        "creationTime": stream.created_ms,
        "firstEventTimestamp": stream.first_ms,
        "lastEventTimestamp": stream.last_ms,
        "lastIngestionTime": stream.taken_ms,
        "uploadSequenceToken": first_id(stream.last_ms or stream.created_ms),
        "arn": f"{_arn(place, group)}:log-stream:{stream.name}",
        "storedBytes": 0,
    }
