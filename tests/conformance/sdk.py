"""An endpoint as clients of other makers see it, and the environment that `kflow env` gives them."""

from __future__ import annotations

import json

from tests import commanding
from tests.served import Served


def plain(endpoint: Served) -> str:
    """Its URL without TLS."""
    return endpoint.url.replace("https://", "http://")


def environment(endpoint: Served) -> dict[str, str]:
    """That of a shell which has run `eval "$(kflow env)"`."""
    done = commanding.run(["env", "--json"], cwd=endpoint.folder, env=endpoint.environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    inherited = {name: value for name, value in endpoint.environment.items() if name not in told["unset"]}
    return {**inherited, **told["set"]}
