"""What both ends of a connection say first: versions, and which data folder it is about."""

from __future__ import annotations

import functools
import os

import msgspec

from kflow.broker.folder import BLOCK
from kflow.errors import UsageError

PROTOCOL = (1, 1)
"""Lowest and highest version of this protocol that this library speaks."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What each side says first.

    Attributes:
        protocol: lowest and highest protocol version it speaks.
        block: version of its block format.
        folder_id: id of the data folder, hexadecimal.
        version: of the library.
        pid: its process.
        producer: id of the producer; 0 for a tool that only asks, and for the node.
        is_guarded: whether the node limits, delays or refuses calls of AWS operations on purpose: clients that could go
            around its services to the log must not.
    """

    protocol: tuple[int, int]
    block: int
    folder_id: str
    version: str
    pid: int
    producer: int = 0
    is_guarded: bool = False


def own_hello(folder_id: str, *, producer: int = 0, is_guarded: bool = False) -> Hello:
    """This process's first words."""
    return Hello(
        protocol=PROTOCOL,
        block=BLOCK,
        folder_id=folder_id,
        version=library_version(),
        pid=os.getpid(),
        producer=producer,
        is_guarded=is_guarded,
    )


@functools.cache
def library_version() -> str:
    """Version of the installed library; for messages only."""
    from importlib import metadata  # 10 ms that only a process that connects pays

    try:
        return metadata.version("kflow-streams")
    except metadata.PackageNotFoundError:
        return "unknown"


def check_hello(own: Hello, other: Hello) -> None:
    """Refuse a peer that speaks nothing we speak.

    Raises:
        UsageError: no protocol version or no block format in common; names both sides.
    """
    overlap = max(own.protocol[0], other.protocol[0]) <= min(own.protocol[1], other.protocol[1])
    if overlap and own.block == other.block:
        return
    raise UsageError(
        f"kflow {own.version} (protocol {own.protocol[0]}-{own.protocol[1]}, blocks {own.block}) cannot talk to "
        f"process {other.pid} with kflow {other.version} (protocol {other.protocol[0]}-{other.protocol[1]}, blocks "
        f"{other.block}): run both from the same version"
    )
