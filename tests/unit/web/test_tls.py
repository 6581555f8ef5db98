"""TLS over a wire in memory, against `ssl` as a client."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from kflow.errors import StorageError, UsageError
from kflow.web.certificate import keep_certificate
from kflow.web.frames import PREFACE
from kflow.web.options import HIGH_BYTES, Tls, WebOptions
from kflow.web.tls import TlsLayer, make_context
from tests.webbing import Desk, MemoryWire, answers, echo


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep_certificate(tmp_path_factory.mktemp("tls"))


class Peer(Desk):
    """A TLS client of a desk, which trusts the server's certificate."""

    def __init__(
        self, certificate: Path, *, alpn: list[str] | None = None, answer: Any = None, options: WebOptions | None = None
    ) -> None:
        super().__init__(options, answer)
        self.wire = MemoryWire()
        self.layer = self.wire.speaker = TlsLayer(self.wire, self.hub, make_context(Tls(certificate=certificate)))
        context = ssl.create_default_context(cafile=str(certificate))
        if alpn:
            context.set_alpn_protocols(alpn)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def exchange_bytes(self) -> None:
        data = self.outgoing.read()
        if data:
            self.layer.receive(data)
        self.loop.settle()
        self.incoming.write(self.wire.take())

    def shake(self) -> None:
        for _ in range(4):
            try:
                self.client.do_handshake()
            except ssl.SSLWantReadError:
                self.exchange_bytes()
        self.exchange_bytes()

    def read(self) -> bytes:
        found = b""
        try:
            while piece := self.client.read(65536):
                found += piece
        except ssl.SSLWantReadError:
            pass
        return found

    def ask(self, data: bytes) -> bytes:
        self.client.write(data)
        self.exchange_bytes()
        return self.read()


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_request_over_tls_is_secure(certificate):
    peer = Peer(certificate, alpn=["http/1.1"], answer=echo)
    peer.shake()
    assert peer.client.selected_alpn_protocol() == "http/1.1"
    assert answers(peer.ask(GET)) == [(200, b"GET / ")]
    assert peer.exchanges[0].is_secure


def test_http_2_is_chosen_by_alpn(certificate):
    peer = Peer(certificate, alpn=["h2", "http/1.1"])
    peer.shake()
    assert peer.client.selected_alpn_protocol() == "h2"
    assert peer.ask(PREFACE + b"\0\0\0\4\0\0\0\0\0")[3:4] == b"\4"


def test_http_2_with_prior_knowledge_needs_no_alpn(certificate):
    peer = Peer(certificate)
    peer.shake()
    assert peer.ask(PREFACE[:5]) == b""
    assert peer.ask(PREFACE[5:] + b"\0\0\0\4\0\0\0\0\0")[3:4] == b"\4"


def test_a_long_answer_is_encrypted_as_it_is_taken(certificate):
    body = bytes(range(256)) * 8000
    peer = Peer(certificate, answer=lambda exchange: exchange.respond(200, (), body))
    peer.shake()
    peer.wire.blocked = True
    peer.client.write(GET)
    peer.layer.receive(peer.outgoing.read())
    assert peer.wire.buffered < 2 * HIGH_BYTES
    assert peer.layer.buffered > len(body)
    while peer.layer.buffered:
        peer.wire.unblock()
        peer.loop.settle()
    peer.incoming.write(peer.wire.take())
    assert answers(peer.read()) == [(200, body)]


def test_a_long_body_is_decrypted(certificate):
    peer = Peer(certificate, answer=lambda exchange: exchange.respond(200, (), b"%d" % len(exchange.body)))
    peer.shake()
    assert answers(peer.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)) == [
        (200, b"1000000")
    ]


def test_small_pieces_share_a_record(certificate):
    peer = Peer(certificate)
    peer.shake()
    peer.ask(GET)
    stream = peer.exchanges[0].stream(200, ())
    peer.wire.blocked = True
    stream.write(b"x" * 2 * HIGH_BYTES)
    for _ in range(1000):
        stream.write(b"y")
    assert peer.layer._waiting > HIGH_BYTES
    stream.end()
    while peer.layer.buffered:
        peer.wire.unblock()
        peer.loop.settle()
    sent = peer.wire.take()
    peer.incoming.write(sent)
    assert answers(peer.read()) == [(200, b"x" * 2 * HIGH_BYTES + b"y" * 1000)]
    assert len(sent) < 2 * HIGH_BYTES + 1000 * 10


def test_the_end_is_said_so_that_nothing_looks_cut_off(certificate):
    peer = Peer(certificate, answer=echo)
    peer.shake()
    answer = peer.ask(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answers(answer) == [(200, b"GET / ")]
    assert peer.client.read(100) == b""
    assert peer.wire.is_finished


def test_a_client_that_says_goodbye_is_let_go(certificate):
    peer = Peer(certificate, answer=echo)
    peer.shake()
    peer.ask(GET)
    with pytest.raises(ssl.SSLWantReadError):
        peer.client.unwrap()
    peer.exchange_bytes()
    assert peer.wire.is_finished


def test_what_is_no_tls_is_closed_with_an_alert(certificate):
    desk = Desk()
    wire = MemoryWire()
    TlsLayer(wire, desk.hub, make_context(Tls(certificate=certificate))).receive(b"\x16\x03\x01\x00\x05hello")
    assert wire.is_finished
    assert wire.take()[:1] == b"\x15"


def test_a_peer_that_goes_away_is_reported(certificate):
    peer = Peer(certificate)
    peer.shake()
    peer.ask(GET)
    closed: list[int] = []
    peer.exchanges[0].on_close = lambda: closed.append(1)
    peer.layer.lost()
    assert closed == [1]


def test_a_handshake_that_takes_too_long_is_broken_off(certificate):
    desk = Desk(WebOptions(request_s=60))
    wire = MemoryWire()
    layer = TlsLayer(wire, desk.hub, make_context(Tls(certificate=certificate)))
    layer.receive(b"\x16\x03\x01")
    desk.sweep(layer, 61)
    assert wire.is_aborted


def test_a_certificate_is_made_once_for_this_machine_and_kept_to_its_owner(tmp_path):
    folder = tmp_path / "data" / "tls"
    path = keep_certificate(folder)
    made = path.read_bytes()
    assert keep_certificate(folder) == path
    assert path.read_bytes() == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    names = x509.load_pem_x509_certificate(made).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert [entry.name for entry in folder.iterdir()] == ["localhost.pem"]


def test_a_certificate_that_cannot_be_read_is_made_anew(tmp_path):
    path = keep_certificate(tmp_path)
    path.write_bytes(b"-----BEGIN nonsense")
    keep_certificate(tmp_path)
    assert make_context(Tls(certificate=path))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot keep the certificate in"):
        keep_certificate(tmp_path / "file")


def test_without_cryptography_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    with pytest.raises(UsageError, match=r"pip install 'kflow-streams\[tls\]'"):
        keep_certificate(tmp_path)


def test_certificates_that_cannot_be_used_are_named_with_the_fix(tmp_path, certificate):
    other = keep_certificate(tmp_path / "other")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nothing")
    for tls, text in (
        (Tls(certificate=tmp_path / "missing.pem"), "there is no file"),
        (Tls(certificate=nonsense), "must be PEM files"),
        (Tls(certificate=certificate, key=other), "belong together"),
        (Tls(key=certificate), "give both"),
        (Tls(), "needs a certificate"),
    ):
        with pytest.raises(UsageError, match=text):
            make_context(tls)
