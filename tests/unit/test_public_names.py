"""`from kflow import ...`: every name is there, and stays what it is."""

from __future__ import annotations

import importlib

import pytest

import kflow


@pytest.mark.parametrize("name", kflow.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(kflow, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'kflow' has no attribute 'on_steam'"):
        kflow.on_steam  # noqa: B018  (the access is the test)


def test_client_stays_the_function_after_its_module_was_imported():
    module = importlib.import_module("kflow.client")
    assert kflow.client is module.client
