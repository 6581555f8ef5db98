"""`[tool.kflow.services]`: where calls of other services go."""

from __future__ import annotations

from pathlib import Path

import pytest

from kflow.errors import UsageError
from kflow.settings import load
from kflow.settings.services import Route, route


def write(folder: Path, text: str, name: str = "kflow.toml") -> None:
    (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("off", Route("off")),
        ("moto", Route("moto")),
        ("http://localhost:9000/", Route("url", "http://localhost:9000")),
        ("https://h.example.org/base", Route("url", "https://h.example.org/base")),
        ("http://[::1]:80", Route("url", "http://[::1]:80")),
        ("aws:dev", Route("aws", "dev")),
    ],
)
def test_a_value_means_a_way(text: str, meaning: Route) -> None:
    assert route(text, "services.s3") == meaning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "mot",
            "services.s3 must be one of off, moto, http://HOST:PORT, aws:PROFILE, not 'mot'; did you mean `moto`?",
        ),
        ("ftp://x", "services.s3 must be one of off, moto, http://HOST:PORT, aws:PROFILE, not 'ftp://x'"),
        ("aws:", "services.s3 must name a profile of ~/.aws/config, like 'aws:dev', not 'aws:'"),
        (
            "aws:default",
            (
                "services.s3 must name a profile of its own, not `default`, which so much falls back to by accident: "
                "give those credentials a name in ~/.aws/config, then write aws:NAME"
            ),
        ),
        ("http://", "services.s3 must be a URL like 'http://localhost:9000', not 'http://'"),
        ("http://h:99999", "services.s3 must be a URL like 'http://localhost:9000', not 'http://h:99999'"),
        ("http://h h", "services.s3 must be a URL like 'http://localhost:9000', not 'http://h h'"),
        (
            "http://me:secret@h",
            "services.s3 must be a URL of a host and perhaps a path, nothing more, not 'http://me:secret@h'",
        ),
    ],
)
def test_a_value_that_means_nothing_is_refused_with_what_it_may_be(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        route(text, "services.s3")
    assert str(refused.value) == message


def test_nothing_goes_anywhere_by_itself(tmp_path: Path) -> None:
    assert load(tmp_path, environ={}).services == {}


def test_each_source_changes_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    write(tmp_path, "[services]\ndefault = 'off'\ns3 = 'moto'\n'cognito-idp' = 'off'\n")
    write(tmp_path, "[services]\ns3 = 'aws:dev'\n", "kflow.local.toml")
    settings = load(tmp_path, environ={"KFLOW_SERVICES__COGNITO_IDP": "moto", "KFLOW_SERVICES__DYNAMODB": "off"})
    assert settings.services == {"default": "off", "s3": "aws:dev", "cognito-idp": "moto", "dynamodb": "off"}
    assert settings.origins["services.default"] == "kflow.toml"
    assert settings.origins["services.s3"] == "kflow.local.toml"
    assert settings.origins["services.cognito-idp"] == "KFLOW_SERVICES__COGNITO_IDP"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "dynamdb = 'moto'",
            "services.dynamdb in kflow.toml: AWS has no service of that name; did you mean `dynamodb`?",
        ),
        (
            "defualt = 'moto'",
            "services.defualt in kflow.toml: AWS has no service of that name; did you mean `default`?",
        ),
        (
            "s3 = 'on'",
            "services.s3 in kflow.toml must be one of off, moto, http://HOST:PORT, aws:PROFILE, not 'on'",
        ),
        ("s3 = 1", "services in kflow.toml must be a table of texts, not {'s3': 1}"),
    ],
)
def test_a_file_is_refused_with_the_nearest_name(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, f"[services]\n{text}\n")
    with pytest.raises(UsageError) as refused:
        load(tmp_path, environ={})
    assert str(refused.value) == message
