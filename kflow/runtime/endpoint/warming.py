"""Code and model of services that nobody has called yet are read by a thread, while the loop serves others.

It takes a tenth of a second, once: requests of that service wait for it, all others go through the door at once.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kflow.aws import models
from kflow.aws.patterns import python_pattern
from kflow.errors import KflowError
from kflow.web.exchange import Exchange, Handler

log = logging.getLogger(__name__)

MODULES: Final[Mapping[str, Sequence[str]]] = {
    "lambda": (
        "kflow.services.lambda_.wire",
        "kflow.services.lambda_.service",
        "kflow.lambda_.control.registry",
        "kflow.lambda_.control.layers",
        "kflow.lambda_.control.packages",
        "kflow.lambda_.control.mappings",
        "kflow.lambda_.asyncconfig",
        "kflow.runtime.functions.asyncinvokes",
        "kflow.runtime.functions.deliveries",
    ),
    "sqs": (
        "kflow.services.sqs.service",
        "kflow.services.sqs.models",
        "kflow.services.sqs.forms",
        "kflow.runtime.measures.sqs",
    ),
    "sns": ("kflow.services.forms", "kflow.services.sns"),
    "sts": ("kflow.services.forms", "kflow.services.sts"),
    "logs": ("kflow.services.logs",),
    "monitoring": ("kflow.services.forms", "kflow.services.cloudwatch"),
}
"""What a service needs, by what requests are signed for."""
_MODELS: Final = {"monitoring": "cloudwatch"}
_TARGETS: Final = {"AmazonSQS": "sqs", "Logs_20140328": "logs", "GraniteServiceVersion20100801": "monitoring"}
_SIGNED: Final = re.compile(r"Credential=[^/,]+/\d{8}/[^/]+/([a-z]+)/")

Submit = Callable[[Callable[[], object], Callable[[Any], object]], object]


class Warming:
    """A `Handler` before the door. Belongs to the loop's thread.

    Args:
        door: answers.
        submit: has work done by a thread, and calls back on the loop.
        cache: folder of models that were read before.
    """

    def __init__(self, door: Handler, submit: Submit, cache: Path) -> None:
        self._door = door
        self._cache = cache
        self._submit = submit
        self._cold = set(MODULES)
        self._waiting: dict[str, list[Exchange]] = {}

    def __call__(self, exchange: Exchange) -> None:
        """Pass a request on, now or when its service can answer it."""
        if self._cold:
            name = _service(exchange)
            if name in self._cold:
                self._wait(name, exchange)
                return
        self._door(exchange)

    def _wait(self, name: str, exchange: Exchange) -> None:
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.append(exchange)
            return
        self._waiting[name] = [exchange]
        self._submit(lambda: _read(name, self._cache), lambda failure: self._read(name, failure))

    def _read(self, name: str, failure: object) -> None:
        if isinstance(failure, KflowError):  # the call itself will meet it, and say so
            log.warning("the code of a service was not read beforehand service=%s error=%s", name, failure)
        self._cold.discard(name)
        for exchange in self._waiting.pop(name):
            if not exchange.is_closed:
                self._door(exchange)


def _read(name: str, cache: Path) -> None:
    for module in MODULES[name]:
        importlib.import_module(module)
    model = models.load(_MODELS.get(name, name), cache=cache)  # what is made of it is kept, and read from there
    for shape in model.digest["shapes"].values():
        if "pattern" in shape:
            python_pattern(shape["pattern"])  # kept; classes of characters take 50 ms


def _service(exchange: Exchange) -> str:
    """What a request is for, as far as that is seen at once; it need not be right."""
    headers = exchange.headers
    target = headers.get("x-amz-target")
    if target is not None:
        return _TARGETS.get(target.partition(".")[0], "")
    signed = _SIGNED.search(headers.get("authorization", ""))
    return "" if signed is None else signed[1]
