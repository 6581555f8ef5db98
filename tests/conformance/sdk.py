"""An endpoint as clients of other makers see it, and the environment that `kflow env` gives them."""

from __future__ import annotations

import json
import subprocess

from tests.project import KFLOW
from tests.served import Served


def plain(endpoint: Served) -> str:
    """Its URL without TLS."""
    return endpoint.url.replace("https://", "http://")


def environment(endpoint: Served) -> dict[str, str]:
    """That of a shell which has run `eval "$(kflow env)"`."""
    done = subprocess.run(
        [*KFLOW, "env", "--json"],
        cwd=endpoint.folder,
        env=endpoint.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = json.loads(done.stdout)
    inherited = {name: value for name, value in endpoint.environment.items() if name not in told["unset"]}
    return {**inherited, **told["set"]}
