"""Where what Lambda calls `/var/task` and `/opt` is on this machine: the folders of the code, and of the layers.

Only what kflow itself reads is translated: variables that hold search paths, and the wrapper of a runtime.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from kflow.declarations import Package

_TASK: Final = "/var/task"
_LAYERS: Final = "/opt"
SEARCHED: Final = ("PATH", "PYTHONPATH", "NODE_PATH", "LD_LIBRARY_PATH")
"""Variables that hold search paths."""


def here(path: str, package: Package) -> list[str]:
    """A path of Lambda's as paths of this machine, as far as they exist; any other as it is.

    Args:
        path: as the user has it.
        package: the function's code; of its layers the last one comes first, as it wins on AWS.
    """
    for root, folders in ((_TASK, (package.code,)), (_LAYERS, package.layers[::-1])):
        if path == root or path.startswith(f"{root}/"):
            found = [Path(folder, path[len(root) + 1 :]) for folder in folders]
            return [os.fspath(each) for each in found if each.exists()]
    return [path]


def search_path(value: str, package: Package) -> str:
    """The value of a variable that holds a search path."""
    return os.pathsep.join(each for path in value.split(os.pathsep) for each in here(path, package))
