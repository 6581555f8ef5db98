"""Kinesis Data Streams: a method for each operation, a module for each kind of them.

A method translates and decides nothing: the engines of `kflow.kinesis` do. It is called on the loop with the call and
its checked input, and answers at once, in slices, or later (`kflow.aws.calls`).
"""

from __future__ import annotations

from kflow.services.kinesis.account import Account
from kflow.services.kinesis.channels import Channels
from kflow.services.kinesis.consumers import Consumers
from kflow.services.kinesis.fanout import Fanout
from kflow.services.kinesis.queues import Queues
from kflow.services.kinesis.records import Records
from kflow.services.kinesis.resources import Resources
from kflow.services.kinesis.streams import Streams

__all__ = ["Kinesis"]


class Kinesis(Records, Fanout, Queues, Streams, Consumers, Resources, Account, Channels):
    """All operations. Belongs to the loop's thread."""

    service_name = "kinesis"
