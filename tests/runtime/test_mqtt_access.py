"""Who may use the broker, and what keeps messages whole and unread on the way."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

for package in ("paho.mqtt", "argon2", "starlette", "cryptography"):
    pytest.importorskip(package)

from tagclip.runtime.errors import ConfigError, SyncError
from tagclip.runtime.station.mqtt_access import access_of
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.sync_seal import DOWN, OVERHEAD_BYTES, SEALED, UP, Seal, secret_of


def test_a_seal_opens_for_its_way_its_place_and_its_token_alone() -> None:
    """Against AESGCM, HMAC and gzip of other makers than the module itself: the form of docs/link.md."""
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    token = "t" * 43
    secret = hashlib.sha256(token.encode()).digest()
    key = hmac.new(secret, b"tagclip mqtt 1 up", hashlib.sha256).digest()
    data = Seal(secret).close(UP, b"topic\ncorrelation", {"a": 1}, b"body" * 200)
    plain = AESGCM(key).decrypt(data[1:13], data[13:], b"\x01topic\ncorrelation")
    line, _, body = plain.partition(b"\n")
    assert json.loads(line) == {"a": 1, "packed": True} and gzip.decompress(body) == b"body" * 200
    assert Seal(secret).password == hmac.new(secret, b"tagclip mqtt 1 password", hashlib.sha256).hexdigest()
    opened = Seal(secret_of(token)).open(UP, b"topic\ncorrelation", data, 1000)
    assert opened == ({"a": 1}, b"body" * 200)
    for way, place, text, most in (
        (DOWN, b"topic\ncorrelation", token, 1000),
        (UP, b"topic\ncorrelatioN", token, 1000),
        (UP, b"topic\ncorrelation", "u" * 43, 1000),
        (UP, b"topic\ncorrelation", token, 700),
    ):
        with pytest.raises(SyncError):
            Seal(secret_of(text)).open(way, place, data, most)
    for cut in range(len(data)):
        with pytest.raises(SyncError):
            Seal(secret).open(UP, b"topic\ncorrelation", data[:cut], 1000)
    with pytest.raises(SyncError, match="at most"):
        Seal(secret).open(UP, b"", SEALED + bytes(1000 + OVERHEAD_BYTES), 1000)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtts://a:b@host:8883", "seen by everybody"),
        ("mqtt://host:1883", "over TLS only"),
        ("mqtts://host:8883/topic", "expected mqtts://"),
        ("mqtts://host:0", "HOST:PORT"),
        ("mqtts://", "HOST:PORT"),
        ("host:8883", "expected mqtts://"),
    ],
)
def test_a_url_that_cannot_be_used_says_why(url: str, expected: str, tmp_path: Path) -> None:
    ca = own_identity(tmp_path, ["127.0.0.1"]).ca
    with pytest.raises(ConfigError, match=expected):
        access_of(url, "password", None, ca)


def test_the_password_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    ca = own_identity(tmp_path, ["127.0.0.1"]).ca
    (tmp_path / "password").write_text("from the file\n")
    found = access_of("mqtts://host", "environment", tmp_path / "password", ca)
    assert (found.address, found.user, found.password) == ("host:8883", "~station", "from the file")
    found = access_of("mqtts://%40me@[::1]:99", "environment", None, ca)
    assert (found.address, found.user, found.password) == ("[::1]:99", "@me", "environment")
    for password, file, authority in ((None, None, ca), ("p", tmp_path / "none", ca), ("p", None, tmp_path)):
        with pytest.raises(ConfigError, match="--mqtt"):
            access_of("mqtts://host", password, file, authority)
