"""What counts as a function's memory."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from kflow.runtime.worker.memory import usage

linux = pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what a process holds")


def run(code: str) -> str:
    """In a process of its own: limits and peaks stay there."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@linux
def test_memory_that_is_used_counts_and_what_is_mapped_from_files_does_not(tmp_path: Path) -> None:
    path = tmp_path / "mapped"
    path.write_bytes(b"x" * (64 << 20))
    before = usage()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        pages = sum(mapped[at] for at in range(0, 64 << 20, 4096))
        between = usage()
    used = b"x" * (64 << 20)
    after = usage()

    assert before is not None
    assert between is not None
    assert after is not None
    assert between.private_kb - before.private_kb < 16 << 10
    assert 60 << 10 <= after.private_kb - before.private_kb < 80 << 10
    assert pages
    assert used


def test_nobody_knows_the_memory_of_a_process_that_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(30)

    assert usage(child.pid) is None


@linux
@pytest.mark.parametrize(("megabytes", "exceeded"), [(100, False), (200, True)])
def test_growth_beyond_the_size_is_found(megabytes: int, exceeded: bool) -> None:
    said = run(
        "from kflow.runtime.worker.memory import MemoryLimit; limit = MemoryLimit(128);"
        f"kept = b'x' * ({megabytes} << 20);"
        "print(limit.exceeded())"
    )

    assert said == str(exceeded)


@linux
def test_what_was_given_back_is_not_held_against_the_function() -> None:
    said = run(
        "from kflow.runtime.worker.memory import MemoryLimit; limit = MemoryLimit(128);"
        "kept = b'x' * (300 << 20); del kept;"
        "print(limit.exceeded())"
    )

    assert said == "False"


@linux
def test_what_was_there_before_the_fork_does_not_count() -> None:
    said = run(
        "import os; before = b'x' * (300 << 20)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    from kflow.runtime.worker.memory import MemoryLimit\n"
        "    limit = MemoryLimit(128); changed = bytearray(before[:50 << 20])\n"
        "    os._exit(7 if limit.exceeded() else 0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )

    assert said == "0"


@linux
def test_the_kernels_stop_is_far_above_the_size_and_never_raises_a_limit() -> None:
    said = run(
        "import resource; from kflow.runtime.worker.memory import MemoryLimit; MemoryLimit(128);"
        "far = resource.getrlimit(resource.RLIMIT_DATA)[0];"
        "resource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20)); MemoryLimit(128);"
        "print(far >> 20, resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20)"
    )

    far, kept = (int(word) for word in said.split())
    assert far > 1024 + 256
    assert kept == 900
