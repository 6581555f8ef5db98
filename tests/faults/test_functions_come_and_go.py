"""Many clients make, change, run and delete the same few functions and mappings at once: each gets AWS's own answer.

What is left when they are done is whole: all agree on it, before and after a kill.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.deadline import eventually
from tests.lambdaing import ROLE, zipped
from tests.served import ACCOUNT, Served, served

CLIENTS = 8
CALLS = 50
NAMES = ("f0", "f1")
CODES = [
    base64.b64encode(zipped({"app.py": f"def handler(event, context):\n    return {n}\n"})).decode() for n in range(3)
]
QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:jobs"
STREAM = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/orders"
REFUSALS = frozenset(
    {
        "InvalidParameterValueException",
        "ResourceConflictException",
        "ResourceInUseException",
        "ResourceNotFoundException",
        "TooManyRequestsException",
    }
)
FUNCTIONS = "/2015-03-31/functions"
LIMITS = "/2017-10-31/functions"
MAPPINGS = "/2015-03-31/event-source-mappings"

Request = tuple[str, str, dict[str, Any] | None]
Draw = Callable[[random.Random, str], Request]


def qualified(draw: random.Random) -> str:
    return draw.choice(["", "", "?Qualifier=1", "?Qualifier=live", "?Qualifier=$LATEST"])


def made(draw: random.Random, name: str) -> dict[str, Any]:
    return {
        "FunctionName": name,
        "Runtime": f"python3.{sys.version_info.minor}",
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": draw.choice(CODES)},
        "Publish": draw.random() < 0.5,
    }


def mapped(draw: random.Random, name: str) -> dict[str, Any]:
    function = draw.choice([name, f"{name}:live", f"{name}:1"])
    if draw.random() < 0.5:
        return {"FunctionName": function, "EventSourceArn": QUEUE}
    return {"FunctionName": function, "EventSourceArn": STREAM, "StartingPosition": "TRIM_HORIZON"}


def reserved(draw: random.Random) -> dict[str, Any]:
    return {"ReservedConcurrentExecutions": draw.choice([0, 1, 3])}


OPERATIONS: dict[str, tuple[int, Draw]] = {
    "create": (8, lambda draw, name: ("POST", FUNCTIONS, made(draw, name))),
    "delete": (2, lambda _, name: ("DELETE", f"{FUNCTIONS}/{name}", None)),
    "delete version": (1, lambda _, name: ("DELETE", f"{FUNCTIONS}/{name}?Qualifier=1", None)),
    "code": (4, lambda draw, name: ("PUT", f"{FUNCTIONS}/{name}/code", {"ZipFile": draw.choice(CODES)})),
    "configure": (3, lambda draw, name: ("PUT", f"{FUNCTIONS}/{name}/configuration", {"Timeout": draw.randint(1, 9)})),
    "publish": (3, lambda _, name: ("POST", f"{FUNCTIONS}/{name}/versions", {})),
    "alias": (3, lambda _, name: ("POST", f"{FUNCTIONS}/{name}/aliases", {"Name": "live", "FunctionVersion": "1"})),
    "move": (2, lambda draw, name: (
        "PUT", f"{FUNCTIONS}/{name}/aliases/live", {"FunctionVersion": draw.choice(["1", "2", "$LATEST"])}
    )),
    "unalias": (1, lambda _, name: ("DELETE", f"{FUNCTIONS}/{name}/aliases/live", None)),
    "limit": (1, lambda draw, name: ("PUT", f"{LIMITS}/{name}/concurrency", reserved(draw))),
    "unlimit": (2, lambda _, name: ("DELETE", f"{LIMITS}/{name}/concurrency", None)),
    "invoke": (6, lambda draw, name: ("POST", f"{FUNCTIONS}/{name}/invocations{qualified(draw)}", {})),
    "event": (3, lambda _, name: ("POST", f"/2014-11-13/functions/{name}/invoke-async", {})),
    "map": (3, lambda draw, name: ("POST", MAPPINGS, mapped(draw, name))),
    "list": (1, lambda *_: ("GET", f"{FUNCTIONS}?FunctionVersion=ALL", None)),
    "get": (1, lambda draw, name: ("GET", f"{FUNCTIONS}/{name}{qualified(draw)}", None)),
    # Of what is listed:
    "remap": (3, lambda draw, _: ("PUT", MAPPINGS, {"BatchSize": draw.randint(1, 9), "Enabled": draw.random() < 0.6})),
    "unmap": (1, lambda *_: ("DELETE", MAPPINGS, None)),
}  # fmt: skip


class Client:
    """One connection; raw, for speed."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def __call__(self, method: str, path: str, members: dict[str, Any] | None = None) -> tuple[int, str, Any]:
        """Status, code of the error if it is one, and the answer."""
        self._connection.request(method, path, None if members is None else json.dumps(members))
        response = self._connection.getresponse()
        body = response.read()
        code = response.headers.get("x-amzn-ErrorType", "").partition(":")[0]
        return response.status, code, json.loads(body) if body else {}

    def mappings(self) -> list[dict[str, Any]]:
        """All that there are."""
        return list(self("GET", MAPPINGS)[2]["EventSourceMappings"])


class Hostile:
    """Calls what it draws.

    Attributes:
        counts: of answers, by operation and code.
        strange: answers that none of these operations may have.
    """

    def __init__(self, url: str, seed: int) -> None:
        self._client = Client(url)
        self._draw = random.Random(seed)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.strange: list[object] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        names = list(OPERATIONS)
        with closing(self._client):
            for operation in self._draw.choices(names, [OPERATIONS[name][0] for name in names], k=CALLS):
                try:
                    self._call(operation)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    self.strange.append((operation, repr(error)))
                    return

    def _call(self, operation: str) -> None:
        method, path, members = OPERATIONS[operation][1](self._draw, self._draw.choice(NAMES))
        if operation in {"remap", "unmap"}:
            there = self._client.mappings()
            if not there:
                return
            path += f"/{self._draw.choice(there)['UUID']}"
        status, code, answer = self._client(method, path, members)
        self.counts[operation, code] += 1
        if status >= 300 and (status >= 500 or code not in REFUSALS):
            self.strange.append((operation, path, members, status, code, answer))
        if operation == "invoke" and status == 200 and answer not in (0, 1, 2):
            self.strange.append((operation, path, answer))


def seen(url: str) -> dict[str, Any] | None:
    """What there is of everything; None while something is on its way."""
    with closing(Client(url)) as client:
        functions = client("GET", f"{FUNCTIONS}?FunctionVersion=ALL")[2]["Functions"]
        found: dict[str, Any] = {
            each["FunctionArn"]: [each[part] for part in ("CodeSha256", "RevisionId", "Timeout")] for each in functions
        }
        for name in {each["FunctionName"] for each in functions}:
            found[name] = (
                client("GET", f"{FUNCTIONS}/{name}/aliases")[2],
                client("GET", f"{FUNCTIONS}/{name}")[2].get("Concurrency"),
            )
        found["mappings"] = {each["UUID"]: each for each in client.mappings()}
    for each in found["mappings"].values():
        if each["State"] not in {"Enabled", "Disabled"}:
            return None
        each.pop("LastProcessingResult", None)
    return found


@pytest.fixture(params=["0", "30"], ids=["at once", "in a while"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    options = {"KFLOW_RETRY_BACKOFF_SCALE": "0", "KFLOW_MAX_WORKERS": "3"}
    with served(tmp_path, KFLOW_TRANSITION_MS=request.param, **options) as made:
        made.client().create_stream(StreamName="orders", ShardCount=1)
        made.client(service="sqs").create_queue(QueueName="jobs")
        yield made


def test_each_of_many_clients_gets_an_answer_of_aws_and_what_is_left_is_whole(endpoint: Served) -> None:
    everybody = [Hostile(endpoint.url, seed) for seed in range(CLIENTS)]
    for each in everybody:
        each.thread.join(120)
    assert [strange for each in everybody for strange in each.strange] == []
    counts = sum((each.counts for each in everybody), Counter[tuple[str, str]]())
    assert counts["create", ""] > 1
    assert counts["invoke", ""] + counts["event", ""] > 0
    assert counts["map", ""] > 0

    left = eventually(lambda: seen(endpoint.url), seconds=30, what="all mappings to be Enabled or Disabled")
    assert [event for event in endpoint.events() if event.get("level") == "error"] == []
    endpoint.kill()
    endpoint.start()
    assert eventually(lambda: seen(endpoint.url), seconds=30, what="everything to be there again") == left

    with closing(Client(endpoint.url)) as client:
        for name in NAMES:
            client("DELETE", f"{FUNCTIONS}/{name}")
            assert client("POST", FUNCTIONS, made(random.Random(0), name))[0] == 201
            status, _, answer = eventually(lambda name=name: ready(client, name), seconds=30)
            assert (status, answer in (0, 1, 2)) == (200, True)


def ready(client: Client, name: str) -> tuple[int, str, Any] | None:
    """How it answers, once it is no longer Pending."""
    found = client("POST", f"{FUNCTIONS}/{name}/invocations", {})
    return None if found[1] == "ResourceConflictException" else found
