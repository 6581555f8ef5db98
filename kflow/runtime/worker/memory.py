"""The memory limit of a function: growth of its worker's private memory since the process was new.

A worker shares what the zygote has imported; what it takes beyond that is the function's. Three looks at it:

    the node's, once a second while something runs    kills: an attempt, with the words of a process that was killed
    the worker's own, after each batch                throws the environment away: an attempt, in the same words
    the kernel's, RLIMIT_DATA, far above the limit    the handler gets a MemoryError: between two looks

RLIMIT_DATA is no limit for the function itself: it counts reserved memory, such as the stacks of threads.

Linux only, but for the worker's own look, which elsewhere takes the peak of all its memory.

Source: documented: memory of a function, 128 to 10,240 MB; recorded: a process that is killed; chosen: what is counted.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final, NamedTuple

_PAGE_KB: Final = resource.getpagesize() // 1024
_MAXRSS_PER_KB: Final = 1024 if sys.platform == "darwin" else 1
_FAR_KB: Final = 1 << 20
"""The kernel's limit is twice the function's memory and this much more."""


class Usage(NamedTuple):
    """A process's memory, KiB.

    Attributes:
        private_kb: resident and not of a file; pages shared with the process it was forked from count as well.
        resident_kb: all that is resident.
        data_kb: what RLIMIT_DATA counts.
    """

    private_kb: int
    resident_kb: int
    data_kb: int


def usage(pid: int | None = None) -> Usage | None:
    """The memory of a process, this one by default; None where it is gone, or the system does not say."""
    try:
        text = Path(f"/proc/{pid or 'self'}/statm").read_bytes()
    except OSError:
        return None
    fields = text.split()
    resident, shared, data = int(fields[1]), int(fields[2]), int(fields[5])
    return Usage((resident - shared) * _PAGE_KB, resident * _PAGE_KB, data * _PAGE_KB)


def peak_kb() -> int:
    """The most that was resident in this process at any time; perhaps more, of what it was started from."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _MAXRSS_PER_KB


class MemoryLimit:
    """A worker's own look. Made when the process is new, before user code is imported.

    Attributes:
        base_kb: private memory of the new process; 0 where the system does not say.
    """

    def __init__(self, memory_mb: int) -> None:
        now = usage()
        self._limit_kb = memory_mb * 1024
        self._resident_kb = peak_kb() if now is None else now.resident_kb
        self.base_kb = 0 if now is None else now.private_kb
        if now is not None:
            _set_far_stop(now.data_kb + 2 * self._limit_kb + _FAR_KB)

    def exceeded(self) -> bool:
        """Whether the function holds more than its memory. After each batch: 1 us while it never came near."""
        if peak_kb() - self._resident_kb <= self._limit_kb:
            return False
        now = usage()
        return now is None or now.private_kb - self.base_kb > self._limit_kb


def _set_far_stop(limit_kb: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit_kb * 1024
    if (soft == resource.RLIM_INFINITY or limit < soft) and (hard == resource.RLIM_INFINITY or limit < hard):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
