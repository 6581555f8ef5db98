"""Which descriptors are ready: epoll by itself where there is one, else what `selectors` finds.

`selectors` spends several microseconds an event on keys and maps, which a put that waits for its answer pays twice
(`tests/bench` "put-single").
"""

from __future__ import annotations

import selectors
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Poller(Protocol):
    """Watches descriptors for `READ`, `WRITE` or both."""

    def add(self, fd: int, mask: int) -> None:
        """Watch `fd`."""
        ...

    def modify(self, fd: int, mask: int) -> None:
        """Watch it for something else."""
        ...

    def remove(self, fd: int) -> None:
        """Watch it no more; before it is closed."""
        ...

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most `timeout` seconds (None: for ever), and say which descriptors are ready for what."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


def make_poller() -> Poller:
    """The quickest one that this system has."""
    try:
        from select import epoll  # noqa: F401  # not on macOS
    except ImportError:
        return SelectorPoller()
    return EpollPoller()


class SelectorPoller:
    """Any system's."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, fd: int, mask: int) -> None:
        """Watch `fd`."""
        self._selector.register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        """Watch it for something else."""
        self._selector.modify(fd, mask)

    def remove(self, fd: int) -> None:
        """Watch it no more."""
        self._selector.unregister(fd)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for readiness."""
        return [(key.fd, mask) for key, mask in self._selector.select(timeout)]

    def close(self) -> None:
        """Release the selector."""
        self._selector.close()


class EpollPoller:
    """Linux's. A hang-up or an error wakes who reads and who writes."""

    def __init__(self) -> None:
        from select import EPOLLIN, EPOLLOUT, epoll

        self._epoll = epoll()
        self._masks = {READ: EPOLLIN, WRITE: EPOLLOUT, READ | WRITE: EPOLLIN | EPOLLOUT}
        self._meaning = {events: mask for mask, events in self._masks.items()}

    def add(self, fd: int, mask: int) -> None:
        """Watch `fd`."""
        self._epoll.register(fd, self._masks[mask])

    def modify(self, fd: int, mask: int) -> None:
        """Watch it for something else."""
        self._epoll.modify(fd, self._masks[mask])

    def remove(self, fd: int) -> None:
        """Watch it no more."""
        self._epoll.unregister(fd)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for readiness."""
        meaning = self._meaning
        return [(fd, meaning.get(events, READ | WRITE)) for fd, events in self._epoll.poll(timeout)]

    def close(self) -> None:
        """Release the descriptor."""
        self._epoll.close()
