"""The table of settings: a new setting is one row here.

The environment variable, the check, `kflow config show` and the flag follow from the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the table.

    Attributes:
        name: the key in the file; the environment variable is `KFLOW_` and this in capitals.
        type: `str`, `int`, `float`, `bool`, `Path`, or `list` (of text) or `dict` (text to text).
        default: the value where nobody sets one.
        help: one sentence.
        unit: of a number; empty where it has none.
        choices: the allowed texts; empty for any.
        minimum: smallest number, inclusive.
        maximum: largest number, inclusive.
        pattern: regular expression a text must match as a whole.
        example: shown where `pattern` fails.
        separator: between the texts of a list, in a variable or a flag.
        is_secret: whether what it holds is kept from output; it has no flag then, for command lines are visible.
    """

    name: str
    type: type
    default: Any
    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    pattern: str = ""
    example: str = ""
    is_secret: bool = False
    separator: str = ","

    @property
    def expected(self) -> str:
        """What a value must be, in words, with the range."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = _WORDS[self.type]
        unit = f" {self.unit}" if self.unit else ""
        if self.minimum is not None and self.maximum is not None:
            return f"{words} from {self.minimum} to {self.maximum}{unit}"
        return f"{words} like {self.example!r}" if self.example else words


_WORDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    list: "a list of texts",
    dict: "a table of texts",
}

SETTINGS: tuple[Setting, ...] = (
    Setting(name="data_dir", type=Path, default=".kflow", help="Folder of all data; it holds its own .gitignore."),
    Setting(
        name="fsync",
        type=str,
        default="interval",
        choices=("none", "interval", "always"),
        help="What survives power loss: nothing is promised, all but the last 100 ms, or all that was acknowledged. "
        "Stored with the data.",
    ),
    Setting(
        name="region",
        type=str,
        default="us-east-1",
        pattern=r"[a-z]{2}(-[a-z]+)+-\d",
        example="us-east-1",
        help="Region in ARNs and events.",
    ),
    Setting(
        name="account",
        type=str,
        default="123456789012",
        pattern=r"\d{12}",
        example="123456789012",
        help="Twelve-digit account in ARNs and events.",
    ),
    Setting(
        name="max_workers", type=int, default=8, minimum=1, maximum=512, unit="processes", help="Most worker processes."
    ),
    Setting(
        name="retry_backoff_scale",
        type=float,
        default=1.0,
        minimum=0,
        maximum=100,
        help="Factor on the pauses between retries (1, 2, 4, 8, 10 s); 0 retries at once.",
    ),
    Setting(name="plugins", type=list, default=(), help="Plugins to load: modules, or paths of modules."),
    Setting(
        name="worker_start",
        type=str,
        default="auto",
        choices=("auto", "zygote", "spawn"),
        help="How workers start: forked from a warm process, or each anew; auto picks what the system bears.",
    ),
    Setting(name="preload", type=list, default=(), help="Modules the warm process imports before workers fork."),
    Setting(
        name="port",
        type=int,
        default=4566,
        minimum=0,
        maximum=65535,
        help="Port of the endpoint. Unset: the next free one if this is taken; set: this one or none; 0: any.",
    ),
    Setting(
        name="bind",
        type=str,
        default="127.0.0.1",
        pattern=r"[0-9A-Za-z.:_-]+",
        example="127.0.0.1",
        help="Address or name the endpoint listens at. Other than loopback: use auth = 'strict'.",
    ),
    Setting(name="tls", type=bool, default=False, help="Whether the endpoint speaks TLS as well, on the same port."),
    Setting(
        name="tls_cert", type=Path, default=None, help="Certificate (PEM, with its chain). Unset: a self-made one."
    ),
    Setting(
        name="tls_key", type=Path, default=None, help="Private key (PEM) of tls_cert. Unset: it stands in tls_cert."
    ),
    Setting(
        name="auth",
        type=str,
        default="none",
        choices=("none", "strict"),
        help="Whether signatures of requests are checked: any credentials do, or those of access_keys.",
    ),
    Setting(
        name="access_keys",
        type=dict,
        default={},
        is_secret=True,
        help="Secret by access key id, for auth = 'strict'.",
    ),
    Setting(
        name="credentials",
        type=str,
        default="local",
        choices=("local", "inherit"),
        help="What SDKs in handlers see: keys that open nothing, or those of the shell, with which they reach AWS.",
    ),
    Setting(
        name="allow_reset",
        type=bool,
        default=False,
        help="Whether POST /_kflow/reset empties the data, with no question asked.",
    ),
    Setting(
        name="enforce_limits",
        type=bool,
        default=False,
        help="Whether throughput per shard and calls per second are limited as on AWS.",
    ),
    Setting(
        name="transition_ms",
        type=int,
        default=500,
        minimum=0,
        maximum=600_000,
        unit="ms",
        help="How long streams and consumers stay CREATING, UPDATING and DELETING.",
    ),
    Setting(
        name="faults",
        type=list,
        default=(),
        separator=";",
        help="Faults to inject, for example 'kinesis.PutRecords: 5% ProvisionedThroughputExceeded'.",
    ),
    Setting(
        name="fault_seed",
        type=int,
        default=0,
        minimum=0,
        maximum=2**63 - 1,
        help="Which calls the faults meet: the same seed, the same calls.",
    ),
    Setting(
        name="http_idle_seconds",
        type=int,
        default=75,
        minimum=1,
        maximum=86_400,
        unit="seconds",
        help="A connection to the endpoint is closed after this long without a request.",
    ),
    Setting(
        name="http_connections",
        type=int,
        default=0,
        minimum=0,
        maximum=1_000_000,
        unit="connections",
        help="Most connections to the endpoint at a time; 0: as many as descriptors allow.",
    ),
    Setting(
        name="services",
        type=dict,
        default={},
        help="Where calls of services go that kflow does not speak, by service: off, moto, http://HOST:PORT or "
        "aws:PROFILE; `default` stands for all others.",
    ),
    Setting(
        name="handlers", type=list, default=("./functions",), help="Where handlers are: files, folders or modules."
    ),
)

STREAM_SETTINGS: tuple[Setting, ...] = (
    Setting(name="shards", type=int, default=1, minimum=1, maximum=1000, unit="shards", help="Shards at creation."),
    Setting(
        name="mode",
        type=str,
        default="PROVISIONED",
        choices=("PROVISIONED", "ON_DEMAND"),
        help="Capacity mode at creation; ON_DEMAND begins with 4 shards.",
    ),
    Setting(
        name="retention_hours",
        type=int,
        default=24,
        minimum=24,
        maximum=8760,
        unit="hours",
        help="How long records are kept.",
    ),
    Setting(
        name="max_record_size_in_kib",
        type=int,
        default=1024,
        minimum=1024,
        maximum=10240,
        unit="KiB",
        help="Largest record, data and key together.",
    ),
)

FUNCTION_SETTINGS: tuple[Setting, ...] = (
    Setting(name="timeout", type=int, default=None, minimum=1, maximum=900, unit="seconds", help="Time for a call."),
    Setting(name="memory_size", type=int, default=None, minimum=128, maximum=10240, unit="MB", help="Memory."),
    Setting(name="environment", type=dict, default=None, help="Variables the handler sees."),
    Setting(
        name="reserved_concurrent_executions",
        type=int,
        default=None,
        minimum=0,
        maximum=1000,
        unit="invocations",
        help="How often it runs at once, over all shards, lanes and invocations; 0: not at all.",
    ),
)

TABLES = {"streams": STREAM_SETTINGS, "functions": FUNCTION_SETTINGS}
"""The tables whose entries have names of the author's."""

NAMES = {"streams": r"[a-zA-Z0-9_.-]{1,128}", "functions": r"[a-zA-Z0-9_-]{1,64}"}
"""What those names must match."""

LATER = frozenset({"stages"})
"""Keys of parts that are not built yet: refused by that name, not as unknown."""

LATER_IN = {
    "streams": frozenset({"arn"}),
    "functions": frozenset({"role", "layers", "vpc", "cloudformation"}),
}
"""The same within the entries of tables."""
