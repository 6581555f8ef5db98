"""Strict authentication: Signature Version 4, by header or by query, checked against configured keys.

Checks come in AWS's order: what is missing, whose key it is, its scope, its time, and the signature itself. Session
tokens count for keys that STS gave out; with configured keys they are signed like any header and mean nothing (chosen).

Source: documented: IAM User Guide, Signature Version 4; recorded: kinesalite's test-suite (missing parts); texts of
answers of AWS quoted by its users (scope, time, mismatch).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote, unquote

from kflow.aws.strangers import Signee
from kflow.errors import AwsError
from kflow.web.exchange import Exchange

ALGORITHM: Final = "AWS4-HMAC-SHA256"
LATE_S: Final = 900
"""How old a signature may be, seconds."""
EARLY_S: Final = 300
"""How far ahead of the clock it may be, seconds. Source: recorded: `Signature not yet current: ... + 5 min.`"""
EXPIRES_MAX_S: Final = 604_800
"""Source: documented: presigned requests live for seven days at most."""
UNSIGNED: Final = "UNSIGNED-PAYLOAD"

_KEYS_KEPT: Final = 1000
_TERMINATOR: Final = "aws4_request"
_SPLIT = re.compile(r"[,\s]+")
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_ISO: Final = "%Y%m%dT%H%M%SZ"
_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_UNKNOWN: Final = "The security token included in the request is invalid."
_EXPIRED: Final = "The security token included in the request is expired"
_QUERY: Final = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date")


class Unauthenticated(AwsError):
    """The request is not signed as it should be. Its code depends on the service's protocol."""

    sender_fault = True

    def __init__(self, message: str, code: str, http_status: int) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status


@dataclass(frozen=True, slots=True)
class _Names:
    """What a family of services calls the failures."""

    status: int
    missing: str
    incomplete: str
    unknown_key: str
    invalid: str
    early_or_late: str
    suffix: str = "Exception"

    def error(self, name: str, message: str) -> Unauthenticated:
        return Unauthenticated(message, name + self.suffix, self.status)


_JSON = _Names(
    400,
    "MissingAuthenticationToken",
    "IncompleteSignature",
    "UnrecognizedClient",
    "InvalidSignature",
    "InvalidSignature",
)
_REST_JSON = replace(_JSON, status=403)
_XML = _Names(
    403,
    "MissingAuthenticationToken",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "SignatureDoesNotMatch",
    "",
)
_S3 = _Names(
    403,
    "AccessDenied",
    "AuthorizationHeaderMalformed",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "RequestTimeTooSkewed",
    "",
)
_FAMILIES: Final = {"json": _JSON, "rest-json": _REST_JSON}


class Temporary(Protocol):
    """Credentials that were given out for a while."""

    @property
    def secret(self) -> str:
        """The secret of the key."""
        ...

    @property
    def token(self) -> str:
        """What each request must hold."""
        ...

    @property
    def expires_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...


class _Claim(NamedTuple):
    """What a request says of its signature.

    `query` are its parameters by name, still encoded, without the signature; `expires_s` is that of a presigned
    request, None where a header signs.
    """

    credential: str
    signed: str
    signature: str
    date: str
    query: Sequence[tuple[str, str]]
    expires_s: int | None


class Verifier:
    """Checks requests against keys. A body's hash costs about 1 ms a MiB."""

    def __init__(
        self,
        secrets: Mapping[str, str],
        now_ms: Callable[[], int],
        temporary: Callable[[str], Temporary | None] = lambda _: None,
    ) -> None:
        """Check against these.

        Args:
            secrets: secret by access key id.
            now_ms: milliseconds since the epoch.
            temporary: what was given out, by access key id; None: nothing was under that key.
        """
        self._temporary = temporary
        self._secrets = dict(secrets)
        self._now_ms = now_ms
        self._keys: dict[tuple[str, str], bytes] = {}

    def verify(self, exchange: Exchange, model: Signee) -> None:
        """See that a request is signed with one of the keys.

        Args:
            exchange: the request.
            model: of the service that it is for.

        Raises:
            Unauthenticated: it is not; in the words of that service.
        """
        is_s3 = model.signing_name == "s3"
        names = _S3 if is_s3 else _FAMILIES.get(model.protocol, _XML)
        problem = self._check(exchange, _claim(exchange, names), names, model.signing_name)
        if problem is not None:
            raise problem

    def _check(self, exchange: Exchange, claim: _Claim, names: _Names, service: str) -> Unauthenticated | None:
        scope = claim.credential.split("/")
        if len(scope) < 5:
            return names.error(
                names.incomplete,
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
                f"got '{claim.credential}'",
            )
        key_id, (day, _, named, terminator) = "/".join(scope[:-4]), scope[-4:]
        secret = self._secrets.get(key_id)
        if secret is None:
            found = self._temporary(key_id)
            if found is None or _token(exchange, claim) != found.token:
                return names.error(names.unknown_key, _UNKNOWN)
            if found.expires_ms <= self._now_ms():
                return names.error("ExpiredToken", _EXPIRED)
            secret = found.secret
        said: list[str] = []
        if terminator != _TERMINATOR:
            said.append(f"Credential should be scoped with a valid terminator: '{_TERMINATOR}', not '{terminator}'. ")
        if named != service:
            said.append(f"Credential should be scoped to correct service: '{service}'. ")
        if day != claim.date[:8]:
            said.append(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
                f"'{day}' != '{claim.date[:8]}', from '{claim.date}'. "
            )
        if said:
            return names.error(names.invalid, "".join(said))
        problem = _out_of_time(claim, self._now_ms() // 1000)
        if problem:
            return names.error(names.early_or_late, problem)
        signed = claim.signed.split(";")
        needed = ["host", *(name for name in ("x-amz-target",) if name in exchange.headers)]
        for name in needed:
            if name not in signed:
                shown = "'Host' or ':authority'" if name == "host" else "'X-Amz-Target'"
                return names.error(names.invalid, f"{shown} must be a 'SignedHeader' in the AWS Authorization.")
        canonical = _canonical(exchange, claim, signed, is_s3=service == "s3")
        if canonical is None:
            return names.error(names.invalid, _MISMATCH)
        hashed = hashlib.sha256(canonical).hexdigest()
        text = f"{ALGORITHM}\n{claim.date}\n{'/'.join(scope[-4:])}\n{hashed}"
        expected = hmac.digest(self._key(key_id, secret, scope[-4:]), text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), claim.signature.encode(errors="replace")):
            return names.error(names.invalid, _MISMATCH)
        return None

    def _key(self, key_id: str, secret: str, scope: Sequence[str]) -> bytes:
        """The signing key of a scope; remembered, for it changes once a day."""
        found = self._keys.get((key_id, "/".join(scope)))
        if found is None:
            found = f"AWS4{secret}".encode()
            for part in scope:
                found = hmac.digest(found, part.encode(), "sha256")
            if len(self._keys) >= _KEYS_KEPT:
                self._keys.clear()
            self._keys[key_id, "/".join(scope)] = found
        return found


def _token(exchange: Exchange, claim: _Claim) -> str:
    """The session token, by header or by query; empty: there is none."""
    in_query = next((unquote(value) for name, value in claim.query if unquote(name) == "X-Amz-Security-Token"), "")
    return exchange.headers.get("x-amz-security-token", in_query)


def _claim(exchange: Exchange, names: _Names) -> _Claim:
    """What the request says; raises what is missing."""
    header = exchange.headers.get("authorization")
    pairs = [pair.partition("=")[::2] for pair in exchange.target.partition("?")[2].split("&") if pair]
    in_query = {unquote(name): unquote(value) for name, value in pairs}
    if "X-Amz-Algorithm" in in_query or "X-Amz-Signature" in in_query:
        if header is not None:
            raise names.error(
                names.invalid,
                "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
            )
        return _from_query(pairs, in_query, names)
    if header is None:
        text = "Missing Authentication Token" if names.suffix else "Request is missing Authentication Token"
        raise names.error(names.missing, "Access Denied" if names is _S3 else text)
    return _from_header(exchange.headers, header, pairs, names)


def _from_header(headers: Mapping[str, str], header: str, pairs: Sequence[tuple[str, str]], names: _Names) -> _Claim:
    parts = dict(part.partition("=")[::2] for part in _SPLIT.split(header.strip()) if "=" in part)
    said = [
        f"Authorization header requires '{name}' parameter. "
        for name in ("Credential", "Signature", "SignedHeaders")
        if not parts.get(name)
    ]
    date = headers.get("x-amz-date") or _from_http(headers.get("date", ""))
    if not _DATE.fullmatch(date):
        said.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ")
    if said:
        raise names.error(names.incomplete, f"{''.join(said)}Authorization={header}")
    if not header.startswith(f"{ALGORITHM} "):
        raise names.error(names.incomplete, f"Unsupported AWS 'algorithm': '{header.partition(' ')[0]}'.")
    return _Claim(parts["Credential"], parts["SignedHeaders"], parts["Signature"], date, pairs, None)


def _from_query(pairs: Sequence[tuple[str, str]], given: Mapping[str, str], names: _Names) -> _Claim:
    said = [f"AWS query-string parameters must include '{name}'. " for name in _QUERY if not given.get(name)]
    if said:
        raise names.error(names.incomplete, f"{''.join(said)}Re-examine the query-string parameters.")
    if given["X-Amz-Algorithm"] != ALGORITHM:
        raise names.error(names.incomplete, f"Unsupported AWS 'algorithm': '{given['X-Amz-Algorithm']}'.")
    date, expires = given["X-Amz-Date"], given.get("X-Amz-Expires", str(LATE_S))
    if not _DATE.fullmatch(date):
        raise names.error(
            names.incomplete,
            f"Date must be in ISO-8601 'basic format'. Got '{date}'. See http://en.wikipedia.org/wiki/ISO_8601",
        )
    if not (expires.isascii() and expires.isdigit() and int(expires) <= EXPIRES_MAX_S):
        raise names.error(names.incomplete, f"X-Amz-Expires must be a number of seconds up to {EXPIRES_MAX_S}")
    rest = [(name, value) for name, value in pairs if unquote(name) != "X-Amz-Signature"]
    return _Claim(
        given["X-Amz-Credential"], given["X-Amz-SignedHeaders"], given["X-Amz-Signature"], date, rest, int(expires)
    )


def _canonical(exchange: Exchange, claim: _Claim, signed: Sequence[str], *, is_s3: bool) -> bytes | None:
    """The canonical request; None: a signed header is not there, or the body is not the one its hash says."""
    headers = exchange.headers
    if any(name not in headers for name in signed):
        return None
    stated = headers.get("x-amz-content-sha256")
    if is_s3 and claim.expires_s is not None:
        hashed = UNSIGNED if stated is None else stated
    elif is_s3 and stated is not None and (stated == UNSIGNED or stated.startswith("STREAMING-")):
        hashed = stated
    else:
        hashed = hashlib.sha256(exchange.body).hexdigest()
        if stated is not None and stated != hashed:
            return None
    query = sorted((_coded(name), _coded(value)) for name, value in claim.query)
    lines = [f"{name}:{' '.join(headers[name].split())}\n" for name in signed]
    text = "\n".join(
        (
            exchange.method,
            _path(exchange.target.partition("?")[0], is_s3=is_s3),
            "&".join(f"{name}={value}" for name, value in query),
            "".join(lines),
            claim.signed,
            hashed,
        )
    )
    try:
        return text.encode("latin-1")  # as header lines are read
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape")


def _path(path: str, *, is_s3: bool) -> str:
    """The path as it is signed: encoded once more than on the wire, and without dots; of S3's keys, as it is."""
    if path == "/":
        return path
    if is_s3:
        return quote(unquote(path, errors="surrogateescape"), safe="/~", errors="surrogateescape") or "/"
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    end = "/" if path.endswith("/") and parts else ""
    return quote(f"/{'/'.join(parts)}{end}", safe="/~", errors="surrogateescape")


def _coded(text: str) -> str:
    return quote(unquote(text, errors="surrogateescape"), safe="~", errors="surrogateescape")


def _out_of_time(claim: _Claim, now_s: int) -> str:
    """Why the signature does not count now; empty: it does."""
    at_s = _seconds(claim.date)
    if at_s is None:
        return f"Date must be in ISO-8601 'basic format'. Got '{claim.date}'."
    lives_s = LATE_S if claim.expires_s is None else claim.expires_s
    if at_s + lives_s < now_s:
        limit = f"{_iso(now_s)} - {lives_s // 60} min."
        return f"Signature expired: {claim.date} is now earlier than {_iso(now_s - lives_s)} ({limit})"
    if at_s > now_s + EARLY_S:
        limit = f"{_iso(now_s)} + {EARLY_S // 60} min."
        return f"Signature not yet current: {claim.date} is still later than {_iso(now_s + EARLY_S)} ({limit})"
    return ""


@lru_cache(maxsize=64)
def _seconds(date: str) -> int | None:
    """Since the epoch; None: there is no such date. Requests of a second have the same."""
    try:
        return int(dt.datetime.strptime(f"{date}+0000", f"{_ISO}%z").timestamp())
    except ValueError:
        return None


def _iso(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime(_ISO)


def _from_http(date: str) -> str:
    """A `Date` header, which may hold either form, as ISO-8601 basic; empty: it is neither."""
    if not date or _DATE.fullmatch(date):
        return date
    from email.utils import parsedate_to_datetime  # old SDKs only

    try:
        return parsedate_to_datetime(date).astimezone(dt.UTC).strftime(_ISO)
    except ValueError:
        return ""
