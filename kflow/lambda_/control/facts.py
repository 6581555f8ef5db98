"""What is kept of a function: plain data that is never changed, only replaced. A file a function, JSON.

    lambda/functions/<name>.json                         of the folder's own account and region
    lambda/functions/<region>.<account>/<name>.json      of others
    lambda/handlers/<name>.json                          what was set on a decorated handler

Each has a checksum and a twin (`kflow.broker.documents`).
"""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

LATEST: Final = "$LATEST"
FUNCTIONS: Final = "lambda/functions"
HANDLERS: Final = "lambda/handlers"


class Code(msgspec.Struct, frozen=True):
    """A zip that was taken in.

    Attributes:
        digest: SHA-256 of the zip, hexadecimal: names it.
        size: bytes of the zip.
        unpacked: bytes of what is in it.
    """

    digest: str
    size: int
    unpacked: int

    @property
    def sha256(self) -> str:
        """As AWS shows it."""
        return base64.b64encode(bytes.fromhex(self.digest)).decode()


class LayerUse(msgspec.Struct, frozen=True):
    """A layer version as a function uses it: it stays, also where the version is deleted."""

    arn: str
    code: Code


class Configuration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a function, code and configuration.

    Attributes:
        version: `$LATEST`, or a number as text.
        revision: UUID of this state.
        modified_ms: when it was changed last.
        entry: what Lambda calls the handler.
        environment: None where there never was one: it is not shown then.
        log_group: empty: the one that is named after the function.
        active_ms: until then it is `Pending`.
        updated_ms: until then its last update is `InProgress`.
    """

    version: str
    revision: str
    modified_ms: int
    runtime: str
    role: str
    entry: str
    code: Code
    description: str = ""
    timeout_s: int = 3
    memory_mb: int = 128
    environment: dict[str, str] | None = None
    layers: tuple[LayerUse, ...] = ()
    key_arn: str = ""
    tracing: str = "PassThrough"
    dead_letter: str = ""
    log_format: str = "Text"
    log_level: str = ""
    system_log_level: str = ""
    log_group: str = ""
    storage_mb: int = 512
    architecture: str = "x86_64"
    snap_start: str = "None"
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    active_ms: int = 0
    updated_ms: int = 0

    @property
    def codes(self) -> tuple[Code, ...]:
        """All zips that it runs from."""
        return (self.code, *(each.code for each in self.layers))

    def same_as(self, other: Configuration) -> bool:
        """Whether another version would do the same."""
        return _bare(self) == _bare(other)


def _bare(each: Configuration) -> Configuration:
    return msgspec.structs.replace(
        each, version="", revision="", modified_ms=0, active_ms=0, updated_ms=0, description=""
    )


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A name for a version; with weights for a second one.

    Attributes:
        weights: by version: the part of the invocations that go there, 0 to 1.
    """

    name: str
    version: str
    revision: str
    description: str = ""
    weights: dict[str, float] = {}


class InvokeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How asynchronous invocations of a qualifier are retried, and who is told.

    Attributes:
        retries: 0 to 2; None: as AWS's default.
        age_s: 60 to 21,600; None likewise.
        on_success: ARN; empty: nobody.
        on_failure: likewise.
    """

    modified_ms: int
    retries: int | None = None
    age_s: int | None = None
    on_success: str = ""
    on_failure: str = ""


class Provisioned(msgspec.Struct, frozen=True, kw_only=True):
    """Provisioned concurrency of a version or an alias: kept and shown, environments start as they are needed."""

    count: int
    modified_ms: int
    ready_ms: int


class Url(msgspec.Struct, frozen=True, kw_only=True):
    """A function URL: kept and shown, nobody serves it.

    Attributes:
        cors: as the API has it; None: none.
    """

    url: str
    auth: str
    mode: str
    created_ms: int
    modified_ms: int
    cors: dict[str, Any] | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The resource policy of a qualifier: kept and shown, nothing is denied by it.

    Attributes:
        statements: by `Sid`, JSON texts.
    """

    revision: str
    statements: dict[str, str]


class RuntimeManagement(msgspec.Struct, frozen=True, kw_only=True):
    """When the runtime would be updated: kept and shown."""

    update_on: str
    version_arn: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function.

    Attributes:
        latest: `$LATEST`; None: the source has it.
        versions: published, by number, in their order.
        last_version: number of the newest one ever published.
        reserved: concurrency; None: none is.
        invoke_configs, provisioned, urls, policies, management: by qualifier; `$LATEST` for none.
        recursion: `Terminate` or `Allow`.
    """

    name: str
    account: str
    region: str
    latest: Configuration | None = None
    versions: dict[str, Configuration] = {}
    last_version: int = 0
    aliases: dict[str, Alias] = {}
    reserved: int | None = None
    tags: dict[str, str] = {}
    invoke_configs: dict[str, InvokeConfig] = {}
    provisioned: dict[str, Provisioned] = {}
    urls: dict[str, Url] = {}
    policies: dict[str, Policy] = {}
    management: dict[str, RuntimeManagement] = {}
    recursion: str = "Terminate"

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """`$LATEST` and all versions."""
        latest = () if self.latest is None else (self.latest,)
        return (*latest, *self.versions.values())
