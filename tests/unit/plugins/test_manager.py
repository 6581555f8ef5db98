"""Plugins are found, checked, called, and kept from doing harm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kflow.errors import PluginError, UsageError
from kflow.interfaces import BatchOutcome, BatchResult, RuntimeInfo
from kflow.plugins.manager import PluginManager

OUTCOME = BatchOutcome(
    function="bill", stream="orders", shard_id="shardId-000000000000", records=8, succeeded=8, result=BatchResult.OK
)
INFO = RuntimeInfo(data_dir="/data", functions=("bill",))

COUNTS = """
from kflow.plugins import hookimpl
seen = []
@hookimpl
def batch_done(outcome):
    seen.append(outcome.records)
    return len(seen)
"""
RAISES = """
from kflow.plugins import hookimpl
@hookimpl
def batch_done(outcome):
    if outcome.records == 8:
        raise ValueError("no room")
@hookimpl
def runtime_stopping(reason):
    return "stopped: " + reason
"""

Plugin = Callable[..., Path]


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    def write(source: str, name: str = "counts.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        return path

    return write


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Installs a distribution with one module and one entry point, as pip would lay it down."""

    def install(distribution: str, module: str, source: str) -> None:
        folder = tmp_path / "site"
        info = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[kflow]\n{module.removeprefix('kflow_')} = {module}\n")
        (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def test_without_plugins_nothing_is_wanted_and_a_call_does_nothing() -> None:
    manager = PluginManager()
    assert manager.names() == []
    assert not manager.wants("batch_done")
    assert manager.call("batch_done", outcome=OUTCOME) == []


def test_a_file_is_loaded_by_a_path_relative_to_the_settings(plugin: Plugin, tmp_path: Path) -> None:
    path = plugin(COUNTS)
    manager = PluginManager.load(["counts.py"], base=tmp_path)
    assert manager.names() == [("counts", str(path), ("batch_done",))]
    assert manager.wants("batch_done")
    assert not manager.wants("runtime_started")
    assert manager.call("batch_done", outcome=OUTCOME) == [1]
    assert manager.call("batch_done", outcome=OUTCOME) == [2]


def test_a_folder_is_loaded_as_a_package(plugin: Plugin, tmp_path: Path) -> None:
    plugin(COUNTS, "metrics/__init__.py")
    plugin("from kflow.plugins import hookimpl\n", "metrics/more.py")
    plugin(COUNTS + "\nfrom .more import hookimpl as same\n", "metrics/__init__.py")
    assert [name for name, _, _ in PluginManager.load(["metrics"], base=tmp_path).names()] == ["metrics"]


def test_a_module_is_loaded_by_its_name(plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plugin(COUNTS, "counts_by_module.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    manager = PluginManager.load(["counts_by_module"])
    assert manager.names() == [("counts_by_module", str(path), ("batch_done",))]


def test_an_installed_plugin_is_found_by_its_entry_point(installed: Callable[[str, str, str], None]) -> None:
    installed("kflow-tally", "kflow_tally", COUNTS)
    assert PluginManager.load().names() == [("tally", "kflow-tally 1.2", ("batch_done",))]


def test_a_file_in_the_settings_replaces_the_installed_copy(
    plugin: Plugin, installed: Callable[[str, str, str], None]
) -> None:
    installed("kflow-tally", "kflow_tally", COUNTS)
    path = plugin(COUNTS, "kflow_tally.py")
    assert PluginManager.load([str(path)]).names() == [("kflow_tally", str(path), ("batch_done",))]


def test_a_plugin_file_named_like_a_library_leaves_the_library_alone(plugin: Plugin) -> None:
    before = sys.modules["json"]
    PluginManager.load([str(plugin(COUNTS, "json.py"))])
    assert sys.modules["json"] is before


def test_a_hook_that_raises_is_logged_and_the_other_plugins_are_called(
    plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    manager = PluginManager.load([str(plugin(RAISES, "raises.py")), str(plugin(COUNTS))])
    assert manager.call("batch_done", outcome=OUTCOME) == [1]
    (record,) = caplog.records
    assert record.getMessage() == "plugin=raises hook=batch_done failures_in_a_row=1"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no room"


def test_a_hook_is_off_after_five_exceptions_in_a_row_and_only_that_hook(
    plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    manager = PluginManager.load([str(plugin(RAISES, "raises.py"))])
    for _ in range(7):
        manager.call("batch_done", outcome=OUTCOME)
    assert [record.getMessage() for record in caplog.records] == [
        "plugin=raises hook=batch_done failures_in_a_row=1",
        "plugin=raises hook=batch_done failures_in_a_row=2",
        "plugin=raises hook=batch_done failures_in_a_row=3",
        "plugin=raises hook=batch_done failures_in_a_row=4",
        "plugin=raises hook=batch_done failures_in_a_row=5",
        "plugin=raises hook=batch_done is off until the next start: it raised 5 times in a row",
    ]
    assert not manager.wants("batch_done")
    assert manager.call("runtime_stopping", reason="drained") == ["stopped: drained"]


def test_one_success_starts_the_count_anew(plugin: Plugin) -> None:
    manager = PluginManager.load([str(plugin(RAISES, "raises.py"))])
    other = BatchOutcome(
        function="bill", stream="orders", shard_id="shardId-000000000000", records=1, succeeded=1, result=BatchResult.OK
    )
    for _ in range(3):
        for outcome in (OUTCOME, OUTCOME, OUTCOME, OUTCOME, other):
            manager.call("batch_done", outcome=outcome)
    assert manager.wants("batch_done")


def test_hook_runtime_started_is_told_where_the_data_is(plugin: Plugin) -> None:
    source = "from kflow.plugins import hookimpl\n@hookimpl\ndef runtime_started(info):\n    return info.data_dir\n"
    assert PluginManager.load([str(plugin(source))]).call("runtime_started", info=INFO) == ["/data"]


def test_hook_batch_done_is_told_the_outcome(plugin: Plugin) -> None:
    source = "from kflow.plugins import hookimpl\n@hookimpl\ndef batch_done(outcome):\n    return outcome.function\n"
    assert PluginManager.load([str(plugin(source))]).call("batch_done", outcome=OUTCOME) == ["bill"]


def test_hook_runtime_stopping_names_only_the_arguments_it_wants(plugin: Plugin) -> None:
    source = "from kflow.plugins import hookimpl\n@hookimpl\ndef runtime_stopping():\n    return 'bye'\n"
    assert PluginManager.load([str(plugin(source))]).call("runtime_stopping", reason="SIGINT") == ["bye"]


def test_hook_shards_changed_is_told_the_shards_by_name(plugin: Plugin) -> None:
    hook = "@hookimpl\ndef shards_changed(closed, opened):\n    return closed + opened\n"
    source = f"from kflow.plugins import hookimpl\n{hook}"
    manager = PluginManager.load([str(plugin(source))])
    assert manager.call("shards_changed", stream="orders", closed=["a"], opened=["b", "c"]) == [["a", "b", "c"]]


def test_a_hook_of_a_later_kflow_may_be_optional(plugin: Plugin) -> None:
    source = COUNTS + "\n@hookimpl(optionalhook=True)\ndef records_parked(parked):\n    pass\n"
    (loaded,) = PluginManager.load([str(plugin(source))]).names()
    assert loaded.hooks == ("batch_done",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@hookimpl\ndef batch_don(outcome): pass", "plugin counts .*no hook 'batch_don'; did you mean 'batch_done'?"),
        (
            "@hookimpl\ndef xyzzy(): pass",
            "no hook 'xyzzy'; hooks: batch_done, runtime_started, runtime_stopping, shards_changed",
        ),
        ("@hookimpl\ndef batch_done(outcome, count): pass", "count"),
        ("@hookimpl(wrapper=True)\ndef batch_done(outcome):\n    yield", "batch_done is a wrapper"),
        ("def batch_done(outcome): pass", "has no hook: mark its functions with @hookimpl"),
    ],
)
def test_a_plugin_that_does_not_fit_is_refused_with_the_fix(plugin: Plugin, source: str, message: str) -> None:
    path = plugin("from kflow.plugins import hookimpl\n" + source + "\n")
    with pytest.raises(UsageError, match=message):
        PluginManager.load([str(path)])


def test_a_plugin_that_raises_while_it_is_imported_is_named_with_the_line(plugin: Plugin) -> None:
    path = plugin("\nraise RuntimeError('no licence')\n")
    with pytest.raises(PluginError, match=rf"plugin counts .*RuntimeError: no licence \({path}:2\)"):
        PluginManager.load([str(path)])


def test_an_installed_plugin_that_cannot_be_imported_is_named(installed: Callable[[str, str, str], None]) -> None:
    installed("kflow-tally", "kflow_tally", "import not_there\n")
    with pytest.raises(PluginError, match=r"plugin tally \(kflow-tally 1.2\) cannot be imported: ModuleNotFoundError"):
        PluginManager.load()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("nowhere.py", "there is no .*nowhere.py"),
        ("folder/nowhere", "there is no .*nowhere"),
        ("no_such_module", "neither a file below .* nor a module"),
        ("no_such.module", "neither a file below .* nor a module"),
    ],
)
def test_a_plugin_that_is_not_there_is_refused(tmp_path: Path, named: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PluginManager.load([named], base=tmp_path)


def test_two_plugins_of_one_name_are_refused(plugin: Plugin) -> None:
    first, second = plugin(COUNTS, "a/counts.py"), plugin(COUNTS, "b/counts.py")
    with pytest.raises(UsageError, match="two plugins are called 'counts'"):
        PluginManager.load([str(first), str(second)])
