"""What all operations of the control plane share: the engines behind them, admission, and answers that come later."""

from __future__ import annotations

from typing import Any, Final

from kflow.arn import stream_name
from kflow.aws.calls import Call
from kflow.kinesis.accounts import Accounts
from kflow.kinesis.alterations import Alterations
from kflow.kinesis.consumers import Consumers
from kflow.kinesis.lifecycle import Lifecycle
from kflow.kinesis.rates import Rates
from kflow.kinesis.registry import Stream
from kflow.services.kinesis.parts import Base, Parts

PAGE: Final = 100
"""So many streams, shards or consumers are in an answer at most. Source: documented: ListStreams, DescribeStream."""


class Control(Base):
    """Base of the modules that change streams; made once for all of them.

    Attributes:
        accounts: settings of accounts.
        lifecycle: makes and deletes streams, and changes their shards.
        alterations: changes their settings.
        fans: registered consumers.
        rates: counts calls; None where nothing is limited.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.accounts = Accounts(parts.host)
        self.lifecycle = Lifecycle(parts.host, parts.registry, self.accounts)
        self.alterations = Alterations(parts.host, parts.registry, self.accounts)
        self.fans = Consumers(parts.host, parts.registry, self.accounts)
        self.rates = Rates() if parts.enforce_limits else None
        self.lifecycle.resume()
        self.fans.resume()

    def admit(self, call: Call, operation: str, name: str = "") -> None:
        """Count a call, where rates are limited.

        Raises:
            LimitExceeded: it is one too many.
        """
        if self.rates is not None:
            self.rates.check(call.context.place, operation, name, self.host.now_ms())

    def named(self, call: Call, operation: str, given: Any) -> Stream:
        """The stream that an input names, once the call is admitted.

        Raises:
            LimitExceeded: calls come too often.
            InvalidArgument, ResourceNotFound: it names no stream.
        """
        self.admit(call, operation, given.StreamName or stream_name(given.StreamARN or ""))
        return self.registry.named(given, call.context.place)

    def by_arn(self, call: Call, operation: str, text: str) -> Stream:
        """The stream of an ARN, once the call is admitted; raises as `named`."""
        self.admit(call, operation, stream_name(text))
        return self.registry.by_arn(text)
