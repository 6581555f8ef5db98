"""Operations on function URLs: kept and shown. Nobody serves such a URL here: call the function by Invoke.

Source: documented: CreateFunctionUrlConfig; recorded: the texts, but those marked chosen.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from kflow.aws.calls import Answer, Call
from kflow.lambda_.control import names, shown
from kflow.lambda_.control.facts import LATEST, Url
from kflow.lambda_.control.function import Function
from kflow.lambda_.errors import InvalidParameterValue, ResourceConflict, ResourceNotFound
from kflow.services.lambda_.parts import Base, page

_CORS: Final = ("AllowCredentials", "AllowHeaders", "AllowMethods", "AllowOrigins", "ExposeHeaders", "MaxAge")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"


class Urls(Base):
    """Operations on function URLs."""

    def create_function_url_config(self, call: Call, given: Any) -> Answer:
        """Source: documented: CreateFunctionUrlConfig."""
        function, qualifier = self._addressed(call, given)
        arn = function.qualified(qualifier)
        if (qualifier or LATEST) in function.facts.urls:
            raise ResourceConflict(
                f"Failed to create function url config for [functionArn = {arn}]. "
                "Error message:  FunctionUrlConfig exists for this Lambda function"
            )
        now_ms = self.host.now_ms()
        made = Url(
            url=_url(arn, function.place.region),
            auth=given.AuthType,
            mode=given.InvokeMode or "BUFFERED",
            created_ms=now_ms,
            modified_ms=now_ms,
            cors=_cors(given.Cors),
        )
        self.host.notice("info", f"the URL of function {function.name} is kept and shown; nobody serves it: use Invoke")
        return self._keep_url(call, function, qualifier, made, _shown(arn, made, is_new=True))

    def get_function_url_config(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetFunctionUrlConfig."""
        function, qualifier = self._addressed(call, given)
        return _shown(function.qualified(qualifier), self._url_config(function, qualifier))

    def update_function_url_config(self, call: Call, given: Any) -> Answer:
        """What is not given stays. Source: documented: UpdateFunctionUrlConfig."""
        function, qualifier = self._addressed(call, given)
        before = self._url_config(function, qualifier)
        made = Url(
            url=before.url,
            auth=given.AuthType or before.auth,
            mode=given.InvokeMode or before.mode,
            created_ms=before.created_ms,
            modified_ms=self.host.now_ms(),
            cors=before.cors if given.Cors is None else _cors(given.Cors),
        )
        return self._keep_url(call, function, qualifier, made, _shown(function.qualified(qualifier), made))

    def delete_function_url_config(self, call: Call, given: Any) -> Answer:
        """Source: documented: DeleteFunctionUrlConfig."""
        function, qualifier = self._addressed(call, given)
        self._url_config(function, qualifier)
        left = {name: each for name, each in function.facts.urls.items() if name != (qualifier or LATEST)}
        return self.change(call, function, lambda: None, urls=left)

    def list_function_url_configs(self, call: Call, given: Any) -> Answer:
        """Source: documented: ListFunctionUrlConfigs."""
        function = self.unqualified(call, given.FunctionName)
        rows = sorted(function.facts.urls.items())
        listed, marker = page(rows, lambda row: row[0], given)
        shown_rows = [_shown(function.qualified("" if name == LATEST else name), each) for name, each in listed]
        return {"FunctionUrlConfigs": shown_rows, "NextMarker": marker}

    def _addressed(self, call: Call, given: Any) -> tuple[Function, str]:
        """A function, or one of its aliases: versions have no URL."""
        function, named = self.named(call, given.FunctionName, given.Qualifier)
        qualifier = named.qualifier
        if qualifier == LATEST or names.is_number(qualifier):
            raise InvalidParameterValue(
                f"A function URL is of a function or an alias, and {qualifier} is a version."  # chosen
            )
        function.configuration(qualifier)
        return function, qualifier

    def _url_config(self, function: Function, qualifier: str) -> Url:
        found = function.facts.urls.get(qualifier or LATEST)
        if found is None:
            raise ResourceNotFound("The resource you requested does not exist.")
        return found

    def _keep_url(self, call: Call, function: Function, qualifier: str, made: Url, answer: dict[str, Any]) -> Answer:
        after = {**function.facts.urls, qualifier or LATEST: made}
        return self.change(call, function, lambda: answer, urls=after)


def _url(arn: str, region: str) -> str:
    """As AWS makes them, the same one again for the same function."""
    digest = hashlib.sha256(arn.encode()).digest()
    name = "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest)
    return f"https://{name}.lambda-url.{region}.on.aws/"


def _cors(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    return {name: value for name in _CORS if (value := getattr(given, name)) is not None}


def _shown(arn: str, found: Url, *, is_new: bool = False) -> dict[str, Any]:
    answer = {
        "FunctionUrl": found.url,
        "FunctionArn": arn,
        "AuthType": found.auth,
        "Cors": found.cors,
        "CreationTime": shown.time(found.created_ms),
        "InvokeMode": found.mode,
    }
    return answer if is_new else {**answer, "LastModifiedTime": shown.time(found.modified_ms)}
