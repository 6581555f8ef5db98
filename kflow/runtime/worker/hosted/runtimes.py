"""Which program runs a function: by the name of its runtime on AWS, from what this machine has.

    python3.X     that interpreter, if it runs here, else kflow's own; AWS's own client (`awslambdaric`) where it can be
                  imported, else a client of ours
    nodejsX.x     the `node` on PATH, whatever its version; AWS's own client where it is found, else one of ours
    provided...   `bootstrap`, from the code, else from a layer

The wrapper of `AWS_LAMBDA_EXEC_WRAPPER` runs the first two. A layer is no `/opt` here: its folders stand in the search
paths instead, so that what is found by name is found, and what is opened as `/opt/...` is not.

Source: documented: Lambda Developer Guide, lambda-runtimes, packaging-layers, runtimes-custom.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from kflow.declarations import Package
from kflow.runtime.worker.hosted import places

HERE: Final = Path(__file__).parent / "clients"
"""Where kflow's own clients of the Runtime API are."""
_PYTHON: Final = re.compile(r"python3\.(\d+)")
_NODE: Final = re.compile(r"nodejs(\d+)\.x")
_PROBE_S: Final = 20
SUPPORTED: Final = "python3.X, nodejsX.x and provided.*"


WRAPPER: Final = "AWS_LAMBDA_EXEC_WRAPPER"
_REFUSE: Final = 'echo "$0: $1"; exit "$2"'


class Unsupported(Exception):
    """This machine has nothing that runs the function; the text says what is missing."""


class Program(NamedTuple):
    """How a function is run.

    Attributes:
        arguments: the command.
        frames: whether the client knows the descriptor for frames of its log.
        note: what is not as the runtime's name says, for the log; empty where all is.
    """

    arguments: list[str]
    frames: bool = False
    note: str = ""


def program(package: Package) -> Program:
    """What runs a function.

    Raises:
        Unsupported: nothing here does.
    """
    runtime = package.runtime
    if match := _PYTHON.fullmatch(runtime):
        return _python(package, int(match[1]))
    if _NODE.fullmatch(runtime):
        return _node(package)
    if runtime.startswith("provided"):
        return _provided(package)
    raise Unsupported(f"kflow cannot run the runtime {runtime}: it runs {SUPPORTED}")


def wrapped(program: Program, package: Package, wrapper: str) -> Program:
    """How a function is run by a wrapper: a program that is given the command of a managed runtime.

    Args:
        program: without it.
        package: of the function.
        wrapper: as the user has it, with `/var/task` or `/opt`; empty: there is none.

    Source: documented: runtimes-modify; recorded: exit status 127 where it is not there, and the text.
    """
    if not wrapper or package.runtime.startswith("provided"):
        return program
    found = next((each for each in places.here(wrapper, package) if Path(each).is_file()), "")
    if found and os.access(found, os.X_OK):
        return program._replace(arguments=[found, *program.arguments])
    why = ["is not an executable", "126"] if found else ["does not exist", "127"]
    return program._replace(arguments=["/bin/sh", "-c", _REFUSE, wrapper, *why])


def left_out(package: Package) -> str:
    """What the layers have and nobody runs, for the log; empty where there is nothing of it."""
    names = {each.name for layer in package.layers for each in Path(layer, "extensions").glob("*") if each.is_file()}
    return f"extensions of layers do not run here: {', '.join(sorted(names))}" if names else ""


def _python(package: Package, minor: int) -> Program:
    interpreter, note = sys.executable, ""
    if minor != sys.version_info.minor:
        found = _interpreter(f"python3.{minor}")
        if found:
            interpreter = found
        else:
            note = (
                f"there is no python3.{minor} on PATH: the function runs on Python "
                f"{sys.version_info.major}.{sys.version_info.minor}, kflow's own"
            )
    client = os.fspath(HERE / "python_client.py")
    # -P: the client's own folder is not where modules are looked for; older ones do not know the option
    options = ["-P"] if minor >= 11 or note else []
    return Program([interpreter, *options, client, package.entry], frames=True, note=note)


@functools.cache
def _interpreter(name: str) -> str:
    """The path of an interpreter that runs; empty where there is none. What is on PATH may be an empty shell."""
    found = shutil.which(name)
    if found is None:
        return ""
    try:
        said = subprocess.run(
            [found, "-c", "import sys; print(sys.executable)"],
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()


def _node(package: Package) -> Program:
    node = shutil.which("node")
    if node is None:
        raise Unsupported(f"the runtime {package.runtime} needs `node` on PATH, which is not there")
    for folder in node_folders(package):
        entry = _bin_of(folder / "aws-lambda-ric")
        if entry is not None:
            return Program([node, os.fspath(entry), package.entry])
    return Program([node, os.fspath(HERE / "node_client.mjs"), package.entry])


def _bin_of(module: Path) -> Path | None:
    """The program of an installed Node.js module."""
    try:
        said = json.loads((module / "package.json").read_bytes())
    except (OSError, ValueError):
        return None
    programs = said.get("bin") if isinstance(said, dict) else None
    name = next(iter(programs.values()), None) if isinstance(programs, dict) else programs
    return module / name if isinstance(name, str) and (module / name).is_file() else None


def node_folders(package: Package) -> list[Path]:
    """Where Node.js modules of a function are, first the code's own."""
    major = (_NODE.fullmatch(package.runtime) or ["", ""])[1]
    layers = [Path(layer, "nodejs", name) for layer in reversed(package.layers) for name in (f"node{major}", "")]
    own = os.environ.get("NODE_PATH", "").split(os.pathsep)
    return [
        Path(package.code, "node_modules"),
        *(each / "node_modules" for each in layers),
        *map(Path, filter(None, own)),
    ]


def python_folders(package: Package) -> list[str]:
    """Where Python modules of layers are, the last layer first, as the last one wins on AWS."""
    version = package.runtime
    return [
        os.fspath(folder)
        for layer in reversed(package.layers)
        for folder in (Path(layer, "python", "lib", version, "site-packages"), Path(layer, "python"))
        if folder.is_dir()
    ]


def _provided(package: Package) -> Program:
    for folder in (package.code, *reversed(package.layers)):
        path = Path(folder, "bootstrap")
        if not path.is_file():
            continue
        if not os.access(path, os.X_OK):
            raise Unsupported(
                "`bootstrap` may not be executed: set its mode in the zip, for example with `chmod +x bootstrap`"
            )
        return Program([os.fspath(path)])
    raise Unsupported(f"the runtime {package.runtime} needs a file `bootstrap` in the code, or in a layer")
