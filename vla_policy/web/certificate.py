"""A self-made certificate, so that a phone's connection is encrypted without an authority."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vla_policy.web.security import write_private

VALID = datetime.timedelta(days=397)  # longer ones are refused by browsers
RENEWED = datetime.timedelta(days=7)  # before the end


def certificate(folder: Path, names: Sequence[str]) -> tuple[Path, str]:
    """A file with certificate and key for these names and addresses, and the SHA-256 fingerprint that a browser shows.

    The one in `folder` is kept as long as it is valid, so that a phone has to be told once; only the user can read it.
    """
    path = folder / "certificate.pem"
    found = _valid(path, names)
    if found is None:
        found = _make(path, names)
    digest = found.fingerprint(hashes.SHA256()).hex().upper()
    return path, ":".join(digest[k : k + 2] for k in range(0, len(digest), 2))


def _valid(path: Path, names: Sequence[str]) -> x509.Certificate | None:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        known = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return None
    late = found.not_valid_after_utc - RENEWED < datetime.datetime.now(datetime.UTC)
    return None if late or set(known) != set(map(_general, names)) else found


def _make(path: Path, names: Sequence[str]) -> x509.Certificate:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vla-web")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([_general(each) for each in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(path, secret + made.public_bytes(serialization.Encoding.PEM))
    return made


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
