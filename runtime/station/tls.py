"""Who the station is: its own certificate authority and certificate, or files that it was given."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tagclip.runtime.errors import ConfigError, KeyFileError, MissingExtraError
from tagclip.runtime.files import write_atomic

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_DAYS, DAYS, RENEW_DAYS = 3650, 365, 30
MAX_PEM_BYTES = 256 * 1024


@dataclass(frozen=True)
class Identity:
    """Files in PEM form.

    Attributes:
        certificate: of the server, and those up to the authority.
        key: the server's private key.
        ca: what devices pin: the authority's certificate, or the last of the chain that was given.
    """

    certificate: Path
    key: Path
    ca: Path

    def fingerprint(self) -> str:
        """SHA-256 of the pinned certificate in DER form, hexadecimal."""
        return fingerprint(self.ca.read_bytes())


def fingerprint(pem: bytes) -> str:
    """SHA-256, hexadecimal, of the one certificate that `pem` holds.

    Raises:
        KeyFileError: it holds none, or more.
    """
    import ssl

    if pem.count(b"-----BEGIN CERTIFICATE-----") == 1:
        with contextlib.suppress(ValueError):
            return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode("ascii").strip())).hexdigest()
    raise KeyFileError("expected one certificate in PEM form; fetch it again")


def own_identity(folder: Path, names: list[str], now: datetime.datetime | None = None) -> Identity:
    """The station's own certificate; authority and certificate are made when they are absent.

    The certificate is made anew when it has less than 30 days left or says other names, the authority never: devices
    pin it.

    Args:
        folder: where they lie; made with access for its owner alone.
        names: host names and IP addresses that the station is reached by; "localhost" is added.

    Raises:
        ConfigError: a name that no certificate can hold.
        KeyFileError: the authority's files are damaged.
        OutputError: the folder cannot be written.
        MissingExtraError: cryptography is not installed.
    """
    require_cryptography()
    from cryptography import x509

    now = now or datetime.datetime.now(datetime.timezone.utc)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = Identity(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    ca_key_file = folder / "ca.key"
    alternatives = _alternatives(names)
    if not found.ca.exists():  # written last: a key alone is what a power cut left
        _make_ca(found.ca, ca_key_file, now)
    try:
        ca = x509.load_pem_x509_certificate(found.ca.read_bytes())
        ca_key = _load_key(ca_key_file)
    except (OSError, ValueError, TypeError) as error:
        raise KeyFileError(
            f"{folder}: ca.pem or ca.key cannot be read ({error}); put them back from a copy, or remove both and "
            "enrol every device again"
        ) from error
    if not _serves(found, ca, alternatives, now):
        _make_server(found, ca, ca_key, alternatives, now)
    return found


def given_identity(certificate: Path, key: Path, folder: Path) -> Identity:
    """Files that somebody else made; the last certificate of the chain is what devices pin, and is copied to `folder`.

    Raises:
        KeyFileError: one cannot be read, or they do not belong together.
        MissingExtraError: cryptography is not installed.
    """
    require_cryptography()
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes()[:MAX_PEM_BYTES])
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except (OSError, ValueError) as error:
        raise KeyFileError(
            f"{certificate} and {key} cannot be used ({error}); expected a chain and its key without a passphrase, PEM"
        ) from error
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pinned = folder / "given-ca.pem"
    pem = chain[-1].public_bytes(Encoding.PEM)
    if not pinned.exists() or pinned.read_bytes() != pem:
        write_atomic(pinned, pem)
    return Identity(certificate, key, pinned)


def require_cryptography() -> None:
    """Raises: MissingExtraError: cryptography is not installed."""
    try:
        import cryptography.hazmat.primitives.asymmetric.ec  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "cryptography is not installed; the station needs: pip install 'tagclip[station]'"
        ) from error


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, and that was never readable by others.

    Raises:
        OutputError: it cannot be written.
    """
    old = os.umask(0o077)
    try:
        write_atomic(path, data)
    finally:
        os.umask(old)


def _alternatives(names: list[str]) -> list[x509.GeneralName]:
    from cryptography import x509

    result: list[x509.GeneralName] = []
    for name in dict.fromkeys((*names, "localhost")):
        try:
            result.append(x509.IPAddress(ipaddress.ip_address(name)))
            continue
        except ValueError:
            pass
        try:
            if not name or len(name) > 253 or not all(c.isalnum() or c in "-." for c in name):
                raise ValueError("no host name")
            result.append(x509.DNSName(name))
        except ValueError as error:
            raise ConfigError(f"--name {name[:80]!r}: expected a host name or an IP address") from error
    return result


def _load_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} holds a key of another kind")
    return key


def _new_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def _make_ca(path: Path, key_file: Path, now: datetime.datetime) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    key = _new_key(key_file)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tagclip station authority")])
    certificate = (
        _builder(name, name, now, CA_DAYS)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    write_atomic(path, certificate.public_bytes(Encoding.PEM))


def _make_server(
    files: Identity,
    ca: x509.Certificate,
    ca_key: EllipticCurvePrivateKey,
    alternatives: list[x509.GeneralName],
    now: datetime.datetime,
) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    try:
        key = _load_key(files.key)
    except (OSError, ValueError, TypeError):
        key = _new_key(files.key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tagclip station")])
    certificate = (
        _builder(name, ca.subject, now, DAYS)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(ca_key, SHA256())
    )
    write_atomic(files.certificate, certificate.public_bytes(Encoding.PEM))


def _builder(
    name: x509.Name, issuer: x509.Name, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        # A device whose clock is a day late has to get in, or it could not learn the time either.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _serves(
    files: Identity, ca: x509.Certificate, alternatives: list[x509.GeneralName], now: datetime.datetime
) -> bool:
    """Whether the server's certificate can be used as it is."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        certificate.verify_directly_issued_by(ca)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        same_key = _load_key(files.key).public_key() == certificate.public_key()
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    left = certificate.not_valid_after_utc - now
    return same_key and set(names) == set(alternatives) and left > datetime.timedelta(days=RENEW_DAYS)
