"""Settings: one table, and the way a value is found.

Later wins: default, the project's file (`[tool.kflow]` of `pyproject.toml`, or `kflow.toml`), `kflow.local.toml` beside
it, `KFLOW_*` in the environment (nested with two underscores: `KFLOW_STREAMS__ORDERS__SHARDS`), a flag. The project is
found upward from the working folder. Relative paths are relative to the file they stand in; those of the environment
and of flags to the working folder.

A new setting is one row in `SETTINGS`: the environment variable, the check, `kflow config show` and the docs follow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from kflow.errors import UsageError

PREFIX = "KFLOW_"
ELSEWHERE = frozenset({"KFLOW_TARGET"})
"""Variables with our prefix that are no settings: the target rule of `kflow.put` reads this one on each call."""


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
        later: texts that a later version will allow; refused by that name.
        minimum: smallest number, inclusive.
        maximum: largest number, inclusive.
        pattern: regular expression a text must match as a whole.
        example: shown where `pattern` fails.
    """

    name: str
    type: type
    default: Any
    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    pattern: str = ""
    example: str = ""

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
        choices=("none", "interval"),
        later=("always",),
        help="What survives power loss: nothing is promised, or all but the last 100 ms. Stored with the data.",
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
    Setting(name="handlers", type=list, default=("./functions",), help="Where handlers are: files, folders or modules."),
)

STREAM_SETTINGS: tuple[Setting, ...] = (
    Setting(name="shards", type=int, default=1, minimum=1, maximum=1000, unit="shards", help="Shards at creation."),
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
)

_TABLES = {"streams": STREAM_SETTINGS, "functions": FUNCTION_SETTINGS}
_LATER = frozenset({"port", "enforce_limits", "services", "stages", "credentials"})
_LATER_IN = {
    "streams": frozenset({"mode", "arn"}),
    "functions": frozenset({"role", "layers", "vpc", "reserved_concurrent_executions", "cloudformation"}),
}
_NAMES = {"streams": r"[a-zA-Z0-9_.-]{1,128}", "functions": r"[a-zA-Z0-9_-]{1,64}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """`[tool.kflow.streams.NAME]`: how a stream is created where a handler names it and nobody made it."""

    shards: int = 1
    retention_hours: int = 24
    max_record_size_in_kib: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSettings:
    """`[tool.kflow.functions.NAME]`; None leaves the choice to AWS's default."""

    timeout: int | None = None
    memory_size: int | None = None
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked. Plain data: it crosses processes.

    Attributes:
        project: folder of the project's file; None where there is no project.
        file: the project's file; None where there is none.
        data_dir: absolute.
        fsync: pass it to the data folder only where `given("fsync")`, else what is stored with the data counts.
        plugins: module names, or absolute paths.
        handlers: module names, or absolute paths.
        streams: by logical name.
        functions: by function name.
        origins: where each value that is no default came from, by dotted name.
    """

    project: Path | None
    file: Path | None
    data_dir: Path
    fsync: str = "interval"
    region: str = "us-east-1"
    account: str = "123456789012"
    max_workers: int = 8
    retry_backoff_scale: float = 1.0
    plugins: tuple[str, ...] = ()
    worker_start: str = "auto"
    preload: tuple[str, ...] = ()
    handlers: tuple[str, ...] = ()
    streams: Mapping[str, StreamSettings] = field(default_factory=dict)
    functions: Mapping[str, FunctionSettings] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def given(self, name: str) -> bool:
        """Whether somebody set this value."""
        return name in self.origins

    @property
    def has_home(self) -> bool:
        """Whether the data folder is somebody's choice: named, or a project's. Producers create none otherwise."""
        return self.project is not None or self.given("data_dir")

    def stream(self, name: str) -> StreamSettings:
        """Settings of a stream; the defaults where it has none."""
        return self.streams.get(name, StreamSettings())

    def function(self, name: str) -> FunctionSettings:
        """Settings of a function; all None where it has none."""
        return self.functions.get(name, FunctionSettings())

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Each setting as (dotted name, value, origin), for people."""
        for setting in SETTINGS:
            yield setting.name, getattr(self, setting.name), self.origins.get(setting.name, "default")
        for table, entries in (("streams", self.streams), ("functions", self.functions)):
            for entry, values in entries.items():
                for row in _TABLES[table]:
                    dotted = f"{table}.{entry}.{row.name}"
                    if dotted in self.origins:
                        yield dotted, getattr(values, row.name), self.origins[dotted]


def load(
    cwd: Path | str | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    files: bool = True,
) -> Settings:
    """Find and check all settings.

    Args:
        cwd: the folder to search from, upward; the working folder where None.
        overrides: values of flags by setting name; None values count as not given.
        environ: the environment; that of the process where None.
        files: whether to look for a project; without one, only variables and flags count.

    Raises:
        UsageError: an unknown name (with the nearest), a wrong type or range, a part that is not built yet.
    """
    return _Loader(cwd, files=files).load(overrides or {}, os.environ if environ is None else environ)


def find_project(cwd: Path) -> tuple[Path, dict[str, Any]] | None:
    """The settings file nearest upward from `cwd` and the keys in it; None where there is none.

    Raises:
        UsageError: the file is no TOML, or a folder has both kinds of file.
    """
    for folder in (cwd, *cwd.parents):
        own, shared = folder / "kflow.toml", folder / "pyproject.toml"
        keys = _read_toml(shared).get("tool", {}).get("kflow") if shared.is_file() else None
        if own.is_file():
            if keys is not None:
                raise UsageError(f"{folder} has kflow.toml and [tool.kflow] in pyproject.toml: keep one of them")
            return own, _read_toml(own)
        if keys is not None:
            if not isinstance(keys, dict):
                raise UsageError(f"tool.kflow in {shared} must be a table: [tool.kflow]")
            return shared, keys
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the nearest known name, or the empty text."""
    import difflib  # only ever needed to word an error

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean `{found[0]}`?" if found else ""


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # 4 ms that a worker or a Lambda function need not pay

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


class _Loader:
    """Lays the sources over each other; one use."""

    def __init__(self, cwd: Path | str | None, *, files: bool) -> None:
        self.cwd = Path.cwd() if cwd is None else Path(cwd).absolute()
        self.files = files
        self.top = {setting.name: setting for setting in SETTINGS}
        self.values: dict[str, Any] = {}
        self.tables: dict[str, dict[str, dict[str, Any]]] = {"streams": {}, "functions": {}}
        self.origins: dict[str, str] = {}

    def load(self, overrides: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
        found = find_project(self.cwd) if self.files else None
        project = found[0].parent if found else self._folder_with_data()
        base = project or self.cwd
        for setting in self.top.values():
            self.values[setting.name] = self._placed(setting, setting.default, base)
        if found:
            self._layer(found[1], found[0].name, base)
            local = base / "kflow.local.toml"
            if local.is_file():
                self._layer(_read_toml(local), local.name, base)
        self._environment(environ)
        for name, value in overrides.items():
            if value is not None:
                flag = "--" + name.replace("_", "-")
                self._set(name, value, flag, self.cwd, spelled=flag)
        return Settings(
            project=project,
            file=found[0] if found else None,
            streams={name: StreamSettings(**values) for name, values in self.tables["streams"].items()},
            functions={name: FunctionSettings(**values) for name, values in self.tables["functions"].items()},
            origins=self.origins,
            **self.values,
        )

    def _folder_with_data(self) -> Path | None:
        """Without a settings file, a folder whose `.kflow` somebody created on purpose is the project."""
        if not self.files:
            return None
        return next((f for f in (self.cwd, *self.cwd.parents) if (f / ".kflow" / "FORMAT").is_file()), None)

    def _layer(self, keys: Mapping[str, Any], origin: str, base: Path) -> None:
        for name, value in keys.items():
            if name not in _TABLES:
                self._set(name, value, origin, base, spelled=f"{name} in {origin}")
                continue
            entries = self._table(name, value, origin)
            for entry, options in entries.items():
                for key, option in self._table(f"{name}.{entry}", options, origin).items():
                    self._set_in(name, entry, key, option, origin, spelled=f"{name}.{entry}.{key} in {origin}")

    def _table(self, name: str, value: object, origin: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise UsageError(f"{name} in {origin} must be a table, not {value!r}")
        return value

    def _environment(self, environ: Mapping[str, str]) -> None:
        for variable in sorted(environ):
            if not variable.startswith(PREFIX) or variable in ELSEWHERE:
                continue
            parts = variable.removeprefix(PREFIX).split("__")
            table = parts[0].lower()
            text = environ[variable]
            if table not in _TABLES:
                self._set("__".join(parts).lower(), text, variable, self.cwd, spelled=variable)
                continue
            if len(parts) < 3:
                example = f"{PREFIX}{table.upper()}__NAME__{_TABLES[table][0].name.upper()}"
                raise UsageError(f"{variable} names no setting of one of the {table}; write for example {example}")
            entry, key = self._entry(table, parts[1]), parts[2].lower()
            if len(parts) > 3:
                texts = {**(self.tables[table].get(entry, {}).get(key) or {}), "__".join(parts[3:]): text}
                self._set_in(table, entry, key, texts, variable, spelled=variable)
            else:
                self._set_in(table, entry, key, text, variable, spelled=variable)

    def _entry(self, table: str, capitals: str) -> str:
        """The name that a variable means: variables are in capitals and cannot hold `-` and `.`, names can."""
        plain = capitals.replace("-", "_").replace(".", "_").lower()
        for name in self.tables[table]:
            if name.replace("-", "_").replace(".", "_").lower() == plain:
                return name
        return capitals.lower()

    def _set(self, name: str, value: Any, origin: str, base: Path, *, spelled: str) -> None:
        setting = self.top.get(name)
        if setting is None:
            if name.split("__", maxsplit=1)[0] in _LATER:
                _not_built(spelled)
            known = [*self.top, *_TABLES]
            if origin.startswith(PREFIX):
                known = [PREFIX + other.upper() for other in known]
                name = origin
            raise UsageError(f"unknown setting {spelled}{nearest(name, known)}")
        self.values[name] = self._placed(setting, _converted(setting, value, spelled, origin), base)
        self.origins[name] = origin

    def _set_in(self, table: str, entry: str, key: str, value: Any, origin: str, *, spelled: str) -> None:
        if not re.fullmatch(_NAMES[table], entry):
            raise UsageError(f"{spelled}: {entry!r} is no name for one of the {table}: it must match {_NAMES[table]}")
        setting = next((row for row in _TABLES[table] if row.name == key), None)
        if setting is None:
            if key in _LATER_IN[table]:
                _not_built(spelled)
            raise UsageError(f"unknown setting {spelled}{nearest(key, [row.name for row in _TABLES[table]])}")
        self.tables[table].setdefault(entry, {})[key] = _converted(setting, value, spelled, origin)
        self.origins[f"{table}.{entry}.{key}"] = origin

    def _placed(self, setting: Setting, value: Any, base: Path) -> Any:
        """Paths made absolute from the folder they were written in."""
        if setting.type is Path and value is not None:
            return Path(os.path.normpath(base / Path(value).expanduser()))
        if setting.type is list:
            if setting.name in ("plugins", "handlers"):
                return tuple(_path_or_module(text, base) for text in value)
            return tuple(value)
        return value


def _path_or_module(text: str, base: Path) -> str:
    path = base / Path(text).expanduser()
    if "/" in text or text.endswith(".py") or text.startswith((".", "~")) or path.is_dir():
        return os.path.normpath(path)
    return text


def _not_built(spelled: str) -> NoReturn:
    raise UsageError(f"{spelled} is not built yet: this version of kflow would not honour it, so take it out")


def _converted(setting: Setting, value: Any, spelled: str, origin: str) -> Any:
    """The value in the setting's type; UsageError with the range where it does not fit.

    A variable or a flag is text that spells its value; in a file, text is text.
    """
    if isinstance(value, str) and value in setting.later:
        _not_built(f"{spelled} = {value!r}")
    if isinstance(value, str) and not origin.endswith(".toml"):
        converted = _parsed(setting.type, value)
    else:
        converted = _typed(setting.type, value)
    fits = converted is not None
    if fits and setting.choices:
        fits = converted in setting.choices
    if fits and setting.pattern:
        fits = re.fullmatch(setting.pattern, converted) is not None
    if fits and setting.minimum is not None and setting.maximum is not None:
        fits = setting.minimum <= converted <= setting.maximum
    if not fits:
        close = nearest(value, setting.choices) if isinstance(value, str) and setting.choices else ""
        raise UsageError(f"{spelled} must be {setting.expected}, not {value!r}{close}")
    return converted


def _parsed(kind: type, text: str) -> Any:
    """What `text` spells as a `kind`; None where it spells none."""
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return None
    if kind is list:
        return [part.strip() for part in text.split(",") if part.strip()]
    return _typed(kind, text)


def _typed(kind: type, value: Any) -> Any:
    """`value` as a `kind`; None where it is none."""
    if kind is list:
        texts = isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, str) for v in value)
        return list(value) if texts else None
    if kind is dict:
        texts = isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())
        return dict(value) if texts else None
    if kind is Path:
        return value if isinstance(value, (str, Path)) and str(value) else None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is kind else None
