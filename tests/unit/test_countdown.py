"""Whoever waits for several things is called once, with the last of them."""

from __future__ import annotations

from kflow.countdown import countdown


def test_the_last_call_calls_what_comes_after() -> None:
    told: list[str] = []
    over = countdown(2, lambda: told.append("all"))
    over(None)
    assert told == []
    over()
    assert told == ["all"]
    over()
    assert told == ["all"]
