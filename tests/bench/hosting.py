"""The process that `running.Node` starts: the real runtime, with nobody who listens to it.

    python -m tests.bench.hosting PARENT DATA_DIR MAX_WORKERS [--drain] [MODULE]

Says `ready` on standard output once everything runs.
"""

from __future__ import annotations

import os
import sys

from kflow import settings
from kflow.interfaces import BatchOutcome
from kflow.runtime import host
from kflow.runtime.feed import ReadyInfo, Summary
from kflow.runtime.lifeline import die_with_parent


class Quiet:
    """A listener that passes on nothing but warnings and errors."""

    def ready(self, info: ReadyInfo) -> None:
        """Everything runs."""

    def outcome(self, outcome: BatchOutcome) -> None:
        """A batch was settled, or failed: no bench wants that."""
        if outcome.error is not None:
            sys.stderr.write(f"bench handler failed: {outcome.error.type}: {outcome.error.message}\n")

    def notice(self, level: str, text: str) -> None:
        """Something to know."""
        if level != "info":
            sys.stderr.write(f"{level}: {text}\n")

    def stopped(self, summary: Summary) -> None:
        """The end."""


def main(argv: list[str]) -> int:
    """Run until stopped, or drained."""
    parent, data_dir, max_workers, *rest = argv
    die_with_parent(int(parent))
    drain = "--drain" in rest
    modules = [argument for argument in rest if argument != "--drain"]
    chosen = settings.load(files=False, overrides={"data_dir": data_dir, "max_workers": int(max_workers)})

    def ready(_node: object) -> None:
        os.write(1, b"ready\n")

    return host.run(chosen, modules, drain=drain, listener=Quiet(), on_ready=ready)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
