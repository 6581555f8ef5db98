"""Versions of a function: the rules of making one, changing `$LATEST`, and deleting."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from kflow.lambda_.control.facts import LATEST, Configuration, Facts
from kflow.lambda_.control.function import Function
from kflow.lambda_.control.shown import is_pending, is_updating
from kflow.lambda_.errors import InvalidParameterValue, PreconditionFailed, ResourceConflict


def revision() -> str:
    """A new RevisionId."""
    return str(uuid.uuid4())


def check_revision(given: str | None, latest: str) -> None:
    """Refuse a caller who goes by an older state.

    Raises:
        PreconditionFailed: it does.
    """
    if given and given != latest:
        raise PreconditionFailed


def require_settled(function: Function, now_ms: int) -> None:
    """Refuse to change what is being changed. Source: recorded: the texts.

    Raises:
        ResourceConflict: it is.
    """
    latest = function.latest
    if is_pending(latest, now_ms):
        raise ResourceConflict(
            "The operation cannot be performed at this time. The function is currently in the following state: Pending"
        )
    if function.is_updating or is_updating(latest, now_ms):
        raise ResourceConflict(
            f"The operation cannot be performed at this time. An update is in progress for resource: {function.arn}"
        )


def changed(latest: Configuration, now_ms: int, transition_s: float, **values: Any) -> Configuration:
    """`$LATEST` after a change."""
    return msgspec.structs.replace(
        latest,
        revision=revision(),
        modified_ms=now_ms,
        updated_ms=now_ms + round(transition_s * 1000),
        **values,
    )


def published(
    facts: Facts, latest: Configuration, now_ms: int, transition_s: float, description: str | None = None
) -> tuple[Facts, Configuration]:
    """What is kept after `$LATEST` was published, and the version: the newest one where nothing has changed since.

    Source: documented: PublishVersion.
    """
    newest = facts.versions.get(str(facts.last_version))
    if newest is not None and newest.same_as(latest):
        return facts, newest
    number = facts.last_version + 1
    made = msgspec.structs.replace(
        latest,
        version=str(number),
        revision=revision(),
        description=latest.description if description is None else description,
        active_ms=now_ms + round(transition_s * 1000),
        updated_ms=0,
    )
    after = msgspec.structs.replace(facts, versions={**facts.versions, made.version: made}, last_version=number)
    return after, made


def without(facts: Facts, version: str) -> dict[str, Any]:
    """The changes of what is kept that delete a version.

    Raises:
        InvalidParameterValue: it is `$LATEST`, or an alias.
        ResourceConflict: an alias points to it.

    Source: recorded: the texts.
    """
    if version == LATEST:
        raise InvalidParameterValue("$LATEST version cannot be deleted without deleting the function.")
    if version in facts.aliases:
        raise InvalidParameterValue("Deletion of aliases is not currently supported.")
    used = [alias.name for alias in facts.aliases.values() if version in {alias.version, *alias.weights}]
    if used:
        raise ResourceConflict(
            f"Unable to delete version because the following aliases reference it: [{', '.join(used)}]"
        )
    return {
        name: {qualifier: each for qualifier, each in getattr(facts, name).items() if qualifier != version}
        for name in ("versions", "invoke_configs", "provisioned", "urls", "policies", "management")
    }
