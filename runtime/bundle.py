"""Opening a bundle: the folder that a device needs. Nothing in it is parsed before all of it was checked.

In this order: the folder; the signature, if a public key is given; bundle.json (version, fields, file names);
SHA256SUMS against what lies there; the encoder id; that no graph takes weights from elsewhere. Nothing else is
read in a graph, and the tokenizer is only bytes here. docs/format.md is the specification.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tagclip.runtime.bundle_manifest import (
    ENGINES,
    MANIFEST,
    SIGNATURE,
    SUMS,
    Manifest,
    is_plain_name,
    parse_manifest,
)
from tagclip.runtime.errors import BundleIntegrityError, BundleManifestError, BundleMissingError
from tagclip.runtime.external_data import refuse_external_data
from tagclip.runtime.fields import MAX_JSON_BYTES, canonical_json, parse_object
from tagclip.runtime.files import open_unfollowed
from tagclip.runtime.keys import PublicKey
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.runtime.signature import MAX_SIGNATURE_BYTES, check_signature

MAX_FILE_BYTES = 2**31 - 1  # what one ONNX file can hold
MAX_SUMS_BYTES = 64 * 1024

_SUMS_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_AGAIN = "fetch the bundle again"


@dataclass(frozen=True)
class Bundle:
    """A checked bundle; made by `open_bundle` and `write_bundle` only."""

    path: Path
    manifest: Manifest
    sha256: Mapping[str, str]  # file name -> hexadecimal digest, every file that SHA256SUMS lists

    @property
    def encoder_id(self) -> str:
        """The fingerprint that stands on every vector this bundle makes."""
        return self.manifest.encoder_id

    def has(self, name: str) -> bool:
        """Whether the bundle lists the optional file `name`, such as scores.json."""
        return name in self.sha256

    def read_file(self, name: str) -> bytes:
        """The bytes of a listed file, hashed again: what was swapped since the bundle was opened is refused.

        Raises:
            BundleMissingError: the bundle does not list `name`.
            BundleIntegrityError: it is not any more what it was when the bundle was opened.
        """
        if name not in self.sha256:
            raise BundleMissingError(f"{self.path} has no {name}; it holds {', '.join(sorted(self.sha256))}")
        data = _read(self.path / name, MAX_FILE_BYTES)
        if hashlib.sha256(data).hexdigest() != self.sha256[name]:
            raise BundleIntegrityError(f"{self.path / name} changed after the bundle was opened; {_AGAIN}")
        if any(name == tower.file for tower in self.manifest.towers.values()):
            # Walked again: what was hashed and walked at the opening may have been two different files.
            refuse_external_data(io.BytesIO(data), str(self.path / name))
        return data


def shipped_bundle_path() -> Path:
    """The folder of the bundle that ships with the package (it may be absent)."""
    return Path(str(resources.files("tagclip.runtime"))) / "data" / "bundle"


def open_bundle(path: Path | None, *, public_key: PublicKey | None = None) -> Bundle:
    """Check a bundle and return it; None means the one that ships with the package.

    The folder itself may be a symbolic link (that is how a device switches between two slots); what lies in
    it may not. Hard links are accepted: package installers make them, and the hash says what a file is.

    Args:
        path: the folder.
        public_key: whose signature is required; None requires none and checks none.

    Raises:
        BundleMissingError: no such folder, or no bundle.json in it.
        BundleSignatureError: `public_key` did not sign it.
        MissingExtraError: a signature is required and cryptography is not installed.
        BundleVersionError: the bundle's format is newer than this program.
        BundleManifestError: bundle.json is unreadable, or a field is absent, of the wrong type or unsafe.
        BundleIntegrityError: a file is missing, altered, not listed or a link, the encoder id is wrong, or a
            graph takes weights from another file.
    """
    if path is None:
        path = shipped_bundle_path()
        if not path.is_dir():
            raise BundleMissingError(
                f"this tagclip ships no bundle (expected {path}); name one with --bundle DIR"
            )
    if not path.is_dir():
        raise BundleMissingError(f"{path} is not a folder; expected a bundle, as `tagclip export` writes it")
    if not os.path.lexists(path / MANIFEST):
        raise BundleMissingError(
            f"{path} has no {MANIFEST}; expected a bundle, as `tagclip export` writes it"
        )
    if public_key is not None:  # then not even JSON is parsed that it does not vouch for
        sums = _read_sums(path)
        check_signature(sums, _read_signature(path), public_key, str(path))
        sha256 = parse_sums(path, sums)
        data = _read(path / MANIFEST, MAX_JSON_BYTES)
        _expect_sha256(path, MANIFEST, hashlib.sha256(data).hexdigest(), sha256)
        manifest = parse_manifest(parse_object(data, MANIFEST))
    else:
        data = _read(path / MANIFEST, MAX_JSON_BYTES)
        manifest = parse_manifest(parse_object(data, MANIFEST))
        sha256 = parse_sums(path, _read_sums(path))
    # Of bundle.json the very bytes that were parsed: it may have been swapped since they were read.
    _check_files(path, manifest, sha256, {MANIFEST: hashlib.sha256(data).hexdigest()})
    _read_signature(path)  # also unasked for, it has to be a small plain file
    graphs = {name: sha256[tower.file] for name, tower in manifest.towers.items()}
    tokenizer = manifest.tokenizer
    found = encoder_id(
        graphs, manifest.preprocess, sha256[tokenizer.file], tokenizer.context_length, tokenizer.pad_id
    )
    if found != manifest.encoder_id:
        raise BundleIntegrityError(
            f"{MANIFEST}: encoder_id is {manifest.encoder_id}, but these files make {found}; {_AGAIN}"
        )
    for tower in manifest.towers.values():
        with open(_open_plain(path / tower.file, MAX_FILE_BYTES), "rb") as file:
            refuse_external_data(file, str(path / tower.file))
    return Bundle(path, manifest, sha256)


def copy_bundle(bundle: Bundle, target: Path) -> None:
    """Copy what SHA256SUMS lists, SHA256SUMS and SIGNATURE into an existing folder; `engines` stays behind.

    The copy is to be opened for itself: what is copied may not be any more what was checked.

    Raises:
        BundleIntegrityError: a file became something else than a plain file.
        OSError: `target` cannot be written.
    """
    names = [*bundle.sha256, SUMS]
    if os.path.lexists(bundle.path / SIGNATURE):
        names.append(SIGNATURE)
    for name in names:
        source = _open_plain(bundle.path / name, MAX_FILE_BYTES)
        with open(source, "rb") as reader, open(target / name, "xb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)


def sums_bytes(sha256: Mapping[str, str]) -> bytes:
    """SHA256SUMS in the one form that it may have.

    Args:
        sha256: file name -> hexadecimal digest, of every file that it lists.
    """
    return "".join(f"{sha256[name]}  {name}\n" for name in sorted(sha256)).encode("ascii")


def encoder_id(
    graph_sha256: Mapping[str, str],
    preprocess: PreprocessSpec,
    tokenizer_sha256: str,
    context_length: int,
    pad_id: int,
) -> str:
    """The fingerprint of everything that decides what vector comes out: graphs, preprocessing, tokenizer.

    Args:
        graph_sha256: tower name -> hexadecimal SHA-256 of the graph's bytes.
        preprocess: how crops are made.
        tokenizer_sha256: hexadecimal SHA-256 of the tokenizer's bytes.
        context_length: tokens in a text.
        pad_id: the token that fills a short text.

    Returns:
        "tc1-" and the first 16 hexadecimal digits of the SHA-256 of the canonical JSON of these five.
    """
    parts = {
        "towers": dict(graph_sha256),
        "preprocess": preprocess.to_json(),
        "tokenizer": {"sha256": tokenizer_sha256, "context_length": context_length, "pad_id": pad_id},
    }
    return "tc1-" + hashlib.sha256(canonical_json(parts)).hexdigest()[:16]


def _check_files(path: Path, manifest: Manifest, listed: Mapping[str, str], known: Mapping[str, str]) -> None:
    """Compare the folder with SHA256SUMS (`listed`) and the manifest; `known` are digests of what was read already."""
    present = set()
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        # Whoever made the folder chose the names; quoted, none can rewrite the operator's terminal.
        if entry.is_symlink():
            raise BundleIntegrityError(
                f"{path}: {entry.name!r} is a symbolic link; a bundle holds plain files, {_AGAIN}"
            )
        if entry.name == ENGINES and entry.is_dir():
            continue
        if entry.name not in (SUMS, SIGNATURE):
            present.add(entry.name)
    if unlisted := sorted(present - set(listed)):
        raise BundleIntegrityError(f"{path}: {unlisted[0]!r} is not listed in {SUMS}; remove it or {_AGAIN}")
    if missing := sorted(set(listed) - present):
        raise BundleIntegrityError(f"{path / missing[0]} is listed in {SUMS} but is not there; {_AGAIN}")
    for name in (MANIFEST, manifest.tokenizer.file, *(tower.file for tower in manifest.towers.values())):
        if name not in listed:
            raise BundleIntegrityError(f"{path}: {name} is needed but {SUMS} does not list it; {_AGAIN}")
    for name in listed:
        _expect_sha256(path, name, known.get(name) or _hash(path / name), listed)


def _expect_sha256(path: Path, name: str, found: str, listed: Mapping[str, str]) -> None:
    expected = listed.get(name)
    if expected is None:
        raise BundleIntegrityError(f"{path}: {name} is needed but {SUMS} does not list it; {_AGAIN}")
    if found != expected:
        raise BundleIntegrityError(
            f"{path / name} was truncated or altered: expected SHA-256 {expected[:12]}..., "
            f"found {found[:12]}...; {_AGAIN}"
        )


def _read_sums(path: Path) -> bytes:
    if not os.path.lexists(path / SUMS):
        raise BundleIntegrityError(f"{path} has no {SUMS}; {_AGAIN}")
    return _read(path / SUMS, MAX_SUMS_BYTES)


def _read_signature(path: Path) -> bytes | None:
    """The bytes of SIGNATURE, None if there is none."""
    if not os.path.lexists(path / SIGNATURE):
        return None
    return _read(path / SIGNATURE, MAX_SIGNATURE_BYTES)


def parse_sums(path: Path, sums: bytes) -> dict[str, str]:
    """SHA256SUMS in the one form it may have: `sha256sum` lines, sorted by name, LF, nothing else.

    Args:
        path: the bundle's folder, for messages.
        sums: the file's bytes.

    Returns:
        file name -> hexadecimal digest.

    Raises:
        BundleIntegrityError: another form, or a name that is not plain.
    """
    text = sums.decode("utf-8", errors="replace")
    lines = text.split("\n")
    if lines.pop() != "":
        raise BundleIntegrityError(
            f"{path / SUMS} does not end with a line end, so it was truncated; {_AGAIN}"
        )
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _SUMS_LINE.fullmatch(line)
        if match is None or not is_plain_name(match[2]) or match[2] in (SUMS, SIGNATURE, ENGINES):
            raise BundleIntegrityError(
                f"{path / SUMS} line {number}: expected 64 hexadecimal digits, two spaces, a plain name; "
                f"found {line[:100]!r}; {_AGAIN}"
            )
        listed[match[2]] = match[1]
    if list(listed) != sorted(listed) or len(listed) != len(lines):
        raise BundleIntegrityError(f"{path / SUMS} is not sorted by name, or names a file twice; {_AGAIN}")
    return listed


def _open_plain(path: Path, limit_bytes: int) -> int:
    """A descriptor of a regular file of at most `limit_bytes`; follows no link, waits on no pipe."""
    try:
        descriptor = open_unfollowed(path)
    except OSError as error:
        raise BundleIntegrityError(
            f"{path} is not readable as a plain file ({error.strerror}); {_AGAIN}"
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise BundleIntegrityError(f"{path} is not a plain file; {_AGAIN}")
    if status.st_size > limit_bytes:
        os.close(descriptor)
        kind = BundleManifestError if path.name == MANIFEST else BundleIntegrityError
        raise kind(f"{path} has {status.st_size} bytes, expected at most {limit_bytes}; {_AGAIN}")
    return descriptor


def _read(path: Path, limit_bytes: int) -> bytes:
    with open(_open_plain(path, limit_bytes), "rb") as file:
        return file.read(limit_bytes + 1)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(_open_plain(path, MAX_FILE_BYTES), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
