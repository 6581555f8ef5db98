"""What is kept of SNS: topics, and the subscriptions of each. Pure: a state, how it changes, and how it is written."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from kflow.messaging.errors import InvalidParameter, NotFound

FILE_NAME: Final = "topics.json"
TAGS: Final = 50
"""Tags of a topic at most. Source: documented: SNS quotas."""
_TOPIC: Final = re.compile(r"arn:aws[-a-z]*:sns:([a-z0-9-]+):([0-9]{12}):([A-Za-z0-9_-]{1,256}(?:\.fifo)?)")
_NAME: Final = re.compile(r"(?=.{1,256}$)[A-Za-z0-9_-]+(\.fifo)?")


LAMBDA: Final = "lambda"
"""The protocol of functions."""
_FUNCTION: Final = re.compile(
    r"arn:aws[-a-z]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_-]{1,64}(?::(?:\$LATEST|[A-Za-z0-9_-]{1,128}))?"
)


def is_function(endpoint: str) -> bool:
    """Whether an ARN is that of a function, or of a version or an alias of one."""
    return _FUNCTION.fullmatch(endpoint) is not None


class Subscription(msgspec.Struct, kw_only=True):
    """Who is told of a topic's messages.

    Attributes:
        arn: its ARN.
        topic: ARN of the topic.
        owner: account of who subscribed.
        endpoint: ARN of a queue, or of a function.
        attributes: as they were set, by name.
    """

    arn: str
    topic: str
    owner: str
    endpoint: str
    attributes: dict[str, str] = {}

    @property
    def protocol(self) -> str:
        """How it is told."""
        return LAMBDA if is_function(self.endpoint) else "sqs"

    @property
    def is_raw(self) -> bool:
        """Whether messages go without their envelope."""
        return self.attributes.get("RawMessageDelivery", "false") == "true"


class Topic(msgspec.Struct, kw_only=True):
    """A topic.

    Attributes:
        arn: its ARN.
        attributes: as they were set, by name.
        tags: by key.
        subscriptions: in the order in which they came, by ARN.
        deleted: how many there were before.
    """

    arn: str
    attributes: dict[str, str] = {}
    tags: dict[str, str] = {}
    subscriptions: dict[str, Subscription] = {}
    deleted: int = 0

    @property
    def is_fifo(self) -> bool:
        """Whether its messages have an order."""
        return self.arn.endswith(".fifo")


class Named(NamedTuple):
    """What the ARN of a topic says."""

    region: str
    account: str
    name: str


class _Stored(msgspec.Struct):
    version: int = 1
    topics: list[Topic] = []


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_stored = msgspec.json.Decoder(_Stored).decode


class Topics:
    """All of them, of all places."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._subscriptions: dict[str, Subscription] = {}

    # ------------------------------------------------------------------ topics

    def create(
        self, region: str, account: str, name: str, attributes: Mapping[str, str], tags: dict[str, str]
    ) -> Topic:
        """Make a topic, or find the one that is there, where nothing says that another one is meant.

        Raises:
            InvalidParameter: the name is none, or the topic that has it is another one.
        """
        match = _NAME.fullmatch(name)
        is_fifo = attributes.get("FifoTopic", "false") == "true"
        if match is None or bool(match[1]) is not is_fifo:
            if is_fifo:
                text = (
                    "Fifo Topic names must end with .fifo and must be made up of only uppercase and lowercase ASCII "
                    "letters, numbers, underscores, and hyphens, and must be between 1 and 256 characters long."
                )
                raise InvalidParameter(text)
            raise InvalidParameter("Topic Name")
        arn = f"arn:aws:sns:{region}:{account}:{name}"
        topic = self._topics.get(arn)
        if topic is None:
            topic = self._topics[arn] = Topic(arn=arn, attributes=dict(attributes), tags=tags)
            return topic
        if any(topic.attributes.get(key) != value for key, value in attributes.items()):
            raise InvalidParameter("Attributes", "Topic already exists with different attributes")
        if tags and tags != topic.tags:
            raise InvalidParameter("Tags", "Topic already exists with different tags")
        return topic

    def find(self, arn: str) -> Topic:
        """A topic by its ARN.

        Raises:
            InvalidParameter: it is no ARN of a topic.
            NotFound: there is none.
        """
        parse(arn)
        topic = self._topics.get(arn)
        if topic is None:
            raise NotFound("Topic does not exist")
        return topic

    def of(self, region: str, account: str) -> list[Topic]:
        """The topics of a place, by ARN."""
        start = f":sns:{region}:{account}:"
        return [self._topics[arn] for arn in sorted(self._topics) if start in arn]

    def delete(self, arn: str) -> bool:
        """Delete a topic with its subscriptions; whether there was one.

        Raises:
            InvalidParameter: it is no ARN of a topic.
        """
        parse(arn)
        topic = self._topics.pop(arn, None)
        for each in topic.subscriptions if topic is not None else ():
            del self._subscriptions[each]
        return topic is not None

    def clear(self) -> None:
        """Delete all."""
        self._topics.clear()
        self._subscriptions.clear()

    # ------------------------------------------------------------------ subscriptions

    def subscribe(self, topic: Topic, owner: str, endpoint: str, attributes: dict[str, str]) -> Subscription:
        """Subscribe a queue or a function, or find its subscription.

        Raises:
            InvalidParameter: it is subscribed, and with other attributes.
        """
        for each in topic.subscriptions.values():
            if each.endpoint == endpoint:
                if attributes and attributes != each.attributes:
                    raise InvalidParameter("Attributes", "Subscription already exists with different attributes")
                return each
        arn = f"{topic.arn}:{uuid.uuid4()}"
        made = Subscription(arn=arn, topic=topic.arn, owner=owner, endpoint=endpoint, attributes=attributes)
        topic.subscriptions[arn] = self._subscriptions[arn] = made
        return made

    def subscription(self, arn: str) -> Subscription:
        """A subscription by its ARN.

        Raises:
            InvalidParameter: it is no ARN of one.
            NotFound: there is none.
        """
        check_subscription_arn(arn)
        found = self._subscriptions.get(arn)
        if found is None:
            raise NotFound("Subscription does not exist")
        return found

    def subscriptions(self, region: str) -> list[Subscription]:
        """Those of a region, by ARN."""
        return [self._subscriptions[arn] for arn in sorted(self._subscriptions) if f":sns:{region}:" in arn]

    def unsubscribe(self, arn: str) -> bool:
        """End a subscription; whether there was one.

        Raises:
            InvalidParameter: it is no ARN of one.
        """
        check_subscription_arn(arn)
        found = self._subscriptions.pop(arn, None)
        if found is None:
            return False
        topic = self._topics[found.topic]
        del topic.subscriptions[arn]
        topic.deleted += 1
        return True

    # ------------------------------------------------------------------ kept

    def encode(self) -> bytes:
        """All of it, as a JSON object."""
        return msgspec.json.encode(_Stored(topics=list(self._topics.values())))

    def load(self, text: bytes) -> None:
        """What `encode` wrote.

        Raises:
            ValueError: it did not write this.
        """
        try:
            stored = _stored(text)
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from error
        if stored.version != 1:
            raise ValueError(f"it is of version {stored.version}, which this kflow does not know")
        self._topics = {each.arn: each for each in stored.topics}
        self._subscriptions = {arn: each for topic in stored.topics for arn, each in topic.subscriptions.items()}


def parse(arn: str) -> Named:
    """What the ARN of a topic says.

    Raises:
        InvalidParameter: it is none.
    """
    match = _TOPIC.fullmatch(arn)
    if match is not None:
        return Named(match[1], match[2], match[3])
    parts = arn.count(":") + 1
    raise InvalidParameter("TopicArn", f"An ARN must have at least 6 elements, not {parts}" if parts < 6 else "")


def check_subscription_arn(arn: str) -> None:
    """Whether an ARN can be that of a subscription.

    Raises:
        InvalidParameter: it cannot.
    """
    topic, _, name = arn.rpartition(":")
    if not _TOPIC.fullmatch(topic) or not name:
        parts = arn.count(":") + 1
        reason = f"An ARN must have at least 6 elements, not {parts}" if parts < 6 else ""
        raise InvalidParameter("SubscriptionArn", reason)


def page(count: int, token: str | None, most: int = 100) -> tuple[slice, str | None]:
    """Which of `count` items a page holds, and the token of the next; a token is where it begins (chosen).

    Raises:
        InvalidParameter: the token is none.
    """
    if token is not None and not re.fullmatch(r"[0-9]{1,9}", token):
        raise InvalidParameter("NextToken")
    start = int(token or 0)
    end = start + most
    return slice(start, end), str(end) if end < count else None


def shown(subscriptions: Sequence[Subscription]) -> list[dict[str, str]]:
    """As lists of them show them."""
    return [
        {
            "SubscriptionArn": each.arn,
            "Owner": each.owner,
            "Protocol": each.protocol,
            "Endpoint": each.endpoint,
            "TopicArn": each.topic,
        }
        for each in subscriptions
    ]
