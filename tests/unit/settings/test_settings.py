"""Where a setting's value comes from, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from kflow.errors import UsageError
from kflow.settings import SETTINGS, FunctionSettings, StreamSettings, load, nearest


def project(folder: Path, text: str, name: str = "kflow.toml") -> Path:
    (folder / name).write_text(text)
    return folder


def refused(folder: Path, text: str = "", environ: dict | None = None, **overrides: object) -> str:
    if text:
        project(folder, text)
    with pytest.raises(UsageError) as caught:
        load(folder, environ=environ or {}, overrides=overrides)
    return str(caught.value)


def test_defaults_hold_where_nobody_sets_anything(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={})
    assert settings.project is None
    assert settings.data_dir == tmp_path / ".kflow"
    assert settings.handlers == (str(tmp_path / "functions"),)
    assert (settings.fsync, settings.region, settings.account) == ("interval", "us-east-1", "123456789012")
    assert (settings.max_workers, settings.retry_backoff_scale, settings.worker_start) == (8, 1.0, "auto")
    assert not settings.has_home
    assert settings.stream("orders") == StreamSettings(shards=1, retention_hours=24, max_record_size_in_kib=1024)
    assert settings.function("bill") == FunctionSettings(timeout=None, memory_size=None, environment=None)


def test_the_project_is_found_upward_and_paths_are_relative_to_its_file(tmp_path: Path) -> None:
    project(tmp_path, '[tool.kflow]\ndata_dir = "data"\nhandlers = ["src/app.py"]\n', "pyproject.toml")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    settings = load(below, environ={})
    assert settings.project == tmp_path
    assert settings.data_dir == tmp_path / "data"
    assert settings.handlers == (str(tmp_path / "src" / "app.py"),)
    assert settings.has_home


def test_a_pyproject_without_our_table_is_no_project(tmp_path: Path) -> None:
    project(tmp_path, "[tool.other]\nx = 1\n", "pyproject.toml")
    assert load(tmp_path, environ={}).project is None


def test_a_folder_whose_data_somebody_began_is_a_project_without_a_file(tmp_path: Path) -> None:
    (tmp_path / ".kflow").mkdir()
    (tmp_path / ".kflow" / "FORMAT").write_text("{}")
    (tmp_path / "below").mkdir()
    settings = load(tmp_path / "below", environ={})
    assert (settings.project, settings.file) == (tmp_path, None)
    assert settings.data_dir == tmp_path / ".kflow"


def test_later_wins_default_file_local_file_variable_flag(tmp_path: Path) -> None:
    project(tmp_path, 'region = "eu-west-1"\naccount = "000000000001"\nmax_workers = 1\nfsync = "none"\n')
    project(tmp_path, 'account = "000000000002"\nmax_workers = 2\nfsync = "none"\n', "kflow.local.toml")
    settings = load(
        tmp_path, environ={"KFLOW_MAX_WORKERS": "3", "KFLOW_FSYNC": "none"}, overrides={"fsync": "interval"}
    )
    assert (settings.region, settings.account, settings.max_workers, settings.fsync) == (
        "eu-west-1",
        "000000000002",
        3,
        "interval",
    )
    assert settings.origins == {
        "region": "kflow.toml",
        "account": "kflow.local.toml",
        "max_workers": "KFLOW_MAX_WORKERS",
        "fsync": "--fsync",
    }
    assert settings.given("region")
    assert not settings.given("worker_start")


def test_a_flag_that_is_none_was_not_given(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={}, overrides={"max_workers": None})
    assert (settings.max_workers, settings.given("max_workers")) == (8, False)


def test_a_relative_folder_in_a_variable_is_relative_to_the_working_folder(tmp_path: Path) -> None:
    project(tmp_path, "")
    below = tmp_path / "below"
    below.mkdir()
    assert load(below, environ={"KFLOW_DATA_DIR": "d"}).data_dir == below / "d"


def test_streams_and_functions_are_tables_by_name(tmp_path: Path) -> None:
    project(
        tmp_path,
        "[streams.orders]\nshards = 2\nretention_hours = 48\n"
        '[functions.bill]\ntimeout = 10\nmemory_size = 256\nenvironment = {A = "1"}\n'
        "reserved_concurrent_executions = 0\n",
    )
    settings = load(tmp_path, environ={})
    assert settings.stream("orders") == StreamSettings(shards=2, retention_hours=48)
    assert settings.function("bill") == FunctionSettings(
        timeout=10, memory_size=256, environment={"A": "1"}, reserved_concurrent_executions=0
    )


def test_a_variable_in_capitals_means_the_stream_that_the_file_names(tmp_path: Path) -> None:
    project(tmp_path, "[streams.Order-Lines]\nshards = 2\n")
    settings = load(tmp_path, environ={"KFLOW_STREAMS__ORDER_LINES__SHARDS": "3", "KFLOW_STREAMS__CLICKS__SHARDS": "4"})
    assert settings.streams == {"Order-Lines": StreamSettings(shards=3), "clicks": StreamSettings(shards=4)}


def test_variables_of_a_function_are_added_one_by_one_and_keep_their_case(tmp_path: Path) -> None:
    project(tmp_path, '[functions.bill]\nenvironment = {A = "1"}\n')
    settings = load(tmp_path, environ={"KFLOW_FUNCTIONS__BILL__ENVIRONMENT__Stripe__Key": "s"})
    assert settings.function("bill").environment == {"A": "1", "Stripe__Key": "s"}


def test_a_list_in_a_variable_is_separated_by_commas(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"KFLOW_PLUGINS": "./metrics.py, other.module"})
    assert settings.plugins == (str(tmp_path / "metrics.py"), "other.module")


def test_the_target_variable_is_no_setting(tmp_path: Path) -> None:
    assert load(tmp_path, environ={"KFLOW_TARGET": "local"}).origins == {}


def test_a_plugins_own_variables_are_no_settings(tmp_path: Path) -> None:
    environ = {"KFLOW_PLUGINS": "plugins/kflow_jsonl.py", "KFLOW_JSONL": "x", "KFLOW_JSONL_LEVEL": "y"}
    assert load(tmp_path, environ=environ).given("plugins")
    assert refused(tmp_path, environ={**environ, "KFLOW_JSONLL": "x"}).startswith("unknown setting KFLOW_JSONLL")


def test_without_files_no_project_is_looked_for(tmp_path: Path) -> None:
    project(tmp_path, "nonsense = 1\n")
    assert load(tmp_path, environ={}, files=False).project is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('data_dri = "x"', "unknown setting data_dri in kflow.toml; did you mean `data_dir`?"),
        ("max_workers = 0", "max_workers in kflow.toml must be a whole number from 1 to 512 processes, not 0"),
        ('max_workers = "8"', "max_workers in kflow.toml must be a whole number from 1 to 512 processes, not '8'"),
        ("max_workers = true", "max_workers in kflow.toml must be a whole number from 1 to 512 processes, not True"),
        ("retry_backoff_scale = -1", "retry_backoff_scale in kflow.toml must be a number from 0 to 100, not -1"),
        (
            'fsync = "intervall"',
            "fsync in kflow.toml must be one of none, interval, always, not 'intervall'; did you mean `interval`?",
        ),
        ("port = 65536", "port in kflow.toml must be a whole number from 0 to 65535, not 65536"),
        ('bind = "a b"', "bind in kflow.toml must be text like '127.0.0.1', not 'a b'"),
        ('auth = "strikt"', "auth in kflow.toml must be one of none, strict, not 'strikt'; did you mean `strict`?"),
        (
            'auth = "strict"',
            (
                "auth = 'strict' needs keys to check against: add [tool.kflow.access_keys] with lines like "
                "AKIAEXAMPLE = 'its secret', or set KFLOW_ACCESS_KEYS__AKIAEXAMPLE"
            ),
        ),
        (
            'tls_key = "a.pem"',
            "tls_key is of no use without tls_cert: give both, or neither for a self-made certificate",
        ),
        (
            "[stages.prod]",
            "stages in kflow.toml is not built yet in this version of kflow: take it out",
        ),
        ('account = "12"', "account in kflow.toml must be text like '123456789012', not '12'"),
        ("plugins = 3", "plugins in kflow.toml must be a list of texts, not 3"),
        ('data_dir = ""', "data_dir in kflow.toml must be a path, not ''"),
        ("streams = 3", "streams in kflow.toml must be a table, not 3"),
        (
            "[streams.orders]\nshard = 2",
            "unknown setting streams.orders.shard in kflow.toml; did you mean `shards`?",
        ),
        (
            "[streams.orders]\nshards = 1001",
            "streams.orders.shards in kflow.toml must be a whole number from 1 to 1000 shards, not 1001",
        ),
        (
            '[streams.orders]\nmode = "ON_DEMAND"\nshards = 2',
            "streams.orders: an ON_DEMAND stream takes no `shards`, it begins with 4: drop one",
        ),
        (
            "[functions.bill]\ntimeout = 901",
            "functions.bill.timeout in kflow.toml must be a whole number from 1 to 900 seconds, not 901",
        ),
        (
            "[functions.bill]\nenvironment = {A = 1}",
            "functions.bill.environment in kflow.toml must be a table of texts, not {'A': 1}",
        ),
    ],
)
def test_a_file_is_refused_with_the_fix(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text) == message


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("KFLOW_FSYN", "none", "unknown setting KFLOW_FSYN; did you mean `KFLOW_FSYNC`?"),
        ("KFLOW_MAX_WORKERS", "many", "KFLOW_MAX_WORKERS must be a whole number from 1 to 512 processes, not 'many'"),
        ("KFLOW_RETRY_BACKOFF_SCALE", "nan", "KFLOW_RETRY_BACKOFF_SCALE must be a number from 0 to 100, not 'nan'"),
        (
            "KFLOW_STREAMS__ORDERS",
            "1",
            (
                "KFLOW_STREAMS__ORDERS names no setting of one of the streams; "
                "write for example KFLOW_STREAMS__NAME__SHARDS"
            ),
        ),
        (
            "KFLOW_STAGES__PROD__REGION",
            "x",
            "KFLOW_STAGES__PROD__REGION is not built yet in this version of kflow: take it out",
        ),
    ],
)
def test_a_variable_is_refused_with_the_fix(tmp_path: Path, variable: str, value: str, message: str) -> None:
    assert refused(tmp_path, environ={variable: value}) == message


def test_an_unknown_flag_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, regoin="x") == "unknown setting --regoin; did you mean `region`?"


def test_toml_that_does_not_parse_names_the_file(tmp_path: Path) -> None:
    assert refused(tmp_path, "a = = 1").startswith(f"{tmp_path / 'kflow.toml'} is not valid TOML: ")


def test_two_settings_files_in_one_folder_are_refused(tmp_path: Path) -> None:
    project(tmp_path, "[tool.kflow]\n", "pyproject.toml")
    message = refused(tmp_path, 'region = "us-east-1"')
    assert message == f"{tmp_path} has kflow.toml and [tool.kflow] in pyproject.toml: keep one of them"


def test_rows_name_every_setting_with_its_origin(tmp_path: Path) -> None:
    project(tmp_path, "max_workers = 2\n[streams.orders]\nshards = 3\n")
    rows = list(load(tmp_path, environ={}).rows())
    assert [name for name, _, _ in rows] == [*(setting.name for setting in SETTINGS), "streams.orders.shards"]
    assert ("max_workers", 2, "kflow.toml") in rows
    assert ("fsync", "interval", "default") in rows
    assert ("streams.orders.shards", 3, "kflow.toml") in rows


def test_secrets_come_from_a_file_and_from_variables_and_are_shown_nowhere(tmp_path: Path) -> None:
    project(tmp_path, "[access_keys]\nAKIA0 = 'zero'\n")
    settings = load(tmp_path, environ={"KFLOW_ACCESS_KEYS__AKIA1": "one"})
    assert settings.access_keys == {"AKIA0": "zero", "AKIA1": "one"}
    shown = {name: (value, origin) for name, value, origin in settings.rows()}
    assert shown["access_keys"] == ({"AKIA0": "(secret)", "AKIA1": "(secret)"}, "KFLOW_ACCESS_KEYS__AKIA1")
    assert "zero" not in repr(settings)


def test_settings_cross_processes(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"KFLOW_STREAMS__ORDERS__SHARDS": "2"})
    assert pickle.loads(pickle.dumps(settings)) == settings  # our own bytes


def test_nothing_near_is_not_suggested() -> None:
    assert nearest("zzzz", ["region", "account"]) == ""
