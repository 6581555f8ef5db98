"""The endpoint's port: the one that was asked for or none; else the next free one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kflow.errors import UsageError
from kflow.runtime.endpoint import ports


class Machine:
    """A machine with taken ports."""

    def __init__(self, *taken: int, error: int = errno.EADDRINUSE) -> None:
        self.taken = taken
        self.error = error
        self.tried: list[int] = []

    def listen(self, bind: str, port: int) -> int:
        assert bind == "127.0.0.1"
        self.tried.append(port)
        if port in self.taken:
            raise OSError(self.error, "taken")
        return port or 40_000


def test_the_port_is_taken_where_it_is_free() -> None:
    assert ports.choose("127.0.0.1", 4566, is_set=False, listen=Machine().listen) == 4566
    assert ports.choose("127.0.0.1", 0, is_set=True, listen=Machine().listen) == 40_000


def test_the_next_free_one_is_taken_where_nobody_set_it() -> None:
    machine = Machine(4566, 4567)
    assert ports.choose("127.0.0.1", 4566, is_set=False, listen=machine.listen) == 4568
    assert machine.tried == [4566, 4567, 4568]


def test_any_port_is_taken_where_a_hundred_are_not_free() -> None:
    machine = Machine(*range(4566, 4766))
    assert ports.choose("127.0.0.1", 4566, is_set=False, listen=machine.listen) == 40_000
    assert machine.tried == [*range(4566, 4666), 0]


def test_a_set_port_is_taken_or_none_is() -> None:
    machine = Machine(80, 4566)

    def holder(port: int) -> tuple[int, str] | None:
        return (4711, "node") if port == 80 else None

    with pytest.raises(UsageError) as caught:
        ports.choose("127.0.0.1", 80, is_set=True, listen=machine.listen, holder=holder)
    assert str(caught.value) == (
        "port 80 is held by process 4711 (node): end it, or choose another with --port "
        "(--port 0 takes any; without `port` in the settings the next free one is taken)"
    )
    with pytest.raises(UsageError, match=r"^port 4566 is held by another process: end it"):
        ports.choose("127.0.0.1", 4566, is_set=True, listen=machine.listen, holder=holder)
    assert machine.tried == [80, 4566]


def test_a_port_that_only_root_may_use_is_named_as_such() -> None:
    with pytest.raises(UsageError, match=r"^port 80 may not be used by this user: choose one above 1023 with --port$"):
        ports.choose("127.0.0.1", 80, is_set=True, listen=Machine(80, error=errno.EACCES).listen)


def test_an_address_that_is_not_of_this_machine_is_refused_without_further_tries() -> None:
    machine = Machine(4566, error=errno.EADDRNOTAVAIL)
    with pytest.raises(UsageError, match=r"^the endpoint cannot listen at '127.0.0.1': taken; see the settings"):
        ports.choose("127.0.0.1", 4566, is_set=False, listen=machine.listen)
    assert machine.tried == [4566]


@pytest.mark.parametrize(
    ("bind", "url", "loopback"),
    [
        ("127.0.0.1", "http://127.0.0.1:4566", True),
        ("127.0.0.53", "http://127.0.0.53:4566", True),
        ("localhost", "http://127.0.0.1:4566", True),
        ("::1", "http://[::1]:4566", True),
        ("0.0.0.0", "http://127.0.0.1:4566", False),
        ("::", "http://[::1]:4566", False),
        ("192.168.1.7", "http://192.168.1.7:4566", False),
        ("127.example.org", "http://127.example.org:4566", False),
    ],
)
def test_the_url_is_one_that_works_on_this_machine(bind: str, url: str, loopback: bool) -> None:
    assert (ports.url(bind, 4566, tls=False), ports.is_loopback(bind)) == (url, loopback)
    assert ports.url(bind, 4566, tls=True) == url.replace("http:", "https:")


def test_the_url_is_kept_in_the_data_folder(tmp_path: Path) -> None:
    assert ports.kept(tmp_path) is None
    ports.keep(tmp_path, "http://127.0.0.1:4566")
    assert (tmp_path / "endpoint").read_text() == "http://127.0.0.1:4566\n"
    assert ports.kept(tmp_path) == "http://127.0.0.1:4566"
    ports.forget(tmp_path)
    assert ports.kept(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
