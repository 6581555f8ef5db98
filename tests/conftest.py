"""What all tests share: waiting with a deadline, and hypothesis without one."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.deadline import Eventually
from tests.deadline import eventually as wait_until

# Machines that run tests are shared and slow at times: no example fails for being slow. In CI the examples are the
# same each time, so that a red run can be repeated.
settings.register_profile("desk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("desk"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full`: what takes minutes, and is run before a release rather than with each change."""
    parser.addoption("--full", action="store_true", help="simulate 10,000 seeds instead of a few hundred")


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as there are cores: half of the tests wait for processes that they have started."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture
def eventually() -> Eventually:
    """`eventually(condition, seconds=10, what="...")`: see `tests.deadline`."""
    return wait_until
