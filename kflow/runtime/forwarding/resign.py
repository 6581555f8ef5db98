"""Requests signed anew for AWS: with the credentials of a named profile, for the endpoint that botocore resolves.

All of it blocks, and the first call imports botocore: for threads. A profile is read once; its credentials renew
themselves as botocore's do (roles, single sign-on, processes).
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from kflow.aws import catalogue, models
from kflow.aws.routes import Routes
from kflow.errors import UsageError
from kflow.runtime.forwarding import chunked
from kflow.runtime.forwarding.asking import Failed, Request
from kflow.runtime.forwarding.headers import MARK

_SIGNED: Final = frozenset(
    {"authorization", "x-amz-date", "date", "x-amz-security-token", "x-amz-content-sha256", "x-amz-region-set", MARK}
)
"""Headers of the caller's signature, which opens nothing there."""
_PRESIGNED: Final = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signedheaders",
        "x-amz-signature",
        "x-amz-security-token",
        "awsaccesskeyid",
        "signature",
        "expires",
    }
)
"""Parameters of a presigned request, in lower case."""


class Place(NamedTuple):
    """Where a service is in a region, and how requests to it are signed.

    `is_configured`: the profile itself names this endpoint, so it may be any.
    """

    url: str
    signing_name: str
    region: str
    is_configured: bool


class Meant(NamedTuple):
    """Whose request it is.

    Attributes:
        signing_name: in its credential scope; empty where it is not signed.
        target_prefix: of its target; empty where it has none.
        region: of its credential scope.
        named: services of the settings that it may be of; empty: any.
    """

    signing_name: str
    target_prefix: str
    region: str
    named: tuple[str, ...]


class Profile:
    """A profile of this machine's AWS configuration. Any thread may use it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._session: Any = None
        self._credentials: Any = None
        self._places: dict[tuple[str, str, str], Place] = {}

    def signed(self, request: Request, meant: Meant) -> Request:
        """The same request, to AWS.

        Args:
            request: as the caller sent it; `url` does not count.
            meant: whose it is.

        Raises:
            Failed: the profile has no credentials, or there is no such service, or it is signed in another way.
        """
        path, _, query = request.target.partition("?")
        kept = [pair for pair in query.split("&") if pair and not _is_presigned(pair, query)]
        target = f"{path}?{'&'.join(kept)}" if kept else path
        headers = {name: value for name, value in request.headers if name not in _SIGNED}
        body = request.body
        if dict(request.headers).get("x-amz-content-sha256", "").startswith("STREAMING-"):
            body = chunked.plain(headers, body)
        service = _service(meant, request.method, path, tuple(headers))
        account = headers.get("x-amz-account-id", "")
        credentials, place = self._looked_up(service, meant.region, account)
        if meant.signing_name:
            headers = _add_signature(credentials, place, service, request.method, target, headers, body)
        if place.is_configured:
            headers[MARK] = "1"
        return Request(place.url, request.method, target, list(headers.items()), body)

    def _looked_up(self, service: str, region: str, account: str) -> tuple[Any, Place]:
        from botocore.exceptions import BotoCoreError

        try:
            with self._lock:  # botocore's sessions are not to be shared by threads
                session = self._opened()
                place = self._places.get((service, region, account))
                if place is None:
                    place = self._places[service, region, account] = _place(session, service, region, account)
            return self._credentials.get_frozen_credentials(), place
        except BotoCoreError as error:
            raise Failed(
                403,
                "ProfileUnusable",
                f"profile {self._name!r}, which calls of {service} are signed with, cannot be used: {error}; look at "
                f"~/.aws/config, or run: aws sso login --profile {self._name}",
            ) from error

    def _opened(self) -> Any:
        if self._session is None:
            from botocore.session import Session

            # named here, so that neither AWS_PROFILE nor keys in the environment count
            session = Session(profile=self._name)
            credentials = session.get_credentials()
            if credentials is None:
                raise Failed(
                    403, "ProfileUnusable", f"profile {self._name!r} has no credentials: add some to ~/.aws/credentials"
                )
            self._session, self._credentials = session, credentials
        return self._session


def _add_signature(
    credentials: Any, place: Place, service: str, method: str, target: str, headers: dict[str, str], body: bytes
) -> dict[str, str]:
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest

    kind = S3SigV4Auth if place.signing_name.startswith("s3") or service == "s3control" else SigV4Auth
    made = AWSRequest(method=method, url=place.url + target, data=body, headers=headers)
    kind(credentials, place.signing_name, place.region).add_auth(made)
    return dict(made.headers.items())


def _place(session: Any, service: str, region: str, account: str) -> Place:
    from botocore.configprovider import ConfiguredEndpointProvider
    from botocore.endpoint_provider import EndpointProvider

    loader = session.get_component("data_loader")
    provider = EndpointProvider(
        loader.load_service_model(service, "endpoint-rule-set-1"), loader.load_data("partitions")
    )
    parameters: dict[str, Any] = {"Region": region}
    if account:
        parameters |= {"AccountId": account, "RequiresAccountId": True}
    known = provider.ruleset.parameters
    found = provider.resolve_endpoint(**{name: value for name, value in parameters.items() if name in known})
    schemes = found.properties.get("authSchemes", [])
    scheme: dict[str, Any] | None = next((each for each in schemes if each["name"] == "sigv4"), None if schemes else {})
    if scheme is None:
        raise Failed(
            501,
            "NotImplemented",
            f"{service} is signed by {schemes[0]['name']} in {region}, which kflow does not do: call AWS without kflow",
        )
    names = catalogue.named(service)
    signing_name = scheme.get("signingName") or (service if names is None else names.signing_name)
    # Of the profile's own file only: the environment may well point to this very endpoint.
    configured = ConfiguredEndpointProvider(
        full_config=session.full_config,
        scoped_config=session.get_scoped_config(),
        client_name=service,
        environ={},
    ).provide()
    url = (configured or found.url).rstrip("/")
    return Place(url, signing_name, scheme.get("signingRegion", region), bool(configured))


def _service(meant: Meant, method: str, path: str, headers: tuple[str, ...]) -> str:
    """By botocore's name. Where several services are signed alike, the path tells those apart that use paths."""
    found = [each for each in catalogue.everything() if not meant.named or each.service in meant.named]
    if meant.target_prefix:
        found = [each for each in found if each.target_prefix == meant.target_prefix] or found
    if meant.signing_name:
        found = [each for each in found if each.signing_name == meant.signing_name]
    if not found:
        raise Failed(
            501, "NotImplemented", f"botocore knows no service that is signed for {meant.signing_name or '(nothing)'!r}"
        )
    last = next((each for each in found if each.service == meant.signing_name), found[0])
    for each in found:
        if each is not last and each.protocol.startswith("rest-") and _has(each.service, method, path, headers):
            return each.service
    return last.service


def _has(service: str, method: str, path: str, headers: tuple[str, ...]) -> bool:
    """Whether a service has an operation with such a path."""
    routes = _routes(service)
    return routes is not None and routes.find(method, path, [], dict.fromkeys(headers, "")) is not None


@cache
def _routes(service: str) -> Routes | None:
    try:
        return Routes(models.load(service))
    except UsageError:
        return None


def _is_presigned(pair: str, query: str) -> bool:
    name = unquote(pair.partition("=")[0]).lower()
    if name in {"signature", "expires"} and "AWSAccessKeyId=" not in query:
        return False  # somebody's own
    return name in _PRESIGNED
