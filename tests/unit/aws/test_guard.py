"""Names that are ours, and pages that are."""

import pytest

from kflow.aws.guard import Guard


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:80", "x.localhost", None]
)
def test_loopback_is_ours(host):
    guard = Guard()
    assert guard.admits_host(host)
    assert guard.admits_host(host)


@pytest.mark.parametrize(
    "host", ["evil", "localhost.evil", "1.2.3.4", "[::2]", "[", "", "evil@", "xlocalhost", "2130706433"]
)
def test_nothing_else_is(host):
    assert not Guard().admits_host(host)


def test_what_it_is_bound_to_is_ours():
    guard = Guard(["192.0.2.1", "Node.Lan", "[2001:db8::1]"])
    for host in ("192.0.2.1:80", "node.lan", "NODE.LAN:80", "[2001:db8::1]:80"):
        assert guard.admits_host(host)
    assert not guard.admits_host("192.0.2.2")
    assert guard.admits_origin("http://node.lan:3000")


def test_any_host_is_ours_where_it_is_bound_to_all_but_not_any_origin():
    guard = Guard(None)
    assert guard.admits_host("evil.example")
    assert not guard.admits_origin("http://evil.example")
    assert guard.admits_origin("http://localhost:3000")


@pytest.mark.parametrize(
    "origin", ["null", "", "http://", "http://[", "file://", "localhost", "https://evil", "http://1.2.3.4"]
)
def test_a_foreign_origin_is_foreign(origin):
    assert not Guard().admits_origin(origin)


def test_what_is_remembered_is_bounded():
    guard = Guard()
    for port in range(1000):
        assert guard.admits_host(f"localhost:{port}")
    assert len(guard.fine) <= 256
