"""An endpoint for clients of other makers, and the environment that `kflow env` gives them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.project import KFLOW
from tests.served import Served, served


@contextmanager
def secured(folder: Path) -> Iterator[Served]:
    """An endpoint that speaks TLS too, at the same port; its `url` is of plain text."""
    with served(folder, "--tls") as made:
        yield made


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
