"""A node whose parts are real, and which starts no process."""

from __future__ import annotations

from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.plugins.manager import PluginManager
from kflow.runtime.loop import Loop
from kflow.runtime.node.node import Node, NodeOptions
from kflow.runtime.node.supervisor import SupervisorOptions


class Heard:
    """A listener that remembers notices: level and text."""

    def __init__(self) -> None:
        self.notices: list[tuple[str, str]] = []

    @property
    def texts(self) -> list[str]:
        """Of the notices."""
        return [text for _, text in self.notices]

    def ready(self, info: object) -> None: ...

    def outcome(self, outcome: object) -> None: ...

    def notice(self, level: str, text: str) -> None:
        self.notices.append((level, text))

    def stopped(self, summary: object) -> None: ...


def node_of(log: Log, loop: Loop, heard: Heard, *, max_workers: int = 4) -> Node:
    """The first node of a log's folder."""
    folder = log.folder
    return Node(
        log,
        ParkedStore(folder.path, folder.files, folder.fsync),
        options=NodeOptions(
            region=folder.region,
            account=folder.account,
            max_workers=max_workers,
            retry_backoff_scale=1.0,
            epoch=1,
            previous_epoch_clean=True,
        ),
        workers=SupervisorOptions(
            worker_start="spawn", preload=(), environment={}, data_dir=folder.path, run_dir=folder.run_dir
        ),
        listener=heard,
        plugins=PluginManager(),
        loop=loop,
    )
