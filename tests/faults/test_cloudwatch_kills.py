"""The runtime is killed while events and metrics are put: what was answered is there, and nothing is there twice."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path
from typing import Any

from tests.deadline import eventually
from tests.served import Served, served

BEGUN = dt.datetime.now(dt.UTC)
WHEN = {"StartTime": BEGUN - dt.timedelta(hours=1), "EndTime": BEGUN + dt.timedelta(hours=1)}


class Putting:
    """Puts numbers, one after the other, until it is refused."""

    def __init__(self, endpoint: Served, put: Any) -> None:
        self.answered = 0
        self._put = put
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            while True:
                self._put(self.answered)
                self.answered += 1
        except (BotoCoreError, ClientError):
            return

    def end(self) -> int:
        self._thread.join(60)
        return self.answered


def test_what_was_answered_before_a_kill_is_there_once(tmp_path: Path) -> None:
    with served(tmp_path) as endpoint:
        logs, cloudwatch = endpoint.client(service="logs"), endpoint.client(service="cloudwatch")
        logs.create_log_group(logGroupName="app")
        logs.create_log_stream(logGroupName="app", logStreamName="one")
        now_ms = int(BEGUN.timestamp() * 1000)

        def put_event(number: int) -> None:
            event = {"timestamp": now_ms + number, "message": str(number)}
            logs.put_log_events(logGroupName="app", logStreamName="one", logEvents=[event])

        def put_metric(number: int) -> None:
            del number
            cloudwatch.put_metric_data(Namespace="App", MetricData=[{"MetricName": "n", "Value": 1}])

        puttings = [Putting(endpoint, put_event), Putting(endpoint, put_metric)]
        eventually(lambda: all(each.answered > 20 for each in puttings), seconds=60)
        endpoint.kill()
        events, values = (each.end() for each in puttings)
        endpoint.start()

        logs, cloudwatch = endpoint.client(service="logs"), endpoint.client(service="cloudwatch")
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName="app")
        found = [int(event["message"]) for page in pages for event in page["events"]]
        assert found in (list(range(events)), list(range(events + 1)))
        (point,) = cloudwatch.get_metric_statistics(
            Namespace="App", MetricName="n", Period=7200, Statistics=["Sum"], **WHEN
        )["Datapoints"]
        assert point["Sum"] in (values, values + 1)
