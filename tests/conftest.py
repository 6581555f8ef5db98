"""What all tests share: waiting with a deadline, and hypothesis without one."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

from tests import dealing
from tests.deadline import Eventually
from tests.deadline import eventually as wait_until

# Machines that run tests are shared and slow at times: no example fails for being slow. In CI the examples are the
# same each time, so that a red run can be repeated.
settings.register_profile("desk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("desk"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full`: what takes minutes, and is run before a release rather than with each change."""
    parser.addoption("--full", action="store_true", help="10,000 seeds instead of a few hundred, and more kills")


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as there are cores: half of the tests wait for processes that they have started."""
    return 2 * (os.cpu_count() or 1)


def _worker(config: pytest.Config) -> tuple[int, int] | None:
    """Which worker this is, and of how many; None where there are none."""
    given = getattr(config, "workerinput", None)
    return None if given is None else (int(given["workerid"].removeprefix("gw")), int(given["workercount"]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Before a worker collects all tests."""
    worker = _worker(session.config)
    if worker is not None and session.config.args == session.config.getini("testpaths") and not sys.dont_write_bytecode:
        dealing.import_share(session.config.rootpath, *worker)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """After it."""
    if (worker := _worker(config)) is not None:
        items[:] = dealing.dealt(items, worker[1], lambda item: item.nodeid.partition("::")[0])


@pytest.fixture
def eventually() -> Eventually:
    """`eventually(condition, seconds=30, what="...")`: see `tests.deadline`."""
    return wait_until
