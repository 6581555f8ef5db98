"""Amazon SNS: topics, subscriptions of queues and functions, and what is published.

A method translates and decides nothing: the engine is `kflow.messaging`. What is changed is answered when it is kept,
and what is published when every queue that can have it keeps it, and every function will be invoked with it.

Source: documented: SNS API reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from kflow.aws.calls import LATER, Answer, Call, CallService, Context, Output, Place, Reply
from kflow.broker import statefile
from kflow.broker.host import Host
from kflow.countdown import countdown
from kflow.errors import AwsError, Damaged, KflowError
from kflow.messaging import attributes as rules
from kflow.messaging import topics as names
from kflow.messaging.delivering import Delivering
from kflow.messaging.errors import (
    BatchEntryIdsNotDistinct,
    BatchRequestTooLong,
    EmptyBatchRequest,
    InvalidBatchEntryId,
    InvalidParameter,
    NotFound,
    ResourceNotFound,
    SnsError,
    TagLimitExceeded,
    TooManyEntriesInBatchRequest,
)
from kflow.messaging.messages import BATCH, MESSAGE_BYTES, Attribute, Message
from kflow.messaging.topics import FILE_NAME, TAGS, Subscription, Topic, Topics
from kflow.services.answering import answering

_ENTRY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")


class Sns:
    """Its operations. Belongs to the loop's thread.

    Args:
        host: the node.
        invoke: calls SQS and Lambda.
        url: where the endpoint is, for callers that did not come through it.
    """

    service_name = "sns"

    def __init__(self, host: Host, invoke: CallService, url: Callable[[], str]) -> None:
        self._host = host
        self._invoke = invoke
        self._url = url
        self._topics = Topics()
        self._damage: KflowError | None = None
        self._file = statefile.StateFile(host, FILE_NAME, self._topics.encode)
        self._delivering = Delivering(host, self._send)
        try:
            text = statefile.load(host.folder, FILE_NAME)
            if text is not None:
                self._topics.load(text)
        except (KflowError, ValueError) as error:
            self._damage = error if isinstance(error, KflowError) else Damaged(f"{FILE_NAME}: {error}")
            host.notice("error", f"no topic is served: {self._damage}")

    @property
    def topics(self) -> Topics:
        """All of them.

        Raises:
            KflowError: they cannot be read; nothing is served, so that nothing is written over them.
        """
        if self._damage is not None:
            raise self._damage
        return self._topics

    def clear(self, then: Callable[[], object]) -> None:
        """Delete all topics; calls back when that is kept."""
        self._topics.clear()
        self._damage = None
        self._file.keep(lambda _: then())

    # ------------------------------------------------------------------ topics

    def create_topic(self, call: Call, given: Any) -> Answer:
        """The same again is the same topic."""
        if given.DataProtectionPolicy:
            raise InvalidParameter("DataProtectionPolicy", "kflow looks for no personal data: leave it out")
        attributes = dict(given.Attributes or {})
        rules.check_topic(attributes, is_fifo=attributes.get("FifoTopic") == "true", is_new=True)
        tags = _tags(given.Tags)
        if len(tags) > TAGS:
            raise TagLimitExceeded
        place = call.context.place
        topic = self.topics.create(place.region, place.account, given.Name, attributes, tags)
        return self._kept(call, {"TopicArn": topic.arn})

    def delete_topic(self, call: Call, given: Any) -> Answer:
        """With all its subscriptions. One that is not there is deleted already."""
        self._check_region(call, given.TopicArn)
        return self._kept(call, None) if self.topics.delete(given.TopicArn) else None

    def list_topics(self, call: Call, given: Any) -> Answer:
        """A hundred a page."""
        found = self.topics.of(call.context.place.region, call.context.place.account)
        shown, token = names.page(len(found), given.NextToken)
        return {"Topics": [{"TopicArn": each.arn} for each in found[shown]], "NextToken": token}

    def get_topic_attributes(self, call: Call, given: Any) -> Answer:
        """All of them."""
        return {"Attributes": rules.shown_topic(self._topic(call, given.TopicArn))}

    def set_topic_attributes(self, call: Call, given: Any) -> Answer:
        """One of them."""
        topic = self._topic(call, given.TopicArn)
        name, value = given.AttributeName, given.AttributeValue or ""
        rules.check_topic({name: value}, is_fifo=topic.is_fifo, is_new=False)
        topic.attributes[name] = value
        return self._kept(call, None)

    # ------------------------------------------------------------------ tags

    def tag_resource(self, call: Call, given: Any) -> Answer:
        """Tags of a topic."""
        topic = self._tagged(call, given.ResourceArn)
        tags = topic.tags | _tags(given.Tags)
        if len(tags) > TAGS:
            raise TagLimitExceeded
        topic.tags = tags
        return self._kept(call, None)

    def untag_resource(self, call: Call, given: Any) -> Answer:
        """Tags that are not there are removed already."""
        topic = self._tagged(call, given.ResourceArn)
        topic.tags = {key: value for key, value in topic.tags.items() if key not in given.TagKeys}
        return self._kept(call, None)

    def list_tags_for_resource(self, call: Call, given: Any) -> Answer:
        """All of them."""
        topic = self._tagged(call, given.ResourceArn)
        return {"Tags": [{"Key": key, "Value": value} for key, value in topic.tags.items()]}

    # ------------------------------------------------------------------ subscriptions

    def subscribe(self, call: Call, given: Any) -> Answer:
        """A queue or a function, of any account; it is confirmed at once, and need not exist yet."""
        topic = self._topic(call, given.TopicArn)
        endpoint = rules.check_endpoint(topic, given.Protocol, given.Endpoint)
        attributes = dict(given.Attributes or {})
        rules.check_subscription(attributes, endpoint)
        made = self.topics.subscribe(topic, call.context.place.account, endpoint, attributes)
        return self._kept(call, {"SubscriptionArn": made.arn})

    def confirm_subscription(self, call: Call, given: Any) -> Answer:
        """Queues and functions need no confirmation, so no token was ever given out."""
        self._topic(call, given.TopicArn)
        raise InvalidParameter("Token")

    def unsubscribe(self, call: Call, given: Any) -> Answer:
        """One that is not there has ended already."""
        return self._kept(call, None) if self.topics.unsubscribe(given.SubscriptionArn) else None

    def list_subscriptions(self, call: Call, given: Any) -> Answer:
        """Those of an account, a hundred a page."""
        place = call.context.place
        found = [each for each in self.topics.subscriptions(place.region) if each.owner == place.account]
        return _listed(found, given.NextToken)

    def list_subscriptions_by_topic(self, call: Call, given: Any) -> Answer:
        """A hundred a page."""
        return _listed([*self._topic(call, given.TopicArn).subscriptions.values()], given.NextToken)

    def get_subscription_attributes(self, call: Call, given: Any) -> Answer:
        """All of them."""
        del call
        return {"Attributes": rules.shown_subscription(self.topics.subscription(given.SubscriptionArn))}

    def set_subscription_attributes(self, call: Call, given: Any) -> Answer:
        """One of them; an empty policy is removed."""
        subscription = self.topics.subscription(given.SubscriptionArn)
        name, value = given.AttributeName, given.AttributeValue or ""
        attributes = {**subscription.attributes, name: value}
        if not value and name in {"FilterPolicy", "RedrivePolicy"}:
            del attributes[name]
        rules.check_subscription(attributes, subscription.endpoint)
        subscription.attributes = attributes
        return self._kept(call, None)

    # ------------------------------------------------------------------ messages

    def publish(self, call: Call, given: Any) -> Answer:
        """One message."""
        if given.PhoneNumber is not None:
            raise InvalidParameter("PhoneNumber", "kflow sends no texts to phones: publish to a topic")
        arn = given.TopicArn or given.TargetArn
        if not arn:
            raise InvalidParameter("TopicArn or TargetArn", "no value for required parameter")
        topic = self._topic(call, arn)
        message = _message(topic, given)
        told = answering(call, lambda _: _published(message))
        self._delivering.publish(topic, message, self._base_url(call), told)
        return LATER

    def publish_batch(self, call: Call, given: Any) -> Answer:
        """Up to ten; what is wrong with one fails that one."""
        topic = self._topic(call, given.TopicArn)
        rows = given.PublishBatchRequestEntries
        _check_batch([row.Id for row in rows])
        replies: dict[str, Message | AwsError] = {}
        for row in rows:
            try:
                replies[row.Id] = _message(topic, row)
            except SnsError as error:
                replies[row.Id] = error
        messages = {each: found for each, found in replies.items() if isinstance(found, Message)}
        if sum(each.size for each in messages.values()) > MESSAGE_BYTES:
            raise BatchRequestTooLong

        def answer() -> None:
            done = [{"Id": each, **_published(found)} for each, found in replies.items() if isinstance(found, Message)]
            failed = [
                {"Id": each, "Code": found.code, "Message": str(found), "SenderFault": found.sender_fault}
                for each, found in replies.items()
                if isinstance(found, AwsError)
            ]
            call.answer({"Successful": done, "Failed": failed})

        def told(entry: str, failure: KflowError | None) -> None:
            if isinstance(failure, AwsError):
                replies[entry] = failure
            over()

        over = countdown(len(messages) + 1, answer)
        for entry, message in messages.items():
            self._delivering.publish(topic, message, self._base_url(call), partial(told, entry))
        over()
        return LATER

    # ------------------------------------------------------------------ inside

    def _kept(self, call: Call, output: Output) -> Answer:
        """Answer when the change is kept."""
        self._file.keep(answering(call, lambda _: output))
        return LATER

    def _check_region(self, call: Call, arn: str) -> None:
        """Source: recorded: a topic of another region is no topic at all."""
        if names.parse(arn).region != call.context.place.region:
            raise InvalidParameter("TopicArn")

    def _topic(self, call: Call, arn: str) -> Topic:
        self._check_region(call, arn)
        return self.topics.find(arn)

    def _tagged(self, call: Call, arn: str) -> Topic:
        try:
            return self._topic(call, arn)
        except NotFound:
            raise ResourceNotFound from None

    def _base_url(self, call: Call) -> str:
        return call.context.base_url or self._url()

    def _send(self, endpoint: str, parameters: Mapping[str, Any], reply: Reply) -> None:
        _, _, _, region, account, name, *_ = endpoint.split(":")
        context = Context(place=Place(account, region), request_id="")
        if names.is_function(endpoint):
            self._invoke(context, "lambda", "Invoke", {"FunctionName": endpoint, **parameters}, reply)
        else:
            self._invoke(context, "sqs", "SendMessage", {"QueueUrl": f"/{account}/{name}", **parameters}, reply)


def _tags(given: Any) -> dict[str, str]:
    return {each.Key: each.Value for each in given or ()}


def _listed(found: list[Subscription], token: str | None) -> Answer:
    shown, following = names.page(len(found), token)
    return {"Subscriptions": names.shown(found[shown]), "NextToken": following}


def _check_batch(ids: list[str]) -> None:
    if not ids:
        raise EmptyBatchRequest
    if len(ids) > BATCH:
        raise TooManyEntriesInBatchRequest
    if not all(_ENTRY.fullmatch(each) for each in ids):
        raise InvalidBatchEntryId
    if len(set(ids)) < len(ids):
        raise BatchEntryIdsNotDistinct


def _message(topic: Topic, given: Any) -> Message:
    return Message(
        topic,
        text=given.Message,
        subject=given.Subject,
        structure=given.MessageStructure,
        attributes={name: _attribute(name, each) for name, each in (given.MessageAttributes or {}).items()},
        group=given.MessageGroupId,
        duplicate=given.MessageDeduplicationId,
    )


def _attribute(name: str, given: Any) -> Attribute:
    if given.StringValue is not None and given.BinaryValue is not None:
        raise InvalidParameter("MessageAttributes", f"the attribute '{name}' has two values")  # chosen
    value = given.StringValue if given.BinaryValue is None else given.BinaryValue
    return Attribute(given.DataType, value or "")


def _published(message: Message) -> dict[str, str]:
    found = {"MessageId": message.id}
    return {**found, "SequenceNumber": message.sequence} if message.sequence else found
