"""Operations on queues: make, find, list, change, purge and delete them; their tags and permissions."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from kflow.aws.calls import LATER, Answer, Call, Place
from kflow.broker.messagequeues import Counts
from kflow.errors import KflowError
from kflow.services.answering import answering
from kflow.services.sqs.parts import Base, operation
from kflow.sqs import attributes, checks, limits
from kflow.sqs.asking import Count, Nothing
from kflow.sqs.attributes import Name
from kflow.sqs.directory import Queue
from kflow.sqs.errors import InvalidParameterValue, MissingParameter, PurgeQueueInProgress, QueueDoesNotExist, invalid
from kflow.sqs.facts import Facts

_PERMITTED: Final = frozenset(
    {
        "*",
        "ChangeMessageVisibility",
        "DeleteMessage",
        "GetQueueAttributes",
        "GetQueueUrl",
        "ListDeadLetterSourceQueues",
        "PurgeQueue",
        "ReceiveMessage",
        "SendMessage",
    }
)
"""Source: documented: AddPermission, Actions."""


class Queues(Base):
    """Operations on queues."""

    @operation
    def create_queue(self, call: Call, given: Any) -> Answer:
        """Source: documented: CreateQueue; recorded: what makes a queue of the same name another one."""
        name = given.QueueName
        if not name:
            raise MissingParameter("QueueName")
        place, wanted = call.context.place, given.Attributes or {}
        attributes.check_name(name, wanted)
        tags = _tags({}, given.tags or {}, name)

        def made(plain: Facts) -> Facts:
            own = Name(place.region, place.account, name)
            changed = attributes.changed(plain, own, wanted, self._facts, is_new=True)
            return msgspec.structs.replace(changed, tags=tags)

        def told(reply: Any) -> None:
            if isinstance(reply, KflowError) and not isinstance(reply, QueueDoesNotExist):
                call.refuse(reply)
            else:  # also where somebody has deleted it meanwhile: it was there
                call.answer({"QueueUrl": self.url(call, place, name)})

        if self.directory.has(place, name):
            queue = self.directory.find(place, name)
            own = Name(place.region, place.account, name)
            attributes.changed(queue.facts, own, wanted, self._facts)  # whether they are attributes at all
            attributes.check_same(queue.facts, wanted)
            queue.desk.ask(Nothing(), told)
        else:
            self.directory.create(place, name, made, told)
        return LATER

    @operation
    def get_queue_url(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetQueueUrl."""
        if not given.QueueName:
            raise MissingParameter("QueueName")
        place = call.context.place
        if given.QueueOwnerAWSAccountId:
            place = Place(given.QueueOwnerAWSAccountId, place.region)
        return {"QueueUrl": self.url_of(call, self.directory.find(place, given.QueueName))}

    @operation
    def list_queues(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListQueues; chosen: the order, by name."""
        found = self.directory.of(call.context.place)
        found = [queue for queue in found if queue.facts.name.startswith(given.QueueNamePrefix or "")]
        return self._page(call, given, found, "QueueUrls")

    @operation
    def list_dead_letter_source_queues(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListDeadLetterSourceQueues."""
        found = self.directory.sources_of(self.queue(call, given.QueueUrl))
        page = self._page(call, given, found, "queueUrls")
        return {"queueUrls": [], **page}

    @operation
    def delete_queue(self, call: Call, given: Any) -> Answer:
        """Source: documented: DeleteQueue; chosen: it is gone at once, and its name is free."""
        self.directory.delete(self.queue(call, given.QueueUrl), answering(call))
        return LATER

    @operation
    def purge_queue(self, call: Call, given: Any) -> Answer:
        """Source: documented: PurgeQueue; chosen: it is empty at once."""
        queue, now_ms = self.queue(call, given.QueueUrl), self.host.now_ms()
        if now_ms - queue.facts.purged_ms < limits.PURGE_MS:
            raise PurgeQueueInProgress(queue.facts.name)
        purged = msgspec.structs.replace(queue.facts, purged_ms=now_ms)
        self.directory.change(queue, purged, answering(call), purge=True)
        return LATER

    @operation
    def get_queue_attributes(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetQueueAttributes."""
        queue, names = self.queue(call, given.QueueUrl), set(given.AttributeNames or ())
        for name in names:
            if name not in attributes.NAMES:
                raise attributes.unknown(name)
        if "All" in names:
            names = set(attributes.NAMES)
        shown = attributes.described(queue.facts, queue.arn)
        shown = {name: value for name, value in shown.items() if name in names}
        counted = names & attributes.COUNTS.keys()
        if not counted:
            return {"Attributes": shown or None}

        def output(counts: Counts) -> Mapping[str, Any]:
            return {
                "Attributes": shown
                | {name: str(getattr(counts, attributes.COUNTS[name])) for name in attributes.COUNTS if name in counted}
            }

        queue.desk.ask(Count(), answering(call, output))
        return LATER

    @operation
    def set_queue_attributes(self, call: Call, given: Any) -> Answer:
        """Source: documented: SetQueueAttributes; chosen: they hold at once."""
        queue = self.queue(call, given.QueueUrl)
        if given.Attributes is None:
            raise MissingParameter("Attributes")
        own = Name(queue.place.region, queue.place.account, queue.facts.name)
        changed = attributes.changed(queue.facts, own, given.Attributes, self._facts)
        self._change(call, queue, changed)
        return LATER

    # ------------------------------------------------------------------ tags

    @operation
    def tag_queue(self, call: Call, given: Any) -> Answer:
        """Source: documented: TagQueue."""
        queue = self.queue(call, given.QueueUrl)
        if not given.Tags:
            raise MissingParameter("Tags")
        tags = _tags(queue.facts.tags, given.Tags, queue.facts.name)
        self.directory.change(queue, msgspec.structs.replace(queue.facts, tags=tags), answering(call))
        return LATER

    @operation
    def untag_queue(self, call: Call, given: Any) -> Answer:
        """Source: documented: UntagQueue."""
        queue = self.queue(call, given.QueueUrl)
        if not given.TagKeys:
            raise MissingParameter("TagKeys")
        tags = {key: value for key, value in queue.facts.tags.items() if key not in given.TagKeys}
        self.directory.change(queue, msgspec.structs.replace(queue.facts, tags=tags), answering(call))
        return LATER

    @operation
    def list_queue_tags(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListQueueTags."""
        return {"Tags": dict(self.queue(call, given.QueueUrl).facts.tags) or None}

    # ------------------------------------------------------------------ permissions

    @operation
    def add_permission(self, call: Call, given: Any) -> Answer:
        """A statement of the queue's Policy, which is kept and shown. Source: documented; chosen: the texts."""
        queue = self.queue(call, given.QueueUrl)
        for name in ("Label", "AWSAccountIds", "Actions"):
            if not getattr(given, name):
                raise MissingParameter(name)
        checks.check_text("".join((given.Label, *given.AWSAccountIds)), "Label")
        for action in given.Actions:
            if action not in _PERMITTED:
                reason = f"Only the queue's owner may do that. Use {', '.join(sorted(_PERMITTED))}."
                raise invalid(f"SQS:{action}", "ActionName", reason)
        policy = _policy(queue)
        if any(each.get("Sid") == given.Label for each in policy["Statement"]):
            raise invalid(given.Label, "Label", "Already exists.")
        statement = {
            "Sid": given.Label,
            "Effect": "Allow",
            "Principal": {"AWS": _single([f"arn:aws:iam::{each}:root" for each in given.AWSAccountIds])},
            "Action": _single([f"SQS:{each}" for each in given.Actions]),
            "Resource": queue.arn,
        }
        self._set_policy(call, queue, {**policy, "Statement": [*policy["Statement"], statement]})
        return LATER

    @operation
    def remove_permission(self, call: Call, given: Any) -> Answer:
        """Source: documented: RemovePermission; chosen: the text."""
        queue = self.queue(call, given.QueueUrl)
        if not given.Label:
            raise MissingParameter("Label")
        policy = _policy(queue)
        left = [each for each in policy["Statement"] if each.get("Sid") != given.Label]
        if len(left) == len(policy["Statement"]):
            raise invalid(given.Label, "Label", "can't find label.")
        self._set_policy(call, queue, {**policy, "Statement": left} if left else None)
        return LATER

    # ------------------------------------------------------------------ inside

    def _facts(self, named: Name) -> Facts | None:
        """The facts of a queue that an attribute names."""
        place = Place(named.account, named.region)
        return self.directory.find(place, named.name).facts if self.directory.has(place, named.name) else None

    def _change(self, call: Call, queue: Queue, changed: Facts) -> None:
        """Keep other attributes, and let who waits be looked at under them."""
        changed = msgspec.structs.replace(changed, changed_ms=self.host.now_ms())

        def told(reply: KflowError | None) -> None:
            answering(call)(reply)
            queue.desk.changed()

        self.directory.change(queue, changed, told)

    def _set_policy(self, call: Call, queue: Queue, policy: Mapping[str, Any] | None) -> None:
        text = "" if policy is None else json.dumps(policy, separators=(",", ":"))
        self._change(call, queue, msgspec.structs.replace(queue.facts, policy=text))

    def _page(self, call: Call, given: Any, found: Sequence[Queue], name: str) -> dict[str, Any]:
        """URLs of queues: all, or a page and a token where the caller says how many. Source: documented: ListQueues."""
        most = given.MaxResults
        if most is not None and not 1 <= most <= limits.PAGE:
            reason = f"MaxResults must be an integer between 1 and {limits.PAGE}, if provided."
            raise invalid(most, "MaxResults", reason)
        if given.NextToken is not None:
            after = _after(given.NextToken)
            if most is None:
                raise InvalidParameterValue("MaxResults must be given together with NextToken.")
            found = [queue for queue in found if queue.facts.name > after]
        page = found[: most or limits.PAGE]
        output: dict[str, Any] = {}
        if page:
            output[name] = [self.url_of(call, queue) for queue in page]
        if most is not None and len(found) > len(page):
            output["NextToken"] = base64.b64encode(page[-1].facts.name.encode()).decode()
        return output


def _after(token: str) -> str:
    try:
        return base64.b64decode(token, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise invalid(token, "NextToken", "It is no token of this operation.") from error


def _tags(there: Mapping[str, str], given: Mapping[str, str], queue: str) -> dict[str, str]:
    """Tags with those given. Source: documented: quotas of tags; chosen: the texts."""
    for key, value in given.items():
        checks.check_text(key + value, "Tags")
        if not 1 <= len(key) <= 128 or key.lower().startswith("aws:"):
            raise InvalidParameterValue(
                f"Tag key {key} is invalid: it has 1 to 128 characters, and does not begin with aws:."
            )
        if len(value) > 256:
            raise InvalidParameterValue(f"The value of tag {key} is invalid: it has at most 256 characters.")
    tags = {**there, **given}
    if len(tags) > limits.TAGS:
        raise InvalidParameterValue(f"Too many tags added for queue {queue}: the most is {limits.TAGS}.")
    return tags


def _policy(queue: Queue) -> dict[str, Any]:
    if queue.facts.policy:
        found = json.loads(queue.facts.policy)
        statements = found.get("Statement", [])
        statements = statements if isinstance(statements, list) else [statements]
        return {**found, "Statement": [each for each in statements if isinstance(each, dict)]}
    return {"Version": "2008-10-17", "Id": f"{queue.arn}/SQSDefaultPolicy", "Statement": []}


def _single(values: Sequence[str]) -> str | Sequence[str]:
    return values[0] if len(values) == 1 else values
