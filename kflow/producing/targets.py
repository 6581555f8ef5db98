"""Where puts go: the first rule that applies.

    1. `target=` or `KFLOW_TARGET`: `local`, `aws`, or the URL of an endpoint
    2. inside a worker or a test: that runtime's data
    3. inside Lambda: AWS
    4. `AWS_ENDPOINT_URL_KINESIS` or `AWS_ENDPOINT_URL`: that endpoint
    5. `KFLOW_DATA_DIR`, or a project found upward from the working folder: its data

Never AWS because credentials happen to exist, never a new folder in a random place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Literal, NamedTuple

from kflow import settings
from kflow.errors import UsageError

Kind = Literal["local", "aws", "endpoint"]


class Target(NamedTuple):
    """Where puts go.

    Attributes:
        kind: `local`: the log in a data folder; `aws`: Kinesis; `endpoint`: whatever speaks Kinesis at a URL.
        where: the data folder, the URL, or for `aws` the region (empty: the SDK's choice).
        why: which rule said so.
    """

    kind: Kind
    where: str
    why: str


_runtime: ContextVar[Path | None] = ContextVar("kflow_runtime", default=None)
_process_runtime: list[Path] = []
"""The data folder of the worker this process is. Not a context variable: those do not reach the user's own threads."""

_VARIABLES = (
    "KFLOW_TARGET",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_ENDPOINT_URL_KINESIS",
    "AWS_ENDPOINT_URL",
    "KFLOW_DATA_DIR",
)
_environ: Mapping[bytes, bytes] = getattr(os.environb, "_data", os.environb)
"""The dictionary behind `os.environ`: a look costs 30 ns there instead of 600, and there are five before each put."""
_KEYS = tuple(map(os.fsencode, _VARIABLES))

_Seen = tuple[bytes | None, ...]
_remembered: dict[str, tuple[_Seen, Path | None, str, Target]] = {}


@contextmanager
def runtime(data_dir: Path) -> Iterator[None]:
    """Within this context, puts without another target go to `data_dir`: for tests and embedded runtimes."""
    token = _runtime.set(data_dir)
    try:
        yield
    finally:
        _runtime.reset(token)


def set_process_runtime(data_dir: Path) -> None:
    """From now on this process is a worker of the runtime on `data_dir`. Called once, before user code is imported."""
    _process_runtime[:] = [data_dir]


def target(given: str | None = None) -> Target:
    """Where a put would go now, and why.

    Args:
        given: the `target=` of the call: `local`, `aws` or a URL.

    Raises:
        UsageError: nothing says where.
    """
    seen = tuple(map(_environ.get, _KEYS))
    inside = _runtime.get() or (_process_runtime[0] if _process_runtime else None)
    known = _remembered.get(given or "")
    if known is not None and known[0] == seen and known[1] == inside and (not known[2] or known[2] == os.getcwd()):  # noqa: PTH109  # text
        return known[3]
    found, by_folder = _decide(given, inside)
    if len(_remembered) > 64:
        _remembered.clear()
    _remembered[given or ""] = (seen, inside, os.getcwd() if by_folder else "", found)  # noqa: PTH109  # text
    return found


def _decide(given: str | None, inside: Path | None) -> tuple[Target, bool]:
    """The target, and whether it depends on the working folder."""
    environ = os.environ
    named = given or environ.get("KFLOW_TARGET")
    if named:
        return _named(named, "target=" if given else "KFLOW_TARGET", inside)
    if inside is not None:
        return Target("local", str(inside), "inside a kflow runtime"), False
    if environ.get("AWS_LAMBDA_RUNTIME_API") and environ.get("AWS_LAMBDA_FUNCTION_NAME"):
        return Target("aws", environ.get("AWS_REGION", ""), "inside Lambda"), False
    for name in ("AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL"):
        if environ.get(name):
            return Target("endpoint", environ[name], name), False
    found = _home()
    if found is None:
        raise UsageError(
            "nothing says where to put: pass target= or set KFLOW_TARGET to `local`, `aws` or a URL, set "
            "KFLOW_DATA_DIR, or work in a project ([tool.kflow] in pyproject.toml, or kflow.toml)"
        )
    return found, _moves()


def _named(named: str, by: str, inside: Path | None) -> tuple[Target, bool]:
    if named == "local":
        if inside is not None:
            return Target("local", str(inside), f"{by}, inside a kflow runtime"), False
        found = _home()
        if found is None:
            raise UsageError(f"{by} is `local`, and nothing says which data: set KFLOW_DATA_DIR, or work in a project")
        return found._replace(why=f"{by}, {found.why}"), _moves()
    if named == "aws":
        return Target("aws", os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", ""), by), False
    if named.startswith(("http://", "https://")):
        return Target("endpoint", named, by), False
    raise UsageError(f"{by} must be `local`, `aws` or a URL, not {named!r}{settings.nearest(named, ('local', 'aws'))}")


def _moves() -> bool:
    """Whether another working folder may mean other data: a look at it costs a system call a put."""
    return not os.path.isabs(os.environ.get("KFLOW_DATA_DIR", ""))  # noqa: PTH117  # text, no file


def _home() -> Target | None:
    """The data folder of the environment or the project; None where nobody chose one."""
    found = settings.load()
    if not found.has_home:
        return None
    origin = found.origins.get("data_dir")
    why = origin if origin == "KFLOW_DATA_DIR" else f"the project in {found.project}"
    return Target("local", str(found.data_dir), why)
