"""The vectors that a bundle has to give, and whether what runs a tower gives them; one tower at a time."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import Tower
from tagclip.runtime.engine import NORM_TOLERANCE
from tagclip.runtime.errors import BundleSelfTestError, QueryError
from tagclip.runtime.preprocess import prepare
from tagclip.runtime.tokenizer import Tokenizer

PROBE = "probe.npz"
MIN_COSINE = 0.999
MAX_PROBE_BYTES = 64 * 1024 * 1024  # unpacked

Run = Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]


def tower_cosine(bundle: Bundle, tower: Tower, run: Run, engine: str = "this engine") -> float:
    """The smallest cosine of the vectors that `run` gives for the probe to those that stand in it.

    Args:
        bundle: has a probe.
        tower: the tower that `run` computes.
        run: the method `run` of an engine: input of `tower` -> float32 (N, D).
        engine: what messages call it.

    Returns:
        0.999 to 1.

    Raises:
        BundleSelfTestError: no probe, an unreadable one, vectors that do not have length 1, or a cosine under 0.999.
        EngineError: the run fails.
    """
    probe = load_probe(bundle)
    given: npt.NDArray[Any]
    if tower.view is None:
        try:
            given = Tokenizer.from_bundle(bundle).encode([str(text) for text in probe["texts"]])
        except QueryError as error:
            raise BundleSelfTestError(f"{PROBE}: texts: {error}") from error
        expected = probe["vectors_text"]
    else:
        given = prepare(list(probe["crops"]), bundle.manifest.preprocess)
        expected = probe[f"vectors_{tower.view}"]
    vectors = run(given)
    if vectors.shape != expected.shape:
        raise BundleSelfTestError(
            f"{PROBE}: expected vectors of shape {vectors.shape}, found {expected.shape}"
        )
    lengths, wanted = np.linalg.norm(vectors, axis=1), np.linalg.norm(expected, axis=1)
    # All are written so that NaN fails too.
    if not np.all(np.abs(wanted - 1) <= NORM_TOLERANCE):
        raise BundleSelfTestError(
            f"{PROBE}: {tower.name}: expected vectors of length 1, found {wanted.min():.3g} to {wanted.max():.3g}; "
            "export the bundle again"
        )
    if not np.all(np.abs(lengths - 1) <= NORM_TOLERANCE):
        raise BundleSelfTestError(
            f"{tower.name}: {engine} gives vectors of length {lengths.min():.3g} to {lengths.max():.3g}, "
            "expected 1; upgrade the runtime, or export the bundle again"
        )
    cosine = float(((vectors * expected).sum(axis=1) / lengths / wanted).min())
    if not cosine >= MIN_COSINE:
        raise BundleSelfTestError(
            f"{tower.name}: cosine to the expected vectors is {cosine:.5f}, expected at least {MIN_COSINE}; "
            f"{engine} does not compute what the bundle was made with: upgrade the runtime, or export again"
        )
    return cosine


def load_probe(bundle: Bundle) -> dict[str, npt.NDArray[Any]]:
    """The probe's arrays, checked: `crops` uint8 (n, H, W, 3), `texts` (m,), `vectors_<view>`, `vectors_text` float.

    Raises:
        BundleSelfTestError: no probe, or an unreadable one.
    """
    if not bundle.has(PROBE):
        raise BundleSelfTestError(
            f"{bundle.path} has no {PROBE}, so nothing can be compared; export the bundle again"
        )
    data = bundle.read_file(PROBE)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_PROBE_BYTES:
            raise BundleSelfTestError(f"{PROBE} unpacks to {size} bytes, expected at most {MAX_PROBE_BYTES}")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            probe = {name: arrays[name] for name in arrays.files}
    except (
        ValueError,
        EOFError,
        OSError,
        KeyError,
        MemoryError,  # an array that says it is larger than the device
        RuntimeError,  # an encrypted archive, or an unknown compression
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise BundleSelfTestError(f"{PROBE} cannot be read: {error}; export the bundle again") from error
    _check(probe, bundle)
    return probe


def _check(probe: dict[str, npt.NDArray[Any]], bundle: Bundle) -> None:
    """Every array that the probe must hold, with its kind and number of axes."""
    expected = {"crops": ("u", 4), "texts": ("U", 1), "vectors_text": ("f", 2)}
    expected |= {f"vectors_{view}": ("f", 2) for view in bundle.manifest.views}
    rows = {"texts": "vectors_text"} | {f"vectors_{view}": "crops" for view in bundle.manifest.views}
    for name, (kind, axes) in expected.items():
        array = probe.get(name)
        if not isinstance(array, np.ndarray):  # NumPy hands out an entry that is no array as bytes
            raise BundleSelfTestError(
                f"{PROBE}: {name}: expected a non-empty array, found none; export the bundle again"
            )
        if array.dtype.kind != kind or array.ndim != axes or not len(array):
            raise BundleSelfTestError(
                f"{PROBE}: {name}: expected a non-empty array of kind {kind!r} with {axes} axes, "
                f"found {array.dtype} {array.shape}; export the bundle again"
            )
    for one, other in rows.items():
        if len(probe[one]) != len(probe[other]):
            raise BundleSelfTestError(
                f"{PROBE}: {one} has {len(probe[one])} rows, {other} {len(probe[other])}"
            )
