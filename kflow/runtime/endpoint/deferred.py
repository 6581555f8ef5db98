"""The smaller services of a node, each made when somebody calls it: until then they cost nothing."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kflow.aws import models
from kflow.aws.dispatch import Deferred
from kflow.aws.formats import Format
from kflow.aws.shapes import Model
from kflow.broker import checked
from kflow.broker.folder import DataFolder
from kflow.runtime.functions.fleet import Fleet
from kflow.runtime.functions.lambdas import Lambdas
from kflow.runtime.streams.kinesis_host import KinesisHost
from kflow.web.exchange import Exchange

if TYPE_CHECKING:
    from kflow.aws.calls import CallService
    from kflow.broker.sessions import Session, Sessions
    from kflow.services.cloudwatch import CloudWatch
    from kflow.services.logs import Logs
    from kflow.services.sns import Sns
    from kflow.services.sts import Sts

NAMES: Final = ("cloudwatch", "lambda", "logs", "sns", "sts")
# The files of theirs, named here too: to look for one loads nothing.
_SESSIONS: Final = "sessions.json"
_TOPICS: Final = "topics.json"
_LOGS: Final = "logs/cloudwatch.db"
_METRICS: Final = "metrics.db"
_MONITORING: Final = "monitoring"
"""What requests to CloudWatch are signed for."""


class Smaller:
    """Belongs to the loop's thread.

    Args:
        host: the node.
        known: the models of the services that are made, by name; grows.
        url: where the endpoint is.
        fleet: runs functions.
        invoke: calls another service, once something was made.

    Attributes:
        lambdas: functions.
        deferred: how each is made.
    """

    def __init__(
        self,
        host: KinesisHost,
        known: MutableMapping[str, Model],
        url: Callable[[], str],
        fleet: Fleet,
        invoke: CallService,
    ) -> None:
        self.lambdas = Lambdas(host, fleet, url, invoke)
        self._url = url
        self._invoke = invoke
        self._sns: Sns | None = None
        self._logs: Logs | None = None
        self._cloudwatch: CloudWatch | None = None
        self._host = host
        self._models = known
        self._forms: dict[str, tuple[Format, list[Model]]] = {}
        self._sessions: Sessions | None = None
        self.deferred = {
            "lambda": Deferred("lambda", "", "", lambda: (self.lambdas.service, self._model("lambda"))),
            "cloudwatch": Deferred(_MONITORING, "GraniteServiceVersion20100801", "1.0", self._make_cloudwatch),
            "logs": Deferred("logs", "Logs_20140328", "1.1", lambda: (self._made_logs(), self._model("logs"))),
            "sns": Deferred("sns", "", "", self._make_sns),
            "sts": Deferred("sts", "", "", self._make_sts),
        }

    @property
    def _cache(self) -> Path:
        return self._host.folder.path / "models"

    def form(self, exchange: Exchange, signing_name: str) -> tuple[Format, list[Model]] | None:
        """The protocol of one of these, for a request that is in it; None: it is for others."""
        if signing_name == _MONITORING:
            signing_name = "cloudwatch"
        if signing_name and signing_name not in NAMES:
            return None
        if signing_name == "lambda" or (not signing_name and exchange.target.startswith("/20")):
            return self._lambda_form(exchange, signing_name)
        from kflow.services.forms import SERVICES, Forms, service_of

        name = signing_name or service_of(exchange)
        if name not in SERVICES:
            return None
        found = self._forms.get(name)
        if found is None:
            found = self._forms[name] = (Forms(), [self._model(name)])
        return found

    def _lambda_form(self, exchange: Exchange, signing_name: str) -> tuple[Format, list[Model]] | None:
        from kflow.services.lambda_.wire import Wire, is_lambda

        if not signing_name and not is_lambda(exchange):
            return None
        found = self._forms.get("lambda")
        if found is None:
            found = self._forms["lambda"] = (Wire(), [self._model("lambda")])
        return found

    def session(self, access_key: str) -> Session | None:
        """Credentials that STS gave out; None: it did not."""
        if self._sessions is None and not _is_there(self._host.folder, _SESSIONS):
            return None
        return self._all_sessions().find(access_key)

    def reset(self, then: Callable[[], object]) -> None:
        """Empty them, also those of a node that nobody asked for them yet."""
        self.lambdas.clear(lambda: self._reset_logs(lambda: self._reset_sns(then)))

    def stop(self, then: Callable[[], object]) -> None:
        """Close the files of those that have some."""
        if self._logs is None:
            then()
        else:
            self._logs.close(then)

    def _reset_logs(self, then: Callable[[], object]) -> None:
        """Logs and metrics."""
        if self._cloudwatch is not None or _is_there(self._host.folder, _METRICS):
            self._made_cloudwatch().clear(lambda: self._reset_groups(then))
        else:
            self._reset_groups(then)

    def _reset_groups(self, then: Callable[[], object]) -> None:
        if self._logs is not None or _is_there(self._host.folder, _LOGS):
            self._made_logs().clear(then)
        else:
            then()

    def _reset_sns(self, then: Callable[[], object]) -> None:
        if self._sns is not None or _is_there(self._host.folder, _TOPICS):
            self._made_sns().clear(lambda: self._reset_sessions(then))
        else:
            self._reset_sessions(then)

    def _reset_sessions(self, then: Callable[[], object]) -> None:
        if self._sessions is not None or _is_there(self._host.folder, _SESSIONS):
            self._all_sessions().clear(then)
        else:
            then()

    def _model(self, name: str) -> Model:
        found = self._models.get(name)
        if found is None:
            found = self._models[name] = models.load(name, cache=self._cache)
            if name == "lambda":
                from kflow.services.lambda_.wire import as_recorded

                as_recorded(found)
        return found

    def _all_sessions(self) -> Sessions:
        if self._sessions is None:
            from kflow.broker.sessions import Sessions

            self._sessions = Sessions(self._host)
        return self._sessions

    def _made_cloudwatch(self) -> CloudWatch:
        if self._cloudwatch is None:
            from kflow.services.cloudwatch import CloudWatch

            self._cloudwatch = CloudWatch(self._host, self._host.measures)
        return self._cloudwatch

    def _make_cloudwatch(self) -> tuple[CloudWatch, Model]:
        return self._made_cloudwatch(), self._model("cloudwatch")

    def _made_logs(self) -> Logs:
        if self._logs is None:
            from kflow.aws.calls import Place
            from kflow.services.logs import Logs

            kept = self._host.folder.format
            self._logs = Logs(self._host, Place(kept.account, kept.region))
        return self._logs

    def _made_sns(self) -> Sns:
        if self._sns is None:
            from kflow.services.sns import Sns

            self._sns = Sns(self._host, self._invoke, self._url)
        return self._sns

    def _make_sns(self) -> tuple[Sns, Model]:
        return self._made_sns(), self._model("sns")

    def _make_sts(self) -> tuple[Sts, Model]:
        from kflow.services.sts import Sts

        return Sts(self._host, self._all_sessions()), self._model("sts")


def _is_there(folder: DataFolder, name: str) -> bool:
    path = f"{folder.path}/{name}"
    return folder.files.exists(path) or folder.files.exists(checked.twin_path(path))
