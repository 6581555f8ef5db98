"""A handler that runs here cannot reach production by accident."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kflow.runtime.environment import ClosedPort, safe_environment


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

    made = safe_environment(inherited, data_dir=tmp_path, region="eu-west-1", endpoint="http://127.0.0.1:9")

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


def test_a_connection_to_the_closed_port_is_refused() -> None:
    port = ClosedPort()
    place = urlsplit(port.url)

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((place.hostname, place.port), timeout=5)
    port.close()
