"""AWS Lambda, put together.

A method translates and decides nothing: the engines of `kflow.lambda_.control` do. It is called on the loop with the
call and its checked input, and answers at once or later (`kflow.aws.calls`).
"""

from __future__ import annotations

from collections.abc import Callable

from kflow.services.lambda_.account import Account
from kflow.services.lambda_.aliases import Aliases
from kflow.services.lambda_.events import Events
from kflow.services.lambda_.functions import Functions
from kflow.services.lambda_.invoke import Invoking
from kflow.services.lambda_.layers import LayerOperations
from kflow.services.lambda_.mappings import Mappings
from kflow.services.lambda_.policies import Policies
from kflow.services.lambda_.tags import Tags
from kflow.services.lambda_.urls import Urls
from kflow.services.lambda_.versions import Versions

__all__ = ["Lambda"]


class Lambda(Invoking, Mappings, Functions, Versions, Aliases, LayerOperations, Events, Policies, Urls, Tags, Account):
    """All operations. Belongs to the loop's thread."""

    service_name = "lambda"

    def clear(self, then: Callable[[], object]) -> None:
        """Delete all functions and layers, and what was set on decorated handlers; calls back when that is kept."""
        self.mappings.clear(lambda: self.functions.clear(lambda: self.layers.clear(then)))
