"""AWS STS: who calls, and temporary credentials for a role of any account.

There is no IAM here: every role can be assumed, and nothing is permitted or denied by policies. What the credentials do
is what counts in tests of several accounts: who uses them acts in the account of the role.

Source: documented: STS API reference; recorded: the texts, but those marked chosen.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kflow.aws.calls import LATER, Answer, Call
from kflow.broker.sessions import Session, Sessions
from kflow.errors import AwsError, KflowError

_ROLE: Final = re.compile(r"arn:(aws[a-z-]*):iam::([0-9]{12}):role/((?:[\x21-\x7e]+/)?)([\w+=,.@-]{1,64})", re.ASCII)
_USER: Final = re.compile(r"(?![0-9]{12}$)[\w+=,.@-]{1,64}", re.ASCII)
"""An access key that can be the name of a user."""
_DURATION_S: Final = 3600
_CHAINED_S: Final = 3600
"""Roles that a role assumes last so long at most."""


class Host(Protocol):
    """The node, as far as it is needed."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...


class _Refused(AwsError):
    code = "ValidationError"
    http_status = 400
    sender_fault = True


class MalformedPolicyDocument(_Refused):
    """A session policy that is no JSON object."""

    code = "MalformedPolicyDocument"


@dataclass(slots=True)
class Sts:
    """Its operations. Belongs to the loop's thread.

    Attributes:
        host: the node.
        sessions: what it gave out.
    """

    host: Host
    sessions: Sessions
    service_name: str = "sts"

    def get_caller_identity(self, call: Call, given: Any) -> Answer:
        """A role's session, else a user that is called as its access key, else the account itself (chosen)."""
        del given
        account, key = call.context.place.account, call.context.access_key
        session = self.sessions.find(key)
        if session is not None:
            shown = _assumed(session)
            return {"UserId": shown["AssumedRoleId"], "Account": account, "Arn": shown["Arn"]}
        if _USER.fullmatch(key):
            return {"UserId": key, "Account": account, "Arn": f"arn:aws:iam::{account}:user/{key}"}
        return {"UserId": account, "Account": account, "Arn": f"arn:aws:iam::{account}:root"}

    def assume_role(self, call: Call, given: Any) -> Answer:
        """Credentials of the role's account. Session policies are read and restrict nothing."""
        role = _ROLE.fullmatch(given.RoleArn)
        if role is None:
            raise _Refused(f"{given.RoleArn} is invalid")
        seconds = given.DurationSeconds or _DURATION_S
        if seconds > _CHAINED_S and self.sessions.find(call.context.access_key) is not None:
            raise _Refused(
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
            )
        if given.Policy is not None:
            _check_policy(given.Policy)

        def told(failure: KflowError | None) -> None:
            if failure is not None:
                call.refuse(failure)
                return
            output: dict[str, Any] = {
                "Credentials": {
                    "AccessKeyId": session.access_key,
                    "SecretAccessKey": session.secret,
                    "SessionToken": session.token,
                    "Expiration": session.expires_ms,
                },
                "AssumedRoleUser": _assumed(session),
            }
            if given.Policy is not None or given.PolicyArns or given.Tags:
                output["PackedPolicySize"] = 6
            if given.SourceIdentity:
                output["SourceIdentity"] = given.SourceIdentity
            call.answer(output)

        session = self.sessions.begin(
            role[2],
            role=given.RoleArn,
            name=given.RoleSessionName,
            source=given.SourceIdentity or "",
            now_ms=self.host.now_ms(),
            seconds=seconds,
            told=told,
        )
        return LATER


def _assumed(session: Session) -> dict[str, str]:
    """An AssumedRoleUser. The role's id is made of its ARN: the same role has the same id."""
    role = _ROLE.fullmatch(session.role)
    assert role is not None, "it was checked before it was kept"
    digest = base64.b32encode(hashlib.blake2b(session.role.encode(), digest_size=11).digest()).decode()
    return {
        "AssumedRoleId": f"AROA{digest[:17]}:{session.name}",
        "Arn": f"arn:{role[1]}:sts::{role[2]}:assumed-role/{role[4]}/{session.name}",
    }


def _check_policy(text: str) -> None:
    try:
        is_object = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise MalformedPolicyDocument("Syntax errors in policy.")
