"""From what is kept of a function to what runs it: a handler with a package for each version and alias, by key."""

from __future__ import annotations

from collections.abc import Callable

from kflow.declarations import FunctionOptions, Package, sourceless
from kflow.lambda_.control.facts import Code, Configuration, Facts
from kflow.lambda_.control.names import own_log_group, qualified
from kflow.lambda_.fleet import Published


def published(facts: Facts, key: str, folder: Callable[[Code], str]) -> dict[str, Published]:
    """All that may be run of a function that was created.

    Args:
        facts: of it.
        key: without a qualifier.
        folder: where a zip is unpacked.
    """
    if facts.latest is None:
        return {}
    found = {key: _of(facts, facts.latest, key, folder)}
    for version, configuration in facts.versions.items():
        found[qualified(key, version)] = _of(facts, configuration, qualified(key, version), folder)
    for name, alias in facts.aliases.items():
        configuration = facts.latest if alias.version == facts.latest.version else facts.versions[alias.version]
        found[qualified(key, name)] = _of(facts, configuration, qualified(key, name), folder)
    return found


def _of(facts: Facts, configuration: Configuration, key: str, folder: Callable[[Code], str]) -> Published:
    package = Package(
        function=facts.name,
        version=configuration.version,
        runtime=configuration.runtime,
        entry=configuration.entry,
        code=folder(configuration.code),
        layers=tuple(folder(each.code) for each in configuration.layers),
        account=facts.account,
        region=facts.region,
        log_format=configuration.log_format,
        log_level=configuration.log_level,
        system_log_level=configuration.system_log_level,
        log_group="" if configuration.log_group == own_log_group(facts.name) else configuration.log_group,
        role=configuration.role,
    )
    environment = configuration.environment or {}
    options = FunctionOptions(
        timeout=configuration.timeout_s, memory_size=configuration.memory_mb, environment=environment
    )
    return Published(
        handler=sourceless(key, package, options=options),
        timeout_s=configuration.timeout_s,
        memory_mb=configuration.memory_mb,
        environment=environment,
    )
