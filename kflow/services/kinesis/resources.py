"""Tags, resource policies, encryption and monitoring."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from kflow import limits
from kflow.aws.calls import LATER, Answer, Call
from kflow.errors import InvalidArgument, ResourceNotFound
from kflow.interfaces import Done
from kflow.kinesis import tags
from kflow.kinesis.queues.directory import Directory
from kflow.kinesis.registry import Status, Stream
from kflow.kinesis.states import require_there
from kflow.services.answering import answering
from kflow.services.kinesis.control import Control

_POLICY_BYTES: Final = 20 * limits.KIB
"""Source: chosen: the bound of resource policies elsewhere at AWS."""
_KIND: Final = re.compile(r"arn:aws[^:]*:kinesis:[^:]*:\d{12}:[^/]*?(stream|queue|channel)/[^/]+(/consumer/.*)?")


class Resource(NamedTuple):
    """What has tags and a policy: a stream, a consumer or a queue.

    Attributes:
        what: for people.
        account: of it.
        tags: its tags.
        policy: JSON text; empty for none.
        check: refuses changes in its present state.
        change: keeps other tags or another policy.
    """

    what: str
    account: str
    tags: dict[str, str]
    policy: str
    check: Callable[[], object]
    change: Callable[[Done, dict[str, Any]], object]


class Resources(Control):
    """Operations on what streams, consumers and queues carry.

    Attributes:
        queues: all queues; `Queues` of the same service has them.
    """

    queues: Directory

    # ------------------------------------------------------------------ tags of streams

    def add_tags_to_stream(self, call: Call, given: Any) -> Answer:
        """Source: documented: AddTagsToStream."""
        stream = self.named(call, "AddTagsToStream", given)
        return self._tag(call, self._of_stream(stream), given.Tags)

    def remove_tags_from_stream(self, call: Call, given: Any) -> Answer:
        """Source: documented: RemoveTagsFromStream."""
        stream = self.named(call, "RemoveTagsFromStream", given)
        return self._untag(call, self._of_stream(stream), given.TagKeys)

    def list_tags_for_stream(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListTagsForStream; recorded: sorted by key, all of them without a limit."""
        stream = self.named(call, "ListTagsForStream", given)
        start = given.ExclusiveStartTagKey
        found = [pair for pair in self._tags_of(stream) if start is None or pair[0] > start]
        page = found if given.Limit is None else found[: given.Limit]
        return {"Tags": _listed(page), "HasMoreTags": len(found) > len(page)}

    def _tags_of(self, stream: Stream) -> list[tuple[str, str]]:
        is_going = stream.status(self.host.now_ms()) is Status.DELETING  # recorded: they vanish with DeleteStream
        return [] if is_going else sorted(stream.attributes.tags.items())

    # ------------------------------------------------------------------ tags of resources

    def tag_resource(self, call: Call, given: Any) -> Answer:
        """Source: documented: TagResource."""
        return self._tag(call, self._resource(call, "TagResource", given.ResourceARN), given.Tags)

    def untag_resource(self, call: Call, given: Any) -> Answer:
        """Source: documented: UntagResource."""
        return self._untag(call, self._resource(call, "UntagResource", given.ResourceARN), given.TagKeys)

    def list_tags_for_resource(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListTagsForResource; chosen: sorted by key."""
        found = self._resource(call, "ListTagsForResource", given.ResourceARN)
        return {"Tags": _listed(sorted(found.tags.items()))}

    def _tag(self, call: Call, resource: Resource, more: dict[str, str]) -> Answer:
        after = tags.added(resource.what, resource.account, resource.tags, more)
        resource.check()
        resource.change(answering(call), {"tags": after})
        return LATER

    def _untag(self, call: Call, resource: Resource, keys: list[str]) -> Answer:
        resource.check()
        resource.change(answering(call), {"tags": tags.without(resource.tags, keys)})
        return LATER

    # ------------------------------------------------------------------ policies

    def put_resource_policy(self, call: Call, given: Any) -> Answer:
        """Kept and shown, not enforced. Source: documented: PutResourcePolicy; chosen: the texts."""
        found = self._resource(call, "PutResourcePolicy", given.ResourceARN)
        _check_policy(given.Policy)
        found.check()
        found.change(answering(call), {"policy": given.Policy})
        return LATER

    def get_resource_policy(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetResourcePolicy; recorded: an empty object where there is none."""
        return {"Policy": self._resource(call, "GetResourcePolicy", given.ResourceARN).policy or "{}"}

    def delete_resource_policy(self, call: Call, given: Any) -> Answer:
        """Source: documented: DeleteResourcePolicy; chosen: refused where there is none."""
        found = self._resource(call, "DeleteResourcePolicy", given.ResourceARN)
        if not found.policy:
            raise ResourceNotFound(f"No resource policy found for {given.ResourceARN}, account {found.account}.")
        found.check()
        found.change(answering(call), {"policy": ""})
        return LATER

    # ------------------------------------------------------------------ encryption and monitoring

    def start_stream_encryption(self, call: Call, given: Any) -> Answer:
        """Source: documented: StartStreamEncryption."""
        stream = self.named(call, "StartStreamEncryption", given)
        _check_encryption(given.EncryptionType)
        self.alterations.encrypt(stream, given.KeyId, answering(call))
        return LATER

    def stop_stream_encryption(self, call: Call, given: Any) -> Answer:
        """Source: documented: StopStreamEncryption."""
        stream = self.named(call, "StopStreamEncryption", given)
        _check_encryption(given.EncryptionType)
        self.alterations.decrypt(stream, given.KeyId, answering(call))
        return LATER

    def enable_enhanced_monitoring(self, call: Call, given: Any) -> Answer:
        """Source: documented: EnableEnhancedMonitoring."""
        return self._monitor(call, "EnableEnhancedMonitoring", given, enable=True)

    def disable_enhanced_monitoring(self, call: Call, given: Any) -> Answer:
        """Source: documented: DisableEnhancedMonitoring."""
        return self._monitor(call, "DisableEnhancedMonitoring", given, enable=False)

    def _monitor(self, call: Call, operation: str, given: Any, *, enable: bool) -> Answer:
        stream = self.named(call, operation, given)
        answer: dict[str, Any] = {"StreamName": stream.name}
        told = answering(call, lambda _: answer)
        before, after = self.alterations.monitor(stream, given.ShardLevelMetrics, enable=enable, told=told)
        answer |= {
            "CurrentShardLevelMetrics": before,
            "DesiredShardLevelMetrics": after,
            "StreamARN": stream.arn,
        }
        return LATER

    # ------------------------------------------------------------------ what an ARN names

    def _resource(self, call: Call, operation: str, text: str) -> Resource:
        """What an ARN names, once the call is admitted.

        Raises:
            LimitExceeded: calls come too often.
            InvalidArgument, ResourceNotFound: it names nothing.
        """
        self.admit(call, operation)
        match = _KIND.fullmatch(text)
        if match is None:
            raise InvalidArgument(f"{text} is not the ARN of a stream, a consumer or a queue.")
        if match[1] == "queue":
            return self._of_queue(text)
        if match[1] == "channel":
            raise ResourceNotFound(f"{text} does not exist: there are no channels.")
        if match[2] is None:
            return self._of_stream(self.registry.by_arn(text))
        return self._of_consumer(text)

    def _of_stream(self, stream: Stream) -> Resource:
        def change(done: Done, changes: dict[str, Any]) -> None:
            self.registry.change(stream, done, **changes)

        return Resource(
            f"stream {stream.name}",
            stream.account,
            dict(self._tags_of(stream)),
            stream.attributes.policy,
            lambda: require_there(stream, self.host.now_ms()),
            change,
        )

    def _of_consumer(self, text: str) -> Resource:
        stream, found = self.registry.by_consumer_arn(text, self.host.now_ms())

        def change(done: Done, changes: dict[str, Any]) -> None:
            self.fans.replace(stream, found, msgspec.structs.replace(found, **changes), done)

        return Resource(f"consumer {found.name}", stream.account, found.tags, found.policy, lambda: None, change)

    def _of_queue(self, text: str) -> Resource:
        queue = self.queues.find(text)

        def change(done: Done, changes: dict[str, Any]) -> None:
            self.queues.change(queue, done, **changes)

        return Resource(
            f"queue {queue.facts.name}", queue.place.account, queue.facts.tags, queue.facts.policy, lambda: None, change
        )


def _listed(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in pairs]


def _check_encryption(kind: str) -> None:
    if kind != "KMS":
        raise InvalidArgument(f"EncryptionType {kind} is not supported: the only encryption is KMS.")


def _check_policy(text: str) -> None:
    if len(text.encode()) > _POLICY_BYTES:
        raise InvalidArgument(f"Policy is larger than {_POLICY_BYTES} bytes.")
    try:
        is_object = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise InvalidArgument("Policy is not a JSON object.")
