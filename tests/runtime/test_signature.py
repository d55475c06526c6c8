"""Keys, SIGNATURE, and bundles that are signed: against RFC 8032 and against openssl."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tagclip.runtime.bundle import Bundle, open_bundle, sums_bytes
from tagclip.runtime.bundle_sign import sign_bundle
from tagclip.runtime.errors import BundleIntegrityError, BundleSignatureError, KeyFileError, MissingExtraError
from tagclip.runtime.keys import PrivateKey, PublicKey, is_private, read_private_key, read_public_key
from tagclip.runtime.signature import PREFIX, check_signature, make_signature

# RFC 8032, section 7.1, tests 1 to 3: private key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
SEED = bytes(range(32))


def pem(key: Any, encryption: KeySerializationEncryption | None = None) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "private.pem"
    path.write_bytes(pem(Ed25519PrivateKey.from_private_bytes(SEED)))
    path.chmod(0o600)
    return path


@pytest.fixture
def key(key_file: Path) -> PrivateKey:
    return read_private_key(key_file, no_passphrase)


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "b"))


def no_passphrase() -> str:
    raise AssertionError("asked for a passphrase that nothing needs")


@pytest.mark.parametrize(("private", "public", "message", "signature"), RFC_8032)
def test_rfc_8032(private: str, public: str, message: str, signature: str) -> None:
    key = PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private)))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert PublicKey(bytes.fromhex(public)).verifies(bytes.fromhex(signature), bytes.fromhex(message))
    assert not PublicKey(bytes.fromhex(public)).verifies(
        bytes.fromhex(signature), bytes.fromhex(message) + b"x"
    )


def test_openssl_agrees(copy: Path, tmp_path: Path) -> None:
    """A key that openssl made signs here, and openssl verifies it by docs/format.md alone."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")

    def openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    private, public = tmp_path / "p.pem", tmp_path / "q.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    sign_bundle(copy, read_private_key(private, no_passphrase))
    head, key_id, signature = (copy / "SIGNATURE").read_text().splitlines()
    assert head == "tagclip-signature 1"
    raw = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", public, "-outform", "DER"], check=True, capture_output=True
    ).stdout[-32:]
    assert key_id == f"key-id {hashlib.sha256(raw).hexdigest()[:16]}"
    (tmp_path / "message").write_bytes(b"tagclip bundle signature 1\n" + (copy / "SHA256SUMS").read_bytes())
    (tmp_path / "signature").write_bytes(bytes.fromhex(signature.removeprefix("ed25519 ")))
    verify = ("pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", tmp_path / "message")
    openssl(*verify, "-sigfile", tmp_path / "signature")
    assert open_bundle(copy, public_key=read_public_key(public)).path == copy


def test_exact_bytes(key: PrivateKey) -> None:
    """The form, written down; Ed25519 gives the same signature for ever."""
    assert make_signature(b"abc\n", key) == (
        b"tagclip-signature 1\n"
        b"key-id " + hashlib.sha256(key.public.raw).hexdigest()[:16].encode() + b"\n"
        b"ed25519 " + key.sign(b"tagclip bundle signature 1\nabc\n").hex().encode() + b"\n"
    )


def test_sums_bytes_are_the_file(tiny_bundle: Bundle) -> None:
    assert sums_bytes(tiny_bundle.sha256) == (tiny_bundle.path / "SHA256SUMS").read_bytes()


def test_sign_and_open(copy: Path, key: PrivateKey) -> None:
    with pytest.raises(BundleSignatureError, match=f"has no SIGNATURE, expected one of key {key.public.id}"):
        open_bundle(copy, public_key=key.public)
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert sign_bundle(copy, key).path == copy
    after = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert set(after) == {*before, "SIGNATURE"} and all(after[name] == before[name] for name in before)
    assert open_bundle(copy, public_key=key.public).encoder_id == open_bundle(copy).encoder_id


def test_signing_again_replaces(copy: Path, key: PrivateKey) -> None:
    other = PrivateKey(Ed25519PrivateKey.from_private_bytes(SEED[::-1]))
    sign_bundle(copy, other)
    sign_bundle(copy, key)
    open_bundle(copy, public_key=key.public)
    with pytest.raises(
        BundleSignatureError, match=f"signed by key {key.public.id}, expected {other.public.id}"
    ):
        open_bundle(copy, public_key=other.public)


def test_signing_through_a_link_signs_the_folder(copy: Path, tmp_path: Path, key: PrivateKey) -> None:
    (tmp_path / "current").symlink_to("b")
    sign_bundle(tmp_path / "current", key)
    assert (copy / "SIGNATURE").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "current", "private.pem"]


def test_a_damaged_bundle_is_not_signed(copy: Path, key: PrivateKey) -> None:
    (copy / "text.onnx").write_bytes(b"x")
    with pytest.raises(BundleIntegrityError):
        sign_bundle(copy, key)
    assert not (copy / "SIGNATURE").exists()


def test_the_signature_is_checked_before_anything_is_parsed(copy: Path, key: PrivateKey) -> None:
    """bundle.json of an unsigned bundle is not even read as JSON; nor is a signed one's that was changed."""
    for broken in ("bundle.json", "text.onnx"):
        (copy / broken).write_bytes(b"{")
    with pytest.raises(BundleSignatureError):
        open_bundle(copy, public_key=key.public)
    (copy / "SIGNATURE").write_bytes(make_signature((copy / "SHA256SUMS").read_bytes(), key))
    with pytest.raises(BundleIntegrityError, match="bundle.json was truncated or altered"):
        open_bundle(copy, public_key=key.public)


def test_sums_without_bundle_json(copy: Path, key: PrivateKey) -> None:
    lines = (copy / "SHA256SUMS").read_text().splitlines(keepends=True)
    (copy / "SHA256SUMS").write_text("".join(line for line in lines if "bundle.json" not in line))
    (copy / "SIGNATURE").write_bytes(make_signature((copy / "SHA256SUMS").read_bytes(), key))
    with pytest.raises(BundleIntegrityError, match="bundle.json is needed but SHA256SUMS does not list it"):
        open_bundle(copy, public_key=key.public)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace(b"signature 1", b"signature 2"), "has version 2, this tagclip reads 1; upgrade"),
        (lambda s: s[:-1], "is damaged: expected three lines"),
        (lambda s: s + b"\n", "is damaged"),
        (lambda s: s.replace(b"\n", b"\r\n"), "is damaged"),
        (lambda s: s.upper(), "is damaged"),
        (lambda s: b"", "is damaged"),
        (lambda s: s.replace(b"key-id ", b"key-id 0123456789abcdef\nkey-id "), "is damaged"),
        (
            lambda s: s[:-2] + (b"0" if s[-2:-1] != b"0" else b"1") + b"\n",
            "that key did not sign this SHA256SUMS",
        ),
    ],
)
def test_signatures_that_are_refused(key: PrivateKey, change: Callable[[bytes], bytes], message: str) -> None:
    good = make_signature(b"sums", key)
    check_signature(b"sums", good, key.public, "b")
    with pytest.raises(BundleSignatureError, match=message):
        check_signature(b"sums", change(good), key.public, "b")


def test_a_signature_for_another_purpose_does_not_fit(key: PrivateKey) -> None:
    signed_bare = make_signature(b"sums", key).replace(
        key.sign(PREFIX + b"sums").hex().encode(), key.sign(b"sums").hex().encode()
    )
    with pytest.raises(BundleSignatureError, match="did not sign"):
        check_signature(b"sums", signed_bare, key.public, "b")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("required", [True, False])
def test_a_signature_is_a_plain_file(
    copy: Path, key: PrivateKey, make: Callable[[Path], None], required: bool
) -> None:
    make(copy / "SIGNATURE")
    with pytest.raises(BundleIntegrityError, match="SIGNATURE is not a plain file"):
        open_bundle(copy, public_key=key.public if required else None)


# Key files.

ED = Ed25519PrivateKey.from_private_bytes(SEED)


def test_public_key(tmp_path: Path, key: PrivateKey) -> None:
    (tmp_path / "p.pem").write_bytes(public_pem(ED))
    assert read_public_key(tmp_path / "p.pem") == key.public


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "cannot be read \\(No such file or directory\\)"),
        (b"", "expected one block BEGIN PUBLIC KEY, found 'no PEM block'"),
        (pem(ED), "found 'BEGIN PRIVATE KEY'; make it with `openssl pkey"),
        (public_pem(ED) * 2, "found 'BEGIN PUBLIC KEY, BEGIN PUBLIC KEY'"),
        (public_pem(ED).replace(b"M", b"N", 1), "cannot be read as a public key"),
        (public_pem(ed448.Ed448PrivateKey.generate()), "another kind than Ed25519"),
        (public_pem(ED) + b"\n" * 20_000, "expected one block"),
        (b"-----BEGIN \x1b[2J-----\n", r"found 'BEGIN \\x1b\[2J'"),
    ],
)
def test_public_keys_that_are_refused(tmp_path: Path, data: bytes | None, message: str) -> None:
    if data is not None:
        (tmp_path / "p.pem").write_bytes(data)
    with pytest.raises(KeyFileError, match=message):
        read_public_key(tmp_path / "p.pem")


def test_encrypted_private_key(tmp_path: Path, key: PrivateKey) -> None:
    (tmp_path / "e.pem").write_bytes(pem(ED, BestAvailableEncryption(b"secret")))
    assert read_private_key(tmp_path / "e.pem", lambda: "secret").public == key.public
    with pytest.raises(
        KeyFileError, match="cannot be read as a private key \\(wrong passphrase, or damaged\\)"
    ):
        read_private_key(tmp_path / "e.pem", lambda: "other")
    with pytest.raises(KeyFileError):
        read_private_key(tmp_path / "e.pem", lambda: "")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (public_pem(ED), "expected one block BEGIN PRIVATE KEY or BEGIN ENCRYPTED PRIVATE KEY, found"),
        (pem(rsa.generate_private_key(65537, 2048)), "another kind than Ed25519"),
        (pem(ED).replace(b"M", b"N", 1), "cannot be read as a private key"),
    ],
)
def test_private_keys_that_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "p.pem").write_bytes(data)
    with pytest.raises(KeyFileError, match=message):
        read_private_key(tmp_path / "p.pem", no_passphrase)


def test_no_message_shows_the_private_key(key: PrivateKey) -> None:
    assert SEED.hex() not in repr(key) and "Ed25519PrivateKey" not in repr(key)


def test_without_cryptography(tiny_bundle: Bundle, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tagclip\[signing\]'"):
        read_public_key(key_file)
    open_bundle(tiny_bundle.path)  # needs none


# The command line.


def test_sign_and_verify_commands(
    run: Callable[..., tuple[int, str, str]], copy: Path, key_file: Path, key: PrivateKey, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    public = tmp_path / "public.pem"
    public.write_bytes(public_pem(ED))
    status, out, err = run("bundle", "verify", copy, "--public-key", public)
    assert (status, out) == (1, "") and "has no SIGNATURE, expected one of key" in err
    status, out, err = run("bundle", "sign", copy, "--key", key_file)
    assert (status, out, err) == (0, f"signed 7 files of {copy} with key {key.public.id}\n", "")
    status, out, err = run("bundle", "verify", copy, "--public-key", public)
    assert (status, err) == (0, "") and out.startswith(f"signed by key {key.public.id}\n7 files have")
    assert is_private(key_file)
    key_file.chmod(0o644)
    status, out, err = run("bundle", "sign", copy, "--key", key_file)
    assert status == 0 and err == f"warning: other users can read {key_file}; run `chmod 600 {key_file}`\n"
