"""Where the packaged examples are: in the installed package, or in the checkout."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from kflow.errors import InternalError

FLIGHTS = Path("delays") / "flights-2013-01.csv.gz"


def functions() -> Path:
    """The folder of the example functions.

    A wheel carries it as `kflow/_functions`; in a checkout, and so in an editable install, it lies beside the package.

    Raises:
        InternalError: the package was built without it.
    """
    package = Path(str(importlib.resources.files("kflow")))
    for folder in (package / "_functions", package.parent / "functions"):
        if (folder / FLIGHTS).is_file():
            return folder
    raise InternalError(f"the example functions are missing from the package in {package}")
