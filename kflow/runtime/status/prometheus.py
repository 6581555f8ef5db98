"""The Prometheus text format, version 0.0.4: families of samples, as text.

Source: documented: Prometheus, exposition formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """One metric.

    Attributes:
        name: with its unit, and `_total` for a counter.
        kind: `counter` only rises, over restarts too; `gauge` goes up and down.
        help: one sentence.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str


def lines(families: Iterable[tuple[Family, Mapping[Labels, float]]]) -> Iterator[str]:
    """The text, line by line, each with its end. A family without samples is left out.

    Args:
        families: each with its samples: values by labels.
    """
    for family, samples in families:
        if not samples:
            continue
        yield f"# HELP {family.name} {_help(family.help)}\n# TYPE {family.name} {family.kind}\n"
        for labels, value in samples.items():
            yield f"{family.name}{_labels(labels)} {_number(value)}\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_value(value)}"' for name, value in labels) + "}"


def _value(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
