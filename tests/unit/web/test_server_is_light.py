"""The server is part of a node that starts in a fraction of a second and stays small."""

from __future__ import annotations

import subprocess
import sys

UNWANTED = {"asyncio", "cryptography", "email", "h2", "hpack", "http.client", "ssl", "urllib.request"}


def test_what_only_some_connections_need_is_imported_with_the_first_of_them():
    code = "import sys, kflow.web.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "kflow.web.http1" in loaded
    assert UNWANTED & set(loaded) == set()
