"""Operations on aliases. Source: recorded: the texts, but those marked chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kflow.aws.calls import Answer, Call
from kflow.lambda_.control import names, versions
from kflow.lambda_.control.facts import LATEST, Alias
from kflow.lambda_.control.function import Function
from kflow.lambda_.errors import InvalidParameterValue, ResourceConflict, ResourceNotFound
from kflow.services.lambda_.parts import Base, page


class Aliases(Base):
    """Operations on aliases."""

    def create_alias(self, call: Call, given: Any) -> Answer:
        """Source: documented: CreateAlias."""
        function = self.unqualified(call, given.FunctionName)
        function.require_created("what it is called")
        if given.Name in function.facts.aliases:
            raise ResourceConflict(f"Alias already exists: {function.qualified(given.Name)}")
        function.configuration(_version(function, given.FunctionVersion))
        made = Alias(
            name=given.Name,
            version=given.FunctionVersion,
            revision=versions.revision(),
            description=given.Description or "",
            weights=_weights(function, given.FunctionVersion, _given(given.RoutingConfig)),
        )
        return self._keep_alias(call, function, made)

    def get_alias(self, call: Call, given: Any) -> Answer:
        """Source: documented: GetAlias."""
        function = self.unqualified(call, given.FunctionName)
        return _shown(function, self._found_alias(function, given.Name, "Cannot find alias arn"))

    def list_aliases(self, call: Call, given: Any) -> Answer:
        """By name. Source: documented: ListAliases."""
        function = self.unqualified(call, given.FunctionName)
        wanted = given.FunctionVersion
        aliases = function.facts.aliases
        found = [aliases[name] for name in sorted(aliases) if wanted in {None, aliases[name].version}]
        listed, marker = page(found, lambda each: each.name, given)
        return {"Aliases": [_shown(function, each) for each in listed], "NextMarker": marker}

    def update_alias(self, call: Call, given: Any) -> Answer:
        """What is not given stays. Source: documented: UpdateAlias."""
        function = self.unqualified(call, given.FunctionName)
        alias = self._found_alias(function, given.Name, "Alias not found")
        versions.check_revision(given.RevisionId, alias.revision)
        version = given.FunctionVersion or alias.version
        function.configuration(_version(function, version))
        weights = alias.weights if given.RoutingConfig is None else _given(given.RoutingConfig)
        made = msgspec.structs.replace(
            alias,
            version=version,
            revision=versions.revision(),
            description=alias.description if given.Description is None else given.Description,
            weights=_weights(function, version, weights),
        )
        return self._keep_alias(call, function, made)

    def delete_alias(self, call: Call, given: Any) -> Answer:
        """One that is not there is deleted already. Source: documented: DeleteAlias."""
        function = self.unqualified(call, given.FunctionName)
        if given.Name not in function.facts.aliases:
            return None
        kinds = ("aliases", "invoke_configs", "provisioned", "urls", "policies")
        left = {
            kind: {name: each for name, each in getattr(function.facts, kind).items() if name != given.Name}
            for kind in kinds
        }
        return self.change(call, function, lambda: self.tell_of_orphans(function), **left)

    def _found_alias(self, function: Function, name: str, text: str) -> Alias:
        found = function.facts.aliases.get(name)
        if found is None:
            raise ResourceNotFound(f"{text}: {function.qualified(name)}")
        return found

    def _keep_alias(self, call: Call, function: Function, alias: Alias) -> Answer:
        after = {**function.facts.aliases, alias.name: alias}
        return self.change(call, function, lambda: _shown(function, alias), aliases=after)


def _version(function: Function, version: str) -> str:
    """An alias names a version, never another alias."""
    if version != LATEST and not names.is_number(version):
        raise names.Named(function.place, function.name, version).not_found()
    return version


def _given(routing: Any) -> dict[str, float]:
    return {} if routing is None else dict(routing.AdditionalVersionWeights or {})


def _weights(function: Function, version: str, weights: Mapping[str, float]) -> dict[str, float]:
    if not weights:
        return {}
    if len(weights) > 1:
        raise InvalidParameterValue("Number of items in AdditionalVersionWeights cannot be greater than 1")
    if version == LATEST or LATEST in weights:
        raise InvalidParameterValue("$LATEST is not supported for an alias pointing to more than 1 version")
    for other in weights:
        if other == version:
            raise InvalidParameterValue(
                f"Invalid function version {other}. Function version {other} is already included in routing "
                "configuration."
            )
        function.configuration(_version(function, other))
    return dict(weights)


def _shown(function: Function, alias: Alias) -> dict[str, Any]:
    found: dict[str, Any] = {
        "AliasArn": function.qualified(alias.name),
        "Name": alias.name,
        "FunctionVersion": alias.version,
        "Description": alias.description,
        "RevisionId": alias.revision,
    }
    if alias.weights:
        found["RoutingConfig"] = {"AdditionalVersionWeights": alias.weights}
    return found
