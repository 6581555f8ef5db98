"""Where the failure documents of stream mappings go: how a destination is named, and what is sent to which.

    sqs:NAME  sns:NAME  s3:BUCKET     logical: of the function's place, made where it is missing
    arn:aws:sqs:REGION:ACCOUNT:NAME  arn:aws:sns:REGION:ACCOUNT:NAME  arn:aws:s3:::BUCKET     never made

Source: documented: Lambda Developer Guide, Kinesis on-failure destinations.
"""

from __future__ import annotations

import enum
import re
import uuid
from typing import Final, NamedTuple

from kflow.broker.objectnames import is_bucket
from kflow.errors import UsageError

DROP: Final = "drop"
"""What `on_failure` says where nothing is to be kept."""

_NAMESPACE: Final = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # that of URLs, of RFC 9562
_ARN = re.compile(r"arn:aws[a-z-]*:([a-z0-9-]+):([a-z0-9-]*):(\d{12})?:(.+)")
_QUEUE = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,256}")


class Kind(enum.StrEnum):
    """Which service it is of."""

    SQS = "sqs"
    SNS = "sns"
    S3 = "s3"


_RULES: Final = {
    Kind.SQS: "a queue's name is 1 to 80 letters, digits, - and _",
    Kind.SNS: "a topic's name is 1 to 256 letters, digits, - and _",
    Kind.S3: "a bucket's name is 3 to 63 small letters, digits, - and ., and begins and ends with a letter or a digit",
}


class Destination(NamedTuple):
    """A queue, a topic or a bucket.

    Attributes:
        kind: of which service.
        name: its own.
        account: empty: that of the function; a bucket has none.
        region: likewise.
        is_logical: whether it is made where it is missing.
    """

    kind: Kind
    name: str
    account: str = ""
    region: str = ""
    is_logical: bool = True

    def within(self, account: str, region: str) -> Destination:
        """The same with its place, for a function of this one."""
        return self if self.account or self.kind is Kind.S3 else self._replace(account=account, region=region)

    @property
    def arn(self) -> str:
        """Its ARN; it has its place."""
        if self.kind is Kind.S3:
            return f"arn:aws:s3:::{self.name}"
        return f"arn:aws:{self.kind}:{self.region}:{self.account}:{self.name}"

    @property
    def words(self) -> str:
        """For people."""
        return f"{_NOUNS[self.kind]} {self.name}"


_NOUNS: Final = {Kind.SQS: "queue", Kind.SNS: "topic", Kind.S3: "bucket"}


def parse(text: str) -> Destination:
    """A destination as `on_failure` or the API names it; `drop` is none.

    Raises:
        UsageError: it is no destination of a stream's mapping; says why.
    """
    match = _ARN.fullmatch(text)
    if match is not None:
        service, region, account, name = match.groups(default="")
        found = Destination(_kind(service, text), name, account, region, is_logical=False)
        is_whole = not (region or account) if found.kind is Kind.S3 else region and account
        if not is_whole:
            raise UsageError(f"{text} is not the ARN of a {_NOUNS[found.kind]}: {_form(found.kind)}")
    else:
        service, colon, name = text.partition(":")
        if not colon:
            raise UsageError(f'{text!r} is no destination: "sqs:NAME", "sns:NAME", "s3:BUCKET", or an ARN')
        found = Destination(_kind(service, text), name)
    if name.endswith(".fifo") and found.kind is not Kind.S3:
        noun = _NOUNS[found.kind]
        raise UsageError(
            f"{text}: a FIFO {noun} cannot be the destination of a stream's mapping: name a standard {noun}"
        )
    if not _is_name(found):
        raise UsageError(f"{text}: {_RULES[found.kind]}")
    return found


def declared_mapping(account: str, region: str, function: str, stream: str) -> str:
    """UUID of a mapping that a decorator declares: always the same for the same names."""
    return str(uuid.uuid5(_NAMESPACE, f"{account} {region} {function} {stream}"))


def _kind(service: str, text: str) -> Kind:
    try:
        return Kind(service)
    except ValueError:
        raise UsageError(
            f"{text}: failure documents of a stream's mapping go to a queue (sqs), a topic (sns) or a bucket (s3)"
        ) from None


def _form(kind: Kind) -> str:
    return "arn:aws:s3:::BUCKET" if kind is Kind.S3 else f"arn:aws:{kind}:REGION:ACCOUNT:NAME"


def _is_name(found: Destination) -> bool:
    if found.kind is Kind.S3:
        return is_bucket(found.name)
    pattern = _QUEUE if found.kind is Kind.SQS else _TOPIC
    return pattern.fullmatch(found.name) is not None
