"""The certificate that a server makes for itself where it is given none: for this machine, vouched for by nobody."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from pathlib import Path

from kflow.errors import StorageError, UsageError

_FILE = "localhost.pem"
_DAYS = 820
"""chosen: some clients refuse certificates that are valid for longer than 825 days."""
_RENEWED_DAYS = 30
"""A certificate that ends sooner is made anew at start."""


def keep_certificate(folder: Path) -> Path:
    """The PEM file of a certificate for `localhost`, `127.0.0.1` and `::1`, with its key; made if there is no fit one.

    Clients are given the same file to trust: as `AWS_CA_BUNDLE`, or `NODE_EXTRA_CA_CERTS`.

    Raises:
        UsageError: `cryptography` is not installed, and one has to be made.
        StorageError: it cannot be kept in `folder`.
    """
    path = folder / _FILE
    if path.is_file() and _is_fit(path):
        return path
    try:
        made = _make()
    except ImportError as error:
        raise UsageError(
            "making a certificate needs the package cryptography: pip install 'kflow-streams[tls]', "
            "or give a certificate (--tls-cert, --tls-key)"
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = folder / f"{_FILE}.{os.getpid()}"
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise StorageError(f"cannot keep the certificate in {folder}: {error}") from error
    return path


def _is_fit(path: Path) -> bool:
    """Whether it can be read, and is valid for some time yet. Without `cryptography` it is taken as it is."""
    try:
        from cryptography import x509
    except ImportError:
        return True
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    return left > dt.timedelta(days=_RENEWED_DAYS)


def _make() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())  # a handshake with it takes a tenth of one with RSA
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
