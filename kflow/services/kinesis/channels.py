"""Channels, which deliver a stream to S3 on AWS. There are none here: lists are empty, the rest refuses clearly.

Source: documented: CreateChannel; chosen: out of scope, for a handler or a delivery stream does the same.
"""

from __future__ import annotations

import re
from typing import Any

from kflow.aws.calls import Answer, Call
from kflow.errors import InvalidArgument, ResourceNotFound, ValidationFailed
from kflow.services.kinesis.parts import Base

_ARN = re.compile(r"arn:aws[^:]*:kinesis:[^:]*:(\d{12}):channel/(\S+)")


class Channels(Base):
    """Operations on channels."""

    def list_channels(self, call: Call, given: Any) -> Answer:
        """None. Source: documented: ListChannels, which has no error for the streams of a filter."""
        del call
        if given.NextToken is not None:
            raise InvalidArgument("NextToken is invalid: there are no channels, so there is no second page of them.")
        return {"ChannelSummaries": []}

    def describe_channel(self, call: Call, given: Any) -> Answer:
        """There is none."""
        raise _not_found(call, given.ChannelARN)

    def update_channel(self, call: Call, given: Any) -> Answer:
        """There is none."""
        raise _not_found(call, given.ChannelARN)

    def delete_channel(self, call: Call, given: Any) -> Answer:
        """There is none."""
        raise _not_found(call, given.ChannelARN)

    def create_channel(self, call: Call, given: Any) -> Answer:
        """Refused: nothing here delivers it."""
        del call
        raise ValidationFailed(
            f"kflow has no channels, so {given.ChannelName} is not created: read the stream with a handler, and write "
            "to S3 from there."
        )


def _not_found(call: Call, text: str) -> ResourceNotFound:
    match = _ARN.fullmatch(text)
    name, account = (match[2], match[1]) if match else (text, call.context.place.account)
    return ResourceNotFound(f"Channel {name} under account {account} not found.")
