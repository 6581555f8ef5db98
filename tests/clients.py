"""boto3 clients of an endpoint, which read no configuration of this machine."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _models() -> Any:
    """What reads AWS's models: once for all clients, for it takes most of the time that it takes to make one."""
    from botocore.loaders import create_loader

    return create_loader()


def client(
    url: str,
    service: str = "kinesis",
    *,
    region: str = "us-east-1",
    access_key: str = "test",
    secret: str = "test",
    retries: int = 0,
    **arguments: Any,
) -> Any:
    """A client of one service; `arguments` are boto3's own."""
    import boto3
    import botocore.session
    from botocore.config import Config

    base = botocore.session.Session()
    base.register_component("data_loader", _models())
    session = boto3.session.Session(
        aws_access_key_id=access_key, aws_secret_access_key=secret, region_name=region, botocore_session=base
    )
    config = Config(
        retries={"max_attempts": retries, "mode": "standard"}, connect_timeout=30, read_timeout=60, proxies={}
    )
    return session.client(service, **{"endpoint_url": url, "config": config, **arguments})
