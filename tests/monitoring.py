"""What tests of CloudWatch and its logs share: a host that is stepped by hand, and calls as boto3 makes them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from kflow.aws import models
from kflow.aws.calls import Context, Place
from kflow.aws.dispatch import Dispatcher
from kflow.aws.shapes import Model
from kflow.broker.folder import DataFolder
from kflow.clock import ManualClock
from kflow.errors import KflowError
from tests.looping import SteppedLoop

HOME = Place("123456789012", "us-east-1")


class Host(SteppedLoop):
    """A host over a folder, stepped by hand."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        super().__init__(clock)
        self.folder = DataFolder.open(path, create=True, region=HOME.region, account=HOME.account)


class Desk:
    """A service behind a dispatcher.

    Attributes:
        host: of the service.
        service: that is called.
    """

    def __init__(self, host: Host, service: Any) -> None:
        self.host = host
        self.service = service
        name = service.service_name
        self._dispatcher = Dispatcher([service], {name: _model(name)}, call_later=host.call_later)

    def call(self, operation: str, place: Place = HOME, **parameters: Any) -> dict[str, Any]:
        """What a call comes to; raises what it is refused with."""
        results: list[dict[str, Any] | KflowError] = []
        context = Context(place=place, request_id="")
        self._dispatcher.invoke(context, self.service.service_name, operation, parameters, results.append)
        self.host.run()
        (result,) = results
        if isinstance(result, KflowError):
            raise result
        return result


@functools.cache
def _model(name: str) -> Model:
    return models.load(name)
