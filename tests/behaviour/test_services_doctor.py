"""`kflow doctor` says of each service that is to go elsewhere whether it could."""

from __future__ import annotations

from pathlib import Path

import pytest

from kflow.runtime.forwarding.checking import problems
from kflow.runtime.forwarding.moto import missing
from tests.upstreams import respond, upstream


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text("[dev]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.delenv("AWS_PROFILE", raising=False)


def test_what_works_is_no_problem() -> None:
    with upstream(lambda asked, handler: respond(handler, 200)) as behind:
        assert list(problems({"s3": behind.url, "iam": "aws:dev", "default": "off"}, ())) == []


def test_what_cannot_work_is_said_once_for_all_whom_it_hurts() -> None:
    (said,) = problems({"iam": "aws:prod", "default": "aws:prod"}, ())
    assert said == "services.iam, services.default: ~/.aws has no profile 'prod'; it has dev"
    (said,) = problems({"s3": "http://127.0.0.1:1"}, ())
    assert said.startswith("services.s3: nothing answers at http://127.0.0.1:1 now: ")
    (said,) = problems({"ses": "moto", "sesv2": "off"}, ())
    assert said.startswith("services.ses and services.sesv2 must be the same")


def test_moto_that_is_not_there_is_said() -> None:
    said = list(problems({"s3": "moto"}, ()))
    name = missing()
    assert said == (
        [f"services.s3: {name} is not installed beside kflow: pip install 'kflow-streams[moto]'"] if name else []
    )
