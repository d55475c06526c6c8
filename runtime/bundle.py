"""Opening a bundle: the folder that a device needs. Nothing in it is parsed before all of it was checked.

In this order: the folder, bundle.json (version, fields, file names), SHA256SUMS against what lies there, the
encoder id. Graphs and tokenizer are only bytes here. docs/format.md is the specification.
"""

from __future__ import annotations

import hashlib
import os
import re
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
from tagclip.runtime.fields import MAX_JSON_BYTES, canonical_json, parse_object
from tagclip.runtime.preprocess import PreprocessSpec

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
        return data


def shipped_bundle_path() -> Path:
    """The folder of the bundle that ships with the package (it may be absent)."""
    return Path(str(resources.files("tagclip.runtime"))) / "data" / "bundle"


def open_bundle(path: Path | None) -> Bundle:
    """Check a bundle and return it; None means the one that ships with the package.

    The folder itself may be a symbolic link (that is how a device switches between two slots); what lies in
    it may not. Hard links are accepted: package installers make them, and the hash says what a file is.

    Raises:
        BundleMissingError: no such folder, or no bundle.json in it.
        BundleVersionError: the bundle's format is newer than this program.
        BundleManifestError: bundle.json is unreadable, or a field is absent, of the wrong type or unsafe.
        BundleIntegrityError: a file is missing, altered, not listed or a link, or the encoder id is wrong.
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
    manifest = parse_manifest(parse_object(_read(path / MANIFEST, MAX_JSON_BYTES), MANIFEST))
    sha256 = _check_files(path, manifest)
    graphs = {name: sha256[tower.file] for name, tower in manifest.towers.items()}
    tokenizer = manifest.tokenizer
    found = encoder_id(
        graphs, manifest.preprocess, sha256[tokenizer.file], tokenizer.context_length, tokenizer.pad_id
    )
    if found != manifest.encoder_id:
        raise BundleIntegrityError(
            f"{MANIFEST}: encoder_id is {manifest.encoder_id}, but these files make {found}; {_AGAIN}"
        )
    return Bundle(path, manifest, sha256)


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


def _check_files(path: Path, manifest: Manifest) -> dict[str, str]:
    """Compare the folder with SHA256SUMS and the manifest; return the digests."""
    listed = _read_sums(path)
    present = set()
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.is_symlink():
            raise BundleIntegrityError(
                f"{entry.path} is a symbolic link; a bundle holds plain files, {_AGAIN}"
            )
        if entry.name == ENGINES and entry.is_dir():
            continue
        if entry.name not in (SUMS, SIGNATURE):
            present.add(entry.name)
    if unlisted := sorted(present - set(listed)):
        raise BundleIntegrityError(f"{path / unlisted[0]} is not listed in {SUMS}; remove it or {_AGAIN}")
    if missing := sorted(set(listed) - present):
        raise BundleIntegrityError(f"{path / missing[0]} is listed in {SUMS} but is not there; {_AGAIN}")
    for name in (MANIFEST, manifest.tokenizer.file, *(tower.file for tower in manifest.towers.values())):
        if name not in listed:
            raise BundleIntegrityError(f"{path}: {name} is needed but {SUMS} does not list it; {_AGAIN}")
    for name, expected in listed.items():
        found = _hash(path / name)
        if found != expected:
            raise BundleIntegrityError(
                f"{path / name} was truncated or altered: expected SHA-256 {expected[:12]}..., "
                f"found {found[:12]}...; {_AGAIN}"
            )
    return listed


def _read_sums(path: Path) -> dict[str, str]:
    """SHA256SUMS in the one form it may have: `sha256sum` lines, sorted by name, LF, nothing else."""
    if not os.path.lexists(path / SUMS):
        raise BundleIntegrityError(f"{path} has no {SUMS}; {_AGAIN}")
    text = _read(path / SUMS, MAX_SUMS_BYTES).decode("utf-8", errors="replace")
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
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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
