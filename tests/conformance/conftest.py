"""What conformance tests share: an endpoint for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.botoing import Desk, desk


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An endpoint whose transitions take no time, for boto3; tests take names of their own from it."""
    with desk(tmp_path_factory.mktemp("desk")) as made:
        yield made
