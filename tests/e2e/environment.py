"""A fresh environment for wheels, as a user has one; only what the tests run with anyway is not fetched again."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, seconds: float = 180, **environment: str) -> str:
    """Run a command without this process's settings; fail with what it printed unless it exits with 0."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("KFLOW_", "AWS_", "PYTHON"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


class Environment:
    """A virtual environment that also sees the packages of the one that runs the tests, but not its kflow."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        variables = {"base": str(folder), "platbase": str(folder)}
        self.scripts = Path(sysconfig.get_path("scripts", "venv", variables))
        self.packages = Path(sysconfig.get_path("purelib", "venv", variables))
        self._folder = folder
        self.see(Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib")))

    def see(self, *folders: Path) -> None:
        """Make folders importable. Entry in a `.pth`: its own `.pth` files, an editable kflow, do not count."""
        path = self.packages / f"{folders[0].name}.pth"
        path.write_text("".join(f"{folder}\n" for folder in folders))

    def build(self, source: Path) -> Path:
        """Build the wheel of a distribution; pip fetches its build backend."""
        wheels = self._folder / "wheels" / source.name
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", wheels, source, cwd=self._folder)
        (wheel,) = wheels.glob("*.whl")
        return wheel

    def install(self, wheel: Path) -> None:
        """Install a wheel and nothing else."""
        python = self.scripts / "python"
        run(
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--no-deps",
            "--no-index",
            wheel,
            cwd=wheel.parent,
        )
