"""Finds plugins and calls their hooks, so that no plugin can take the runtime down.

pluggy registers and checks plugins (names of hooks and of their arguments). The calling is done here and not by
pluggy, whose call ends at the first exception: each plugin's hook is called by itself, and is counted by itself.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import pluggy

from kflow.errors import PluginError, UsageError
from kflow.plugins import hookspecs
from kflow.plugins.hookspecs import PROJECT

FAILURES_IN_A_ROW = 5
"""Exceptions in a row after which one hook of one plugin is switched off."""

_log = logging.getLogger(__name__)


class LoadedPlugin(NamedTuple):
    """One plugin, as `kflow plugins` shows it.

    Attributes:
        name: what messages call it.
        origin: the distribution and its version, the file, or the module it came from.
        hooks: names of the hooks it implements, sorted.
    """

    name: str
    origin: str
    hooks: tuple[str, ...]


class _Found(NamedTuple):
    """A plugin that is imported and not yet registered; a file and the wheel of it have the same `module`."""

    name: str
    origin: str
    module: str
    plugin: object


class _Wired:
    """One hook of one plugin: the call, and how often it failed in a row."""

    __slots__ = ("arguments", "call", "failures", "plugin")

    def __init__(self, plugin: str, implementation: pluggy.HookImpl) -> None:
        self.plugin = plugin
        self.call = implementation.function
        self.arguments = tuple(implementation.argnames)
        self.failures = 0


class PluginManager:
    """The plugins of one runtime. `load` makes it; one thread calls `call`; the rest may be asked from any thread."""

    def __init__(self, found: Iterable[_Found] = ()) -> None:
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._wired: dict[str, list[_Wired]] = {}
        self._names: list[LoadedPlugin] = []
        for each in found:
            self._register(each)

    @classmethod
    def load(cls, settings_plugins: Sequence[str] = (), *, base: Path | None = None) -> PluginManager:
        """Import and register every plugin: those of the settings first, then those that are installed.

        A plugin that is installed and also named in the settings is loaded once, as the settings say: this is how the
        copy that is being worked on replaces the installed one.

        Args:
            settings_plugins: for each a path (of a `.py` file, or of a folder that is a package) or a module's name.
            base: what relative paths are relative to; the working folder if None.

        Raises:
            UsageError: no such file or module; no hook in it; a hook or an argument that does not exist.
            PluginError: the plugin raised while it was imported; names the plugin and the line.
        """
        found = [_from_settings(text, base or Path.cwd()) for text in settings_plugins]
        named = {each.module for each in found}
        for each in _installed():
            if each.module in named:
                _log.info("plugin=%s origin=%s the settings name another copy, which is used", each.name, each.origin)
            else:
                found.append(each)
        return cls(found)

    def names(self) -> list[LoadedPlugin]:
        """The loaded plugins, in the order in which their hooks are called."""
        return list(self._names)

    def wants(self, hook_name: str) -> bool:
        """Whether any plugin still listens to this hook; where none does, nothing need be prepared for it."""
        return bool(self._wired.get(hook_name))

    def call(self, hook_name: str, **arguments: Any) -> list[Any]:
        """Call one hook of every plugin that has it, one after the other. Never raises what a plugin raised.

        Args:
            hook_name: a function of `hookspecs`.
            arguments: all the arguments of that function, by name.

        Returns:
            What the plugins returned, in the order of `names`, without None.
        """
        results = []
        for wired in tuple(self._wired.get(hook_name, ())):
            wanted = {name: arguments[name] for name in wired.arguments}
            try:
                result = wired.call(**wanted)
            except Exception:  # noqa: BLE001 whatever a plugin raises; it is logged
                self._failed(hook_name, wired)
            else:
                wired.failures = 0
                if result is not None:
                    results.append(result)
        return results

    def _failed(self, hook_name: str, wired: _Wired) -> None:
        """Log the exception at hand, and switch the hook off when it was one too many."""
        wired.failures += 1
        _log.exception("plugin=%s hook=%s failures_in_a_row=%d", wired.plugin, hook_name, wired.failures)
        if wired.failures >= FAILURES_IN_A_ROW:
            self._wired[hook_name].remove(wired)
            _log.error(
                "plugin=%s hook=%s is off until the next start: it raised %d times in a row",
                wired.plugin, hook_name, wired.failures,
            )  # fmt: skip

    def _register(self, found: _Found) -> None:
        if any(each.name == found.name for each in self._names):
            raise UsageError(
                f"two plugins are called {found.name!r}; the second is {found.origin}: name one of them only"
            )
        try:
            self._pluggy.register(found.plugin, found.name)
            self._pluggy.check_pending()
        except pluggy.PluginValidationError as error:
            raise UsageError(f"plugin {found.name} ({found.origin}): {_explain(error)}") from error
        hooks: list[str] = []
        for caller in self._pluggy.get_hookcallers(found.plugin) or ():
            (implementation,) = (each for each in caller.get_hookimpls() if each.plugin is found.plugin)
            if implementation.hookwrapper or implementation.wrapper:
                raise UsageError(
                    f"plugin {found.name} ({found.origin}): {caller.name} is a wrapper, and kflow calls each plugin's "
                    "hook by itself: take wrapper=True away"
                )
            if caller.spec is None:  # optionalhook=True, and a kflow without that hook
                continue
            hooks.append(caller.name)
            self._wired.setdefault(caller.name, []).append(_Wired(found.name, implementation))
        if not hooks:
            raise UsageError(
                f"plugin {found.name} ({found.origin}) has no hook: mark its functions with "
                "@hookimpl (from kflow.plugins import hookimpl)"
            )
        self._names.append(LoadedPlugin(found.name, found.origin, tuple(sorted(hooks))))


def _explain(error: pluggy.PluginValidationError) -> str:
    """What is wrong with the plugin, with the nearest hook for one that does not exist."""
    text = " ".join(str(error).split())
    unknown = re.match(r"unknown hook '(\w+)'", text)
    if unknown is None:
        return text
    hooks = sorted(name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), f"{PROJECT}_spec"))
    near = get_close_matches(unknown[1], hooks, n=1, cutoff=0.4)
    return f"there is no hook {unknown[1]!r}; " + (
        f"did you mean {near[0]!r}?" if near else f"hooks: {', '.join(hooks)}"
    )


def _installed() -> list[_Found]:
    """The plugins of installed distributions, by name, so that the order does not depend on the file system."""
    found = []
    for point in sorted(importlib.metadata.entry_points(group=PROJECT)):
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        try:
            plugin = point.load()
        except Exception as error:
            raise PluginError(
                f"plugin {point.name} ({origin}) cannot be imported: {_where(error)}; mend it or uninstall it"
            ) from error
        found.append(_Found(point.name, origin, point.module, plugin))
    return found


def _from_settings(text: str, base: Path) -> _Found:
    """Import what one entry of `plugins = [...]` names."""
    path = base / Path(text).expanduser()
    if path.exists() or "/" in text or text.endswith(".py"):
        return _from_path(text, path.resolve())
    try:
        module = importlib.import_module(text)
    except ModuleNotFoundError as error:
        if error.name is not None and (text == error.name or text.startswith(f"{error.name}.")):
            raise UsageError(
                f"plugins names {text!r}, which is neither a file below {base} nor a module that can be imported"
            ) from error
        raise PluginError(f"plugin {text} cannot be imported: {_where(error)}") from error
    except Exception as error:
        raise PluginError(f"plugin {text} cannot be imported: {_where(error)}") from error
    return _Found(text, module.__file__ or text, text, module)


def _from_path(text: str, path: Path) -> _Found:
    """Import a file, or a folder with an `__init__.py`, under its own name, whatever `sys.path` holds."""
    source = path / "__init__.py" if path.is_dir() else path
    if not source.is_file():
        raise UsageError(f"plugins names {text!r}: there is no {source}")
    # A name of its own, so that a plugin in `json.py` does not become everybody's `json`.
    name = f"_kflow_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, source)
    if spec is None or spec.loader is None:
        raise UsageError(f"plugins names {text!r}, which is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses, and the plugin's own submodules, look for it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(f"plugin {path.stem} ({source}) cannot be imported: {_where(error)}") from error
    return _Found(path.stem, str(source), path.stem, module)


def _where(error: Exception) -> str:
    """The exception and the innermost line it came from, as `Type: message (file:line)`."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):  # its text has the place already
        return text
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return text if trace is None else f"{text} ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"
