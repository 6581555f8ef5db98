"""The command line on streams elsewhere: another endpoint by `--endpoint-url`, and its records pulled here.

The endpoint is `kflow serve` in a process; the command line reaches it as it reaches AWS, by boto3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project
from tests.served import Served, served


class Away(Project):
    """A project whose command line has credentials, as for AWS."""

    @property
    def environment(self) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        return {**super().environment, **keys, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("endpoint")) as made:
        yield made


@pytest.fixture
def away(tmp_path: Path) -> Away:
    return Away(tmp_path)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_stream_elsewhere_is_made_described_resharded_and_deleted(endpoint: Served, away: Away) -> None:
    there = ("--endpoint-url", endpoint.url)
    made = away.run("streams", "create", "orders", "--shards", "2", *there)
    assert made.stdout == f"created stream orders with 2 shards on {endpoint.url}\n"
    assert not away.data_dir.exists()

    split = away.json("streams", "split", "orders", "0", *there)
    assert split == {
        "stream": "orders",
        "closed": ["shardId-000000000000"],
        "opened": ["shardId-000000000002", "shardId-000000000003"],
        "open_shards": 3,
    }
    assert away.run("streams", "merge", "orders", "2", "3", *there).stdout == (
        "orders: shards 2, 3 -> shard 4, 2 open shards\n"
    )
    assert away.run("streams", "scale", "orders", "--shards", "1", *there).stdout.endswith("-> shard 5, 1 open shard\n")

    described = away.json("streams", "describe", "orders", *there)
    assert [shard["shard_id"] for shard in described["shards"] if shard["open"]] == ["shardId-000000000005"]
    assert described["shards"][5]["parents"] == ["shardId-000000000004", "shardId-000000000001"]
    assert [each["stream"] for each in away.json("streams", "list", *there)] == ["orders"]

    assert away.run("streams", "delete", "orders", "--yes", *there).stdout == "deleted stream orders\n"
    assert away.json("streams", "list", *there) == []


def test_records_are_put_and_shown_elsewhere_children_after_their_parents(endpoint: Served, away: Away) -> None:
    there = ("--endpoint-url", endpoint.url)
    away.run("streams", "create", "visits", "--shards", "1", *there)
    away.run("put", "visits", *map(str, range(5)), "--key", "ada", *there)
    away.run("streams", "split", "visits", "0", *there)
    away.run("put", "visits", *map(str, range(5, 10)), "--key", "ada", *there)

    shown = lines(away.run("tail", "visits", "--no-follow", "--json", *there).stdout)
    assert [each["data"] for each in shown] == [str(number) for number in range(10)]
    assert {each["partition_key"] for each in shown} == {"ada"}
    assert shown[0]["shard_id"] == "shardId-000000000000"
    assert shown[9]["shard_id"] in ("shardId-000000000001", "shardId-000000000002")

    third = str(shown[2]["sequence_number"])
    rest = lines(away.run("tail", "visits", "--no-follow", "--json", "--from", third, "--count", "2", *there).stdout)
    assert [each["data"] for each in rest] == ["2", "3"]


def test_records_are_pulled_into_a_local_stream_and_the_one_there_stays_as_it_is(endpoint: Served, away: Away) -> None:
    there = ("--endpoint-url", endpoint.url)
    away.run("streams", "create", "sales", "--shards", "2", *there)
    away.run("put", "sales", *(f"sale {number}" for number in range(20)), *there)

    pulled = away.run("pull", "sales", *there)
    assert pulled.stdout == f"20 records of sales on {endpoint.url} into sales\n"
    assert "created stream sales with 2 shards" in pulled.stderr

    here = lines(away.run("tail", "sales", "--no-follow", "--json").stdout)
    away_ones = lines(away.run("tail", "sales", "--no-follow", "--json", *there).stdout)
    seen = [sorted((str(each["partition_key"]), str(each["data"])) for each in found) for found in (here, away_ones)]
    assert len(here) == 20
    assert seen[0] == seen[1]

    some = away.json("pull", "sales", "--into", "some", "--count", "3", *there)
    assert some == {"stream": "some", "records": 3, "from": endpoint.url}
    none = away.json("pull", "sales", "--into", "none", "--to", "2020-01-01T00:00:00+00:00", *there)
    assert none["records"] == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("streams", "describe", "nowhere"), "Stream nowhere under account 123456789012 not found."),
        (("tail", "nowhere", "--no-follow"), "Stream nowhere under account 123456789012 not found."),
        (("put", "nowhere", "x", "--target", "aws"), "give one of them"),
        (("streams", "list", "--data-dir", "x"), "give one of them"),
        (("streams", "list", "--profile", "nobody-has-this-one"), "nobody-has-this-one"),
    ],
)
def test_what_cannot_be_done_elsewhere_is_said_in_one_line(
    endpoint: Served, away: Away, arguments: tuple[str, ...], text: str
) -> None:
    refused = away.run(*arguments, "--endpoint-url", endpoint.url, check=2)
    assert text in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_flags_that_name_no_place_are_refused(away: Away) -> None:
    assert "--region goes with" in away.run("streams", "list", "--region", "eu-west-1", check=2).stderr
    assert "say where the stream is" in away.run("pull", "orders", check=2).stderr
    assert "is no endpoint" in away.run("streams", "list", "--endpoint-url", "nonsense", check=2).stderr
    gone = away.run("streams", "list", "--endpoint-url", "http://127.0.0.1:1", check=2)
    assert "Could not connect to the endpoint" in gone.stderr
