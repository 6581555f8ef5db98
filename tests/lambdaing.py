"""What tests of Lambda share: zips, a fleet that runs nothing, and the service over a folder, stepped by hand."""

from __future__ import annotations

import functools
import io
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kflow.aws import models
from kflow.aws.calls import Context, Place
from kflow.aws.dispatch import Dispatcher
from kflow.aws.shapes import Model
from kflow.broker.files import FILES, Files
from kflow.broker.folder import DataFolder
from kflow.clock import ManualClock
from kflow.declarations import Handler, HandlerForm
from kflow.errors import KflowError
from kflow.lambda_.control.layers import Layers
from kflow.lambda_.control.packages import Packages
from kflow.lambda_.control.registry import Registry
from kflow.lambda_.errors import ResourceNotFound
from kflow.lambda_.fleet import Published, Replied, Request
from kflow.services.lambda_.account import Account
from kflow.services.lambda_.aliases import Aliases
from kflow.services.lambda_.events import Events
from kflow.services.lambda_.functions import Functions
from kflow.services.lambda_.layers import LayerOperations
from kflow.services.lambda_.parts import Parts
from kflow.services.lambda_.policies import Policies
from kflow.services.lambda_.tags import Tags
from kflow.services.lambda_.urls import Urls
from kflow.services.lambda_.versions import Versions
from kflow.services.lambda_.wire import as_recorded
from tests.looping import SteppedLoop

HOME = Place("123456789012", "us-east-1")
BEGIN_MS = 1_700_000_000_000
ROLE = "arn:aws:iam::123456789012:role/r"
ARN = "arn:aws:lambda:us-east-1:123456789012:function"
APP = "def handler(event, context):\n    return event\n"


def zipped(files: Mapping[str, str | bytes] | None = None) -> bytes:
    """A zip of these files, by name."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (files or {"app.py": APP}).items():
            archive.writestr(entry(name, 0o644), text)
    return found.getvalue()


def entry(name: str, mode: int, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    """One entry, of the same time always: zips of the same content are the same."""
    info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = (kind | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


class FakeHost(SteppedLoop):
    """A host over a folder, stepped by hand."""

    def __init__(self, path: Path, clock: ManualClock, transition_s: float, files: Files) -> None:
        super().__init__(clock)
        self.folder = DataFolder.open(
            path, create=True, region=HOME.region, account=HOME.account, fsync="none", files=files
        )
        self.transition_s = transition_s
        self.notices: list[tuple[str, str]] = []

    def notice(self, level: str, text: str) -> None:
        self.notices.append((level, text))


class FakeFleet:
    """Knows what it was told, and runs nothing.

    Attributes:
        published: what means something now, by key.
        told: all that was said, in order: `publish KEY`, `withdraw KEY`, `limit FUNCTION N`.
    """

    def __init__(self, declared: Mapping[str, Published] | None = None) -> None:
        self.published: dict[str, Published] = {}
        self.limits: dict[str, int] = {}
        self.told: list[str] = []
        self._declared = dict(declared or {})

    def declared(self) -> Mapping[str, Published]:
        return self._declared

    def publish(self, function: Published) -> None:
        self.told.append(f"publish {function.handler.name}")
        self.published[function.handler.name] = function

    def withdraw(self, key: str) -> None:
        self.told.append(f"withdraw {key}")
        del self.published[key]

    def invoke(self, key: str, request: Request, replied: Replied) -> None:
        replied(ResourceNotFound(f"Function not found: {request.arn}"))

    def limit(self, function: str, most: int | None) -> None:
        self.told.append(f"limit {function} {most}")
        if most is None:
            self.limits.pop(function, None)
        else:
            self.limits[function] = most

    def running(self, function: str) -> int:
        return 0


def declared(name: str, file: Path, line: int = 3, **environment: str) -> Published:
    """A decorated handler of a file."""
    handler = Handler(
        name=name,
        file=str(file),
        line=line,
        root=str(file.parent),
        module=file.stem,
        qualname=name,
        form=HandlerForm.EVENT,
    )
    return Published(handler=handler, timeout_s=7, memory_mb=256, environment=environment)


class Service(Functions, Versions, Aliases, LayerOperations, Events, Policies, Urls, Tags, Account):
    """Functions as resources alone."""

    service_name = "lambda"


@functools.cache
def model() -> Model:
    """Of Lambda."""
    return as_recorded(models.load("lambda"))


class World:
    """A data folder, a fleet, and a client of Lambda.

    Attributes:
        host: stepped by hand.
        fleet: of this run.
        functions: the registry of this run.
    """

    def __init__(
        self,
        path: Path,
        *,
        transition_s: float = 0,
        files: Files = FILES,
        declared: Mapping[str, Published] | None = None,
    ) -> None:
        self.path = path
        self.host = FakeHost(path, ManualClock(BEGIN_MS), transition_s, files)
        self.start(declared)

    def start(self, declared: Mapping[str, Published] | None = None) -> None:
        """As a node does; again: as after a restart, with what the disk holds."""
        self.host.errands.clear()
        self.fleet = FakeFleet(declared)
        self.packages = Packages(self.host)
        self.layers = Layers(self.host, HOME, self.packages)
        self.layers.load()
        self.functions = Registry(self.host, HOME, self.fleet, self.packages)
        self.functions.load()
        self._dispatcher = Dispatcher([self._service()], {"lambda": model()}, call_later=self.host.call_later)
        self.host.run()

    def _service(self) -> Any:
        return Service(self._parts())

    def _parts(self, mappings: Any = None, runner: Any = None) -> Parts:
        nothing: Any = None
        return Parts(
            host=self.host,
            home=HOME,
            fleet=self.fleet,
            functions=self.functions,
            layers=self.layers,
            events=nothing,
            mappings=mappings or SimpleNamespace(of=lambda place: []),
            runner=runner,
            invoke=nothing,
            url=lambda: "http://localhost:4566",
        )

    def begin(self, operation: str, place: Place = HOME, /, **parameters: Any) -> list[dict[str, Any] | KflowError]:
        """A call; what is returned holds its result once there is one."""
        results: list[dict[str, Any] | KflowError] = []
        context = Context(place=place, request_id="r")
        self._dispatcher.invoke(context, "lambda", operation, parameters, results.append)
        return results

    def call(self, operation: str, place: Place = HOME, /, **parameters: Any) -> dict[str, Any]:
        """A call and its output; raises what it was refused with."""
        results = self.begin(operation, place, **parameters)
        self.host.run()
        (result,) = results
        if isinstance(result, KflowError):
            raise result
        return result

    def create(self, name: str = "f", place: Place = HOME, /, **parameters: Any) -> dict[str, Any]:
        """A function of Python."""
        given = {
            "FunctionName": name,
            "Runtime": "python3.12",
            "Role": ROLE,
            "Handler": "app.handler",
            "Code": {"ZipFile": zipped()},
            **parameters,
        }
        return self.call("CreateFunction", place, **given)

    @property
    def unpacked(self) -> list[str]:
        """Names in the folder of code."""
        folder = self.path / "lambda" / "code"
        return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
