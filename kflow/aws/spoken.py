"""Which protocols an endpoint needs besides JSON and CBOR: those of its services, and no others are imported."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Final, cast

from kflow.aws.formats import Format
from kflow.aws.shapes import Model

_WHERE: Final = {
    "query": ("kflow.aws.query", "Query"),
    "ec2": ("kflow.aws.query", "Ec2"),
    "rest-json": ("kflow.aws.rest_json", "RestJson"),
    "rest-xml": ("kflow.aws.rest_xml", "RestXml"),
}


def formats_of(models: Iterable[Model]) -> list[Format]:
    """One format for each protocol of these models. Forms first: they are told by what they are, not by a path."""
    needed = {model.protocol for model in models}
    return [_made(*where) for name, where in _WHERE.items() if name in needed]


def _made(module: str, name: str) -> Format:
    return cast("Format", getattr(importlib.import_module(module), name)())
