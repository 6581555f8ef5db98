"""Settings of accounts, and channels, which there are none of."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kflow.aws.calls import Place
from tests.controlling import ACCOUNT, ARN, Desk
from tests.storing import FaultyFiles

DAY_MS = 86_400_000
STARTED = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
EARLIEST = datetime(2023, 11, 15, 22, 13, 20, tzinfo=UTC)
CHANNEL = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:channel/files"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def update(desk: Desk, status: str) -> dict[str, Any]:
    answer = desk.call("UpdateAccountSettings", MinimumThroughputBillingCommitment={"Status": status})
    return dict(answer["MinimumThroughputBillingCommitment"])


def settings(desk: Desk) -> dict[str, Any]:
    return dict(desk.call("DescribeAccountSettings")["MinimumThroughputBillingCommitment"])


def test_an_account_begins_without_a_commitment(desk: Desk) -> None:
    assert settings(desk) == {"Status": "DISABLED"}
    assert update(desk, "DISABLED") == {"Status": "DISABLED"}


def test_a_commitment_lasts_a_day_at_least(desk: Desk) -> None:
    enabled = {"Status": "ENABLED", "StartedAt": STARTED, "EarliestAllowedEndAt": EARLIEST}
    ending = {**enabled, "Status": "ENABLED_UNTIL_EARLIEST_ALLOWED_END"}
    assert update(desk, "ENABLED") == enabled
    desk.host.advance(1000)
    assert update(desk, "ENABLED") == enabled
    assert update(desk, "DISABLED") == ending
    assert update(desk, "DISABLED") == ending
    assert update(desk, "ENABLED") == enabled
    update(desk, "DISABLED")
    desk.restart()
    desk.host.advance(DAY_MS - 1001)
    assert settings(desk) == ending
    desk.host.advance(1)
    assert settings(desk) == {"Status": "DISABLED", "StartedAt": STARTED, "EndedAt": EARLIEST}


def test_after_a_day_a_commitment_ends_at_once_and_may_begin_anew(desk: Desk) -> None:
    update(desk, "ENABLED")
    desk.host.advance(DAY_MS + 1000)
    ended = datetime(2023, 11, 15, 22, 13, 21, tzinfo=UTC)
    assert update(desk, "DISABLED") == {"Status": "DISABLED", "StartedAt": STARTED, "EndedAt": ended}
    assert update(desk, "ENABLED")["StartedAt"] == ended


def test_each_account_and_region_has_its_own(desk: Desk) -> None:
    update(desk, "ENABLED")
    desk.place = Place(ACCOUNT, "eu-west-1")
    assert settings(desk) == {"Status": "DISABLED"}
    desk.place = Place("111122223333", "us-east-1")
    assert settings(desk) == {"Status": "DISABLED"}


def test_settings_that_cannot_be_kept_are_as_they_were(tmp_path: Path) -> None:
    files = FaultyFiles()
    desk = Desk(tmp_path, files=files)
    files.errors, files.only = {"replace": errno.EIO}, "accounts.json"
    refused = desk.refusal("UpdateAccountSettings", MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    assert refused[0] == "StorageError"
    assert settings(desk) == {"Status": "DISABLED"}


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"crc":"00000000","version":1,"commitments":{}}'])
def test_settings_that_are_damaged_come_from_their_twin(
    desk: Desk, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    update(desk, "ENABLED")
    (desk.path / "accounts.json").write_bytes(damage)
    desk.restart()
    assert settings(desk)["Status"] == "ENABLED"
    assert "not believed" in caplog.text
    for name in ("accounts.json", "accounts.json.twin"):
        (desk.path / name).write_bytes(damage)
    desk.restart()
    assert settings(desk)["Status"] == "DISABLED"


def test_there_are_no_channels(desk: Desk) -> None:
    desk.stream()
    assert desk.call("ListChannels") == {"ChannelSummaries": []}
    assert desk.call("ListChannels", StreamFilter=[{"StreamARN": ARN}]) == {"ChannelSummaries": []}
    gone = ARN.replace("orders", "none")
    assert desk.call("ListChannels", StreamFilter=[{"StreamARN": gone}]) == {"ChannelSummaries": []}
    assert desk.refusal("ListChannels", NextToken="x")[0] == "InvalidArgumentException"
    for operation in ("DescribeChannel", "DeleteChannel", "UpdateChannel"):
        assert desk.refusal(operation, ChannelARN=CHANNEL) == (
            "ResourceNotFoundException",
            "Channel files under account 123456789012 not found.",
        )


def test_a_channel_is_not_made_and_the_refusal_says_what_to_do(desk: Desk) -> None:
    refused = desk.refusal(
        "CreateChannel",
        ChannelName="files",
        ServiceExecutionRoleARN="arn:aws:iam::123456789012:role/r",
        StreamConfigurationList=[{"StreamARN": ARN, "RecordConfiguration": {"RecordFormatType": "JSON"}}],
    )
    assert refused == (
        "ValidationException",
        ("kflow has no channels, so files is not created: read the stream with a handler, and write to S3 from there."),
    )
