"""Fuzz under atheris, guided by the branches that inputs reach.

    python -m tests.fuzz                                   # the names of all targets
    python -m tests.fuzz http2 -max_total_time=180         # one, for three minutes; options are libFuzzer's
    python -m tests.fuzz --each 5                          # all, five seconds each

An input that breaks a promise is kept as `crash-...` in the working folder; `python -m tests.fuzz TARGET crash-...`
shows it again. Needs `pip install atheris` (Linux, CPython).
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run a target, or all."""
    try:
        import atheris
    except ImportError:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    if arguments[:1] == ["--each"]:
        from tests.fuzz.targets import TARGETS

        return max(_apart(name, arguments[1]) for name in TARGETS)
    with atheris.instrument_imports(include=["kflow", "h2", "hpack", "hyperframe"]):
        from tests.fuzz.targets import TARGETS, Complaints
    if not arguments or arguments[0] not in TARGETS:
        print(*TARGETS, sep="\n")
        return 0 if not arguments else 2
    target = TARGETS[arguments[0]]
    logging.getLogger("kflow").addHandler(Complaints())
    logging.getLogger("kflow").propagate = False
    options = arguments[1:]
    with tempfile.TemporaryDirectory(prefix="kflow-fuzz-") as folder:
        if all(option.startswith("-") for option in options):
            seeds = Path(folder) / "seeds"
            seeds.mkdir()
            for number, seed in enumerate(target.seeds()):
                (seeds / f"{number:04}").write_bytes(seed)
            options.append(str(seeds))
        if target.words:
            words = Path(folder) / "words"
            words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words))
            options.append(f"-dict={words}")
        atheris.Setup([sys.argv[0], *options], target.check)
        atheris.Fuzz()
    return 0


def _apart(name: str, seconds: str) -> int:
    """In a process of its own, which ends with the fuzzing; quiet unless something is found."""
    command = [sys.executable, "-m", "tests.fuzz", name, f"-max_total_time={seconds}"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    last = [line for line in done.stdout.splitlines() if line.startswith("Done")]
    print(f"{name}: {last[-1] if last and not done.returncode else done.stdout}", flush=True)
    return done.returncode


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
