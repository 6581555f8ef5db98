"""A handler that runs here cannot reach production by accident."""

from __future__ import annotations

from pathlib import Path

from kflow.runtime.environment import Reach, aws_variables, past_proxies, worker_environment


def test_everything_that_leads_to_real_credentials_is_gone(tmp_path: Path) -> None:
    inherited = {
        "PATH": "/bin",
        "AWS_PROFILE": "prod",
        "AWS_SESSION_TOKEN": "t",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/prod",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/token",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.2/",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_ENDPOINT_URL_S3": "https://s3.amazonaws.com",
        "AWS_ACCESS_KEY_ID": "AKIAREAL",
        "AWS_SECRET_ACCESS_KEY": "real",
    }

    made = worker_environment(inherited, data_dir=tmp_path, region="eu-west-1", reach=Reach(url="http://127.0.0.1:9"))

    assert made["PATH"] == "/bin"
    assert made["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
    assert made["AWS_REGION"] == made["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert "real" not in " ".join(made.values()).lower().replace("region", "")
    assert made["AWS_EC2_METADATA_DISABLED"] == "true"
    assert Path(made["AWS_CONFIG_FILE"]).read_bytes() == b""
    assert Path(made["AWS_SHARED_CREDENTIALS_FILE"]).read_bytes() == b""
    gone = set(inherited) - {"PATH", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert gone.isdisjoint(made)
    assert made["KFLOW_DATA_DIR"] == str(tmp_path)


def test_strict_authentication_and_a_certificate_of_our_own_are_known_to_handlers(tmp_path: Path) -> None:
    reach = Reach(url="https://127.0.0.1:9", access_key="AKIAONE", secret="one", ca_bundle="/c.pem")

    made = worker_environment({"AWS_CA_BUNDLE": "/corp.pem"}, data_dir=tmp_path, region="us-east-1", reach=reach)

    assert (made["AWS_ACCESS_KEY_ID"], made["AWS_SECRET_ACCESS_KEY"]) == ("AKIAONE", "one")
    assert made["AWS_CA_BUNDLE"] == "/c.pem"


def test_a_folder_that_is_not_there_is_not_made_for_an_empty_file(tmp_path: Path) -> None:
    made = aws_variables(Reach(url="http://127.0.0.1:9"), data_dir=tmp_path / "none", region="us-east-1")

    assert made["AWS_CONFIG_FILE"] == "/dev/null"
    assert not (tmp_path / "none").exists()


def test_a_proxy_is_kept_out_of_the_way_to_the_endpoint() -> None:
    assert past_proxies({}, "http://127.0.0.1:9") == {}
    assert past_proxies({"HTTP_PROXY": "http://p:1", "NO_PROXY": "corp"}, "http://127.0.0.1:9") == {
        "NO_PROXY": "corp,127.0.0.1",
        "no_proxy": "corp,127.0.0.1",
    }


def test_inherited_credentials_stay_and_what_kflow_keeps_is_here_all_the_same(tmp_path: Path) -> None:
    inherited = {
        "AWS_PROFILE": "prod",
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_S3": "https://s3.example.org",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    }

    made = worker_environment(
        inherited,
        data_dir=tmp_path,
        region="us-east-1",
        reach=Reach(url="http://127.0.0.1:9"),
        credentials="inherit",
    )

    assert made == {
        "AWS_PROFILE": "prod",
        "AWS_ENDPOINT_URL_S3": "https://s3.example.org",
        "AWS_ENDPOINT_URL_KINESIS": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_SNS": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_LAMBDA": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_CLOUDWATCH": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": "http://127.0.0.1:9",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "KFLOW_DATA_DIR": str(tmp_path),
        "KFLOW_TARGET": "local",
    }
