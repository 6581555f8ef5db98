"""Where a value comes from: later wins.

Default, the project's file (`[tool.kflow]` of `pyproject.toml`, or `kflow.toml`), `kflow.local.toml` beside it,
`KFLOW_*` in the environment (nested with two underscores: `KFLOW_STREAMS__ORDERS__SHARDS`), a flag. The project is
found upward from the working folder. Relative paths are relative to the file they stand in; those of variables and of
flags to the working folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kflow.errors import UsageError
from kflow.settings import services
from kflow.settings.convert import convert, nearest, not_built
from kflow.settings.model import FunctionSettings, Settings, StreamSettings
from kflow.settings.table import LATER, LATER_IN, NAMES, SETTINGS, TABLES, Setting

PREFIX = "KFLOW_"
ELSEWHERE = frozenset({"KFLOW_TARGET"})
"""Variables with our prefix that are no settings: the target rule of `kflow.put` reads this one on each call."""


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
        self.strangers: list[str] = []

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
        self._refuse_strangers()
        self._check_together()
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
            if name not in TABLES:
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
            if table in self.top and self.top[table].type is dict and len(parts) == 2:
                key = services.entry(parts[1], self.values[table]) if table == "services" else parts[1]
                self._set(table, {**self.values[table], key: text}, variable, self.cwd, spelled=variable)
                continue
            if table not in TABLES:
                self._set("__".join(parts).lower(), text, variable, self.cwd, spelled=variable)
                continue
            if len(parts) < 3:
                example = f"{PREFIX}{table.upper()}__NAME__{TABLES[table][0].name.upper()}"
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
            if name.split("__", maxsplit=1)[0] in LATER:
                not_built(spelled)
            if origin.startswith(PREFIX):
                self.strangers.append(origin)
                return
            raise UsageError(f"unknown setting {spelled}{nearest(name, [*self.top, *TABLES])}")
        placed = self._placed(setting, convert(setting, value, spelled, origin), base)
        if name == "services":  # one of them is told from the others: whoever sets one leaves the rest as it is
            before = self.values[name]
            self.origins |= {f"{name}.{key}": origin for key, text in placed.items() if before.get(key) != text}
            placed = {**before, **placed}
        self.values[name] = placed
        self.origins[name] = origin

    def _check_together(self) -> None:
        """Refuse values that are right alone and wrong together."""
        if self.values["tls_key"] is not None and self.values["tls_cert"] is None:
            raise UsageError("tls_key is of no use without tls_cert: give both, or neither for a self-made certificate")
        if self.values["auth"] == "strict" and not self.values["access_keys"]:
            raise UsageError(
                "auth = 'strict' needs keys to check against: add [tool.kflow.access_keys] with lines like "
                "AKIAEXAMPLE = 'its secret', or set KFLOW_ACCESS_KEYS__AKIAEXAMPLE"
            )
        services.check(self.values["services"], self.origins)
        for name, options in self.tables["streams"].items():
            if options.get("mode") == "ON_DEMAND" and "shards" in options:
                raise UsageError(f"streams.{name}: an ON_DEMAND stream takes no `shards`, it begins with 4: drop one")

    def _refuse_strangers(self) -> None:
        """Variables that are no settings of ours may be a plugin's own; which those are is only looked up for one."""
        for variable in self.strangers:
            word = variable.removeprefix(PREFIX)
            if not any(word == name or word.startswith(f"{name}_") for name in self._plugin_names()):
                known = [PREFIX + name.upper() for name in (*self.top, *TABLES)]
                raise UsageError(f"unknown setting {variable}{nearest(variable, known)}")

    def _plugin_names(self) -> set[str]:
        """Names of the plugins that are installed or that the settings name, as they stand in variables."""
        from importlib.metadata import entry_points  # only ever needed for a variable that is no setting

        names = {point.name for point in entry_points(group="kflow")}
        names |= {
            Path(text).stem if "/" in text else text.rsplit(".", maxsplit=1)[-1] for text in self.values["plugins"]
        }
        return {name.lower().removeprefix("kflow_").replace("-", "_").upper() for name in names}

    def _set_in(self, table: str, entry: str, key: str, value: Any, origin: str, *, spelled: str) -> None:
        if not re.fullmatch(NAMES[table], entry):
            raise UsageError(f"{spelled}: {entry!r} is no name for one of the {table}: it must match {NAMES[table]}")
        setting = next((row for row in TABLES[table] if row.name == key), None)
        if setting is None:
            if key in LATER_IN[table]:
                not_built(spelled)
            raise UsageError(f"unknown setting {spelled}{nearest(key, [row.name for row in TABLES[table]])}")
        self.tables[table].setdefault(entry, {})[key] = convert(setting, value, spelled, origin)
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
