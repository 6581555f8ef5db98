"""The rule that says where puts go."""

from __future__ import annotations

from pathlib import Path

import pytest

from kflow.errors import UsageError
from kflow.producing import targets
from kflow.producing.targets import runtime, target


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable, no runtime, and a working folder without a project."""
    for name in (
        "KFLOW_TARGET",
        "KFLOW_DATA_DIR",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_KINESIS",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(targets, "_process_runtime", [])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def project(folder: Path, text: str = '[tool.kflow]\ndata_dir = "data"\n') -> None:
    (folder / "pyproject.toml").write_text(text)


def test_without_anything_the_error_says_what_would_help() -> None:
    with pytest.raises(UsageError, match=r"KFLOW_TARGET .* KFLOW_DATA_DIR, or work in a project"):
        target()


def test_credentials_alone_never_mean_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    with pytest.raises(UsageError):
        target()


def test_a_project_is_found_upward_and_its_data_folder_is_beside_its_file(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(nothing_set)
    below = nothing_set / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    assert target() == ("local", str(nothing_set / "data"), f"the project in {nothing_set}")


def test_another_working_folder_is_noticed(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (nothing_set / name).mkdir()
        project(nothing_set / name)
    monkeypatch.chdir(nothing_set / "one")
    assert target().where == str(nothing_set / "one" / "data")
    monkeypatch.chdir(nothing_set / "two")
    assert target().where == str(nothing_set / "two" / "data")


def test_a_named_data_folder_needs_no_project(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFLOW_DATA_DIR", str(nothing_set / "here"))

    assert target() == ("local", str(nothing_set / "here"), "KFLOW_DATA_DIR")


def test_an_endpoint_wins_over_a_project_and_its_own_variable_over_the_general_one(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(nothing_set)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert target() == ("endpoint", "http://127.0.0.1:1", "AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:2")
    assert target() == ("endpoint", "http://127.0.0.1:2", "AWS_ENDPOINT_URL_KINESIS")


def test_inside_lambda_it_is_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "bill")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")

    assert target() == ("aws", "eu-west-1", "inside Lambda")


def test_a_runtime_wins_over_lambda_and_endpoints(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "bill")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")

    with runtime(nothing_set / "runtime"):
        assert target() == ("local", str(nothing_set / "runtime"), "inside a kflow runtime")
    assert target().kind == "aws"


def test_a_worker_is_a_runtime_in_all_its_threads(nothing_set: Path) -> None:
    targets.set_process_runtime(nothing_set / "worker")

    assert target() == ("local", str(nothing_set / "worker"), "inside a kflow runtime")


def test_what_is_named_wins_over_everything(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFLOW_TARGET", "aws")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")

    with runtime(nothing_set / "runtime"):
        assert target() == ("aws", "eu-central-1", "KFLOW_TARGET")
        assert target("local") == ("local", str(nothing_set / "runtime"), "target=, inside a kflow runtime")
        assert target("http://127.0.0.1:4566") == ("endpoint", "http://127.0.0.1:4566", "target=")


def test_local_without_data_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFLOW_TARGET", "local")

    with pytest.raises(UsageError, match="KFLOW_TARGET is `local`, and nothing says which data"):
        target()


def test_a_target_that_is_none_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="target= must be `local`, `aws` or a URL, not 'lokal'; did you mean `local`"):
        target("lokal")
