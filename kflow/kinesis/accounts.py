"""Settings of accounts: the commitment to a minimum throughput, which makes a stream "On-demand Advantage".

    DISABLED --enable--> ENABLED --disable, a day has passed--> DISABLED
                           |  ^
                   disable |  | enable
                           v  |
              ENABLED_UNTIL_EARLIEST_ALLOWED_END --the day has passed--> DISABLED

Kept in `accounts.json` in the data folder, with a checksum and a twin, for all accounts and regions.

Source: documented: UpdateAccountSettings, DescribeAccountSettings.
"""

from __future__ import annotations

import logging
import os
from typing import Final

import msgspec

from kflow import limits
from kflow.aws.calls import Place
from kflow.broker import checked
from kflow.broker.files import storage_error
from kflow.broker.keeping import Kept
from kflow.errors import InvalidArgument
from kflow.interfaces import Done
from kflow.kinesis.host import Host
from kflow.kinesis.states import DAY_MS

log = logging.getLogger(__name__)

FILE_NAME: Final = "accounts.json"


class Commitment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The commitment of one account in one region.

    Attributes:
        started_ms: since when it lasts, or lasted; 0: there never was one.
        ends_ms: when it ends or ended; None while it has no end.
    """

    started_ms: int = 0
    ends_ms: int | None = None

    def status(self, now_ms: int) -> str:
        """As DescribeAccountSettings says it."""
        if not self.started_ms or (self.ends_ms is not None and self.ends_ms <= now_ms):
            return "DISABLED"
        return "ENABLED" if self.ends_ms is None else "ENABLED_UNTIL_EARLIEST_ALLOWED_END"

    @property
    def earliest_end_ms(self) -> int:
        """It lasts a day at least."""
        return self.started_ms + DAY_MS


NONE: Final = Commitment()


class _Stored(msgspec.Struct, frozen=True):
    version: int
    commitments: dict[str, Commitment]


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_read_stored = msgspec.json.Decoder(_Stored).decode


class Accounts:
    """The settings of all accounts. Belongs to the loop's thread.

    Raises:
        StorageError: the file is there and cannot be read.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._path = os.fspath(host.folder.path / FILE_NAME)
        self._kept = Kept(self._load(), self._write, host, lambda _: None)

    def commitment(self, place: Place) -> Commitment:
        """The commitment of an account in a region."""
        return self._kept.value.get(_key(place), NONE)

    def is_advantage(self, place: Place, now_ms: int) -> bool:
        """Whether its on-demand streams are On-demand Advantage."""
        return self.commitment(place).status(now_ms) != "DISABLED"

    def require_commitment(self, place: Place, mibps: int, now_ms: int) -> None:
        """Refuse warm throughput that an account may not have.

        Raises:
            InvalidArgument: there is no commitment, or it is too much.

        Source: documented: UpdateStreamWarmThroughput; chosen: the texts.
        """
        if not self.is_advantage(place, now_ms):
            raise InvalidArgument(
                f"WarmThroughputMiBps needs MinimumThroughputBillingCommitment, which account {place.account} has not "
                f"enabled in {place.region}: call UpdateAccountSettings."
            )
        if mibps > limits.WARM_MIBPS:
            raise InvalidArgument(f"WarmThroughputMiBps {mibps} is above the limit of {limits.WARM_MIBPS}.")

    def set_commitment(self, place: Place, *, enabled: bool, done: Done) -> None:
        """Begin a commitment, or end it as soon as it may end; `done` when that is kept."""
        now_ms = self._host.now_ms()
        before = self.commitment(place)
        is_on = before.status(now_ms) != "DISABLED"
        after = before
        if enabled:
            after = Commitment(started_ms=before.started_ms if is_on else now_ms)
        elif is_on and before.ends_ms is None:
            after = Commitment(started_ms=before.started_ms, ends_ms=max(now_ms, before.earliest_end_ms))
        if after == before:
            done(None)
            return
        self._kept.set({**self._kept.value, _key(place): after}, done)

    def _write(self, commitments: dict[str, Commitment]) -> None:
        folder = self._host.folder
        text = checked.seal(msgspec.json.encode(_Stored(1, commitments))) + b"\n"
        try:
            checked.write_twice(self._path, text, folder.files, sync=folder.syncs)
        except OSError as error:
            raise storage_error(error, f"write {self._path}") from error

    def _load(self) -> dict[str, Commitment]:
        folder, path = self._host.folder, self._path
        try:
            wrong = checked.trouble(path, folder.files)
            if wrong in ("file", "both"):
                copy = "its copy counts" if wrong == "file" else "and so is its copy"
                log.error("settings of accounts not believed, the checksum is wrong, %s file=%s", copy, path)
            checked.settle(path, folder.files, sync=folder.syncs)
            text = checked.read_optional(path, folder.files)
        except OSError as error:
            raise storage_error(error, f"read {path}") from error
        content = None if text is None else checked.unseal(text.rstrip(b"\n"))
        if content is None:
            return {}
        try:
            return _read_stored(content).commitments
        except msgspec.DecodeError as error:
            log.error("settings of accounts not believed file=%s: %s", path, error)  # noqa: TRY400  # says it all
            return {}


def _key(place: Place) -> str:
    return f"{place.account}/{place.region}"
