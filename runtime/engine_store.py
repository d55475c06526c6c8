"""Engines beside the graphs that they were built from: `<bundle>/engines/<runtime>-<version>-<gpu>-<precision>/`.

An engine runs on the runtime version and the GPU that it was built for, and computes what the bundle's graphs did when
it was built. `open_engine` refuses all others by name. The hashes find damage, not malice: no signature covers
`engines/`, and a runtime trusts an engine like a program. docs/engines.md says more.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import ENGINES
from tagclip.runtime.engine_facts import MIXED, EngineFacts, Target, key, parse_facts
from tagclip.runtime.errors import BundleManifestError, EngineMismatchError
from tagclip.runtime.fields import MAX_JSON_BYTES, parse_object
from tagclip.runtime.files import open_unfollowed

FACTS = "engine.json"
TIMING_CACHE = "timing.cache"
MAX_TIMING_CACHE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Engine:
    """A checked engine folder; made by `open_engine` only."""

    path: Path
    facts: EngineFacts

    def read_tower(self, name: str) -> bytes:
        """The engine of tower `name`, hashed again: what was swapped since the folder was opened is refused.

        Raises:
            EngineMismatchError: there is none of that name, or it is not any more what it was.
        """
        if name not in self.facts.towers:
            raise _refusal(self.path, f"no engine of {name}, only of {', '.join(sorted(self.facts.towers))}")
        tower = self.facts.towers[name]
        data = _read(self.path / tower.file, tower.bytes)
        if len(data) != tower.bytes or hashlib.sha256(data).hexdigest() != tower.sha256:
            raise _refusal(
                self.path,
                f"{tower.file} was truncated or altered: expected {tower.bytes} bytes with SHA-256 "
                f"{tower.sha256[:12]}..., found {len(data)} with {hashlib.sha256(data).hexdigest()[:12]}...",
            )
        return data


def engine_path(bundle: Bundle, target: Target) -> Path:
    """Where the engine of this bundle for `target` lies, or would."""
    return bundle.path / ENGINES / key(target, precision(bundle))


def precision(bundle: Bundle) -> str:
    """The precision that all graphs of the bundle have: "fp32", "fp16" or "int8", else "mixed"."""
    found = {tower.facts.precision for tower in bundle.manifest.towers.values()}
    return found.pop() if len(found) == 1 else MIXED


def list_engines(bundle: Bundle) -> list[Path]:
    """What lies in `engines/`, sorted by name, whatever it is; without what a killed build left."""
    folder = bundle.path / ENGINES
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def open_engine(bundle: Bundle, folder: Path, target: Target) -> Engine:
    """Check an engine folder in full: what it was built for and from, and every byte of it.

    Args:
        bundle: the opened bundle whose towers the engine has to have.
        folder: one of `list_engines`.
        target: what is to run it.

    Raises:
        EngineMismatchError: it is of another runtime, version, GPU or bundle; a file is missing, altered, truncated,
            unlisted or a link; engine.json is unreadable. The message names the folder and the way out.
    """
    facts = read_facts(folder)
    found = facts.target
    names = sorted(bundle.manifest.towers)
    # What it runs on first: it is what a person can most easily have mixed up.
    compared = [
        ("runtime", target.runtime, found.runtime),
        (f"{target.runtime} version", target.version, found.version),
        ("GPU capability", target.capability, found.capability),
        ("GPU", found.gpu if target.portable else target.gpu, found.gpu),
        ("encoder id", bundle.encoder_id, facts.encoder_id),
        ("precision", precision(bundle), facts.precision),
        ("engines of", ", ".join(names), ", ".join(sorted(facts.towers))),
    ]
    for what, expected, got in compared:
        if expected != got:
            raise _refusal(folder, f"expected {what} {expected}, found {got}", target.runtime)
    for name in names:
        graph, built_from = bundle.sha256[bundle.manifest.towers[name].file], facts.towers[name].graph_sha256
        if graph != built_from:
            raise _refusal(
                folder,
                f"the engine of {name} was built from a graph with SHA-256 {built_from[:12]}..., "
                f"expected {graph[:12]}...",
                target.runtime,
            )
    listed = {FACTS, TIMING_CACHE, *(tower.file for tower in facts.towers.values())}
    if odd := sorted(set(os.listdir(folder)) - listed):
        raise _refusal(folder, f"{odd[0]!r} does not belong there")
    engine = Engine(folder, facts)
    for name in names:
        engine.read_tower(name)
    return engine


def read_facts(folder: Path) -> EngineFacts:
    """engine.json of a folder, every field checked; nothing of it is compared with a bundle.

    Raises:
        EngineMismatchError: it cannot be read, or a field is absent, unknown, of the wrong type or out of range.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise _refusal(folder, "expected a folder, found a link or a file; remove it")
    try:
        return parse_facts(parse_object(_read(folder / FACTS, MAX_JSON_BYTES), FACTS))
    except BundleManifestError as error:
        raise _refusal(folder, str(error).removesuffix("; fetch the bundle again")) from error


def read_timing_cache(folder: Path) -> bytes:
    """The timing cache that an earlier build left in `folder`; empty where there is none.

    Raises:
        EngineMismatchError: it is not a plain file, or too large.
    """
    path = folder / TIMING_CACHE
    return _read(path, MAX_TIMING_CACHE_BYTES) if os.path.lexists(path) else b""


def _read(path: Path, limit_bytes: int) -> bytes:
    """A plain file in an engine folder; follows no link, waits on no pipe."""
    try:
        descriptor = open_unfollowed(path)
    except OSError as error:
        raise _refusal(
            path.parent, f"{path.name} is not readable as a plain file ({error.strerror})"
        ) from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit_bytes:
            raise _refusal(
                path.parent,
                f"{path.name} was altered: expected a plain file of at most {limit_bytes} bytes, "
                f"found {status.st_size}",
            )
        return file.read(limit_bytes)


def _refusal(folder: Path, what: str, runtime: str | None = None) -> EngineMismatchError:
    # Whoever made the folder chose its name; escaped, none can rewrite the operator's terminal.
    shown = repr(str(folder))[1:-1]
    choice = "" if runtime is None else f" --engine {runtime}"
    return EngineMismatchError(
        f"{shown}: {what}; build it on this machine: `tagclip bundle build {folder.parent.parent}{choice}`"
    )
