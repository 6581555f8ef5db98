"""Resource policies: statements as AddPermission makes them. They are kept and shown, and deny nothing.

Source: documented: AddPermission; recorded: the texts, but those marked chosen, and the form of a statement.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any, Final

from kflow.lambda_.control.facts import Policy
from kflow.lambda_.errors import PolicyLengthExceeded, PreconditionFailed, ResourceConflict, ResourceNotFound

POLICY_BYTES: Final = 20_480
_ACCOUNT: Final = re.compile(r"\d{12}")
_STALE: Final = (
    "The Revision Id provided does not match the latest Revision Id. "
    "Call the GetPolicy API to retrieve the latest Revision Id"
)


def statement(sid: str, action: str, principal: str, resource: str, conditions: dict[str, dict[str, Any]]) -> str:
    """One statement, as JSON text."""
    found: dict[str, Any] = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": _principal(principal),
        "Action": action,
        "Resource": resource,
    }
    if conditions:
        found["Condition"] = conditions
    return json.dumps(found, separators=(",", ":"))


def conditions(given: Any) -> dict[str, dict[str, Any]]:
    """Those of AddPermission."""
    equals = {
        "AWS:SourceAccount": given.SourceAccount,
        "lambda:EventSourceToken": given.EventSourceToken,
        "lambda:FunctionUrlAuthType": given.FunctionUrlAuthType,
        "aws:PrincipalOrgID": given.PrincipalOrgID,
    }
    found: dict[str, dict[str, Any]] = {}
    stated = {name: value for name, value in equals.items() if value}
    if stated:
        found["StringEquals"] = stated
    if given.SourceArn:
        found["ArnLike"] = {"AWS:SourceArn": given.SourceArn}
    if given.InvokedViaFunctionUrl is not None:
        found["Bool"] = {"lambda:InvokedViaFunctionUrl": str(given.InvokedViaFunctionUrl).lower()}
    return found


def with_statement(policy: Policy | None, sid: str, text: str, revision: str | None) -> Policy:
    """A policy with one more statement.

    Raises:
        ResourceConflict: there is one of this name.
        PolicyLengthExceeded: it is too much.
        PreconditionFailed: the caller goes by an older one.
    """
    check_revision(policy, revision)
    present = {} if policy is None else policy.statements
    if sid in present:
        raise ResourceConflict(
            f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the "
            "existing statement."
        )
    made = Policy(revision=str(uuid.uuid4()), statements={**present, sid: text})
    size = len(shown(made).encode())
    if size > POLICY_BYTES:
        raise PolicyLengthExceeded(f"The final policy size ({size}) is bigger than the limit ({POLICY_BYTES}).")
    return made


def without(policy: Policy | None, sid: str, revision: str | None) -> Policy | None:
    """A policy less a statement; None: nothing of it is left.

    Raises:
        ResourceNotFound: there is no such statement.
        PreconditionFailed: the caller goes by an older one.
    """
    if policy is None:
        raise ResourceNotFound("No policy is associated with the given resource.")
    if sid not in policy.statements:
        raise ResourceNotFound(f"Statement {sid} is not found in resource policy.")
    check_revision(policy, revision)
    left = {name: text for name, text in policy.statements.items() if name != sid}
    return Policy(revision=str(uuid.uuid4()), statements=left) if left else None


def check_revision(policy: Policy | None, revision: str | None) -> None:
    """Refuse a caller who goes by an older policy.

    Raises:
        PreconditionFailed: it does.
    """
    if revision and (policy is None or policy.revision != revision):
        raise PreconditionFailed(_STALE)


def shown(policy: Policy) -> str:
    """As JSON text."""
    return f'{{"Version":"2012-10-17","Id":"default","Statement":[{",".join(policy.statements.values())}]}}'


def _principal(text: str) -> Any:
    """A service, an account, or whom an ARN names."""
    if text == "*":
        return "*"
    if _ACCOUNT.fullmatch(text):
        return {"AWS": f"arn:aws:iam::{text}:root"}
    return {"AWS": text} if text.startswith("arn:") else {"Service": text}
