"""What holds for a function that is invoked: which version runs, and how asynchronous invocations of it are retried."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from kflow.aws.calls import Place
from kflow.lambda_.asynchronous import AGE_S, RETRIES, Policy
from kflow.lambda_.control import names
from kflow.lambda_.control.facts import LATEST
from kflow.lambda_.control.function import Target
from kflow.lambda_.control.registry import Registry


class Chosen(NamedTuple):
    """What an invocation runs.

    Attributes:
        key: for the fleet.
        version: `$LATEST`, or a number.
    """

    key: str
    version: str


def choose(target: Target, dice: Callable[[], float] = random.random) -> Chosen:
    """By the weights of an alias; else there is no choice.

    Args:
        target: what the caller wants to have run.
        dice: from 0 on, below 1.
    """
    weights = target.weights
    if weights:
        left = dice()
        for version, weight in weights.items():
            left -= weight
            if left < 0:
                return Chosen(names.qualified(target.function.key, version), version)
    return Chosen(target.key, target.version)


class Configured:
    """`kflow.lambda_.asynchronous.Functions` over the functions of a node.

    Args:
        functions: all of them.
        most: reserved concurrency of a function, by its key; None: none is.
    """

    def __init__(self, functions: Registry, most: Callable[[str], int | None]) -> None:
        self._functions = functions
        self._most = most

    def policy(self, function: str, qualifier: str) -> Policy:
        """See there."""
        _, _, _, region, account, _, _ = function.split(":")
        target = self._functions.target(Place(account, region), function, qualifier)
        facts = target.function.facts
        found = facts.invoke_configs.get(target.qualifier or LATEST)
        key, version = choose(target)
        return Policy(
            key=key,
            arn=target.arn,
            version=version,
            retries=RETRIES if found is None or found.retries is None else found.retries,
            age_s=AGE_S if found is None or found.age_s is None else found.age_s,
            on_success="" if found is None else found.on_success,
            on_failure="" if found is None else found.on_failure,
            dead_letter=target.configuration.dead_letter,
            most=self._most(target.function.key),
        )
