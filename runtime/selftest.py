"""Does this machine's engine give the vectors that the bundle was made with?"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import TEXT, image_tower
from tagclip.runtime.encoder import ImageEncoder, TextEncoder
from tagclip.runtime.errors import BundleSelfTestError, QueryError

PROBE = "probe.npz"
MIN_COSINE = 0.999
MAX_PROBE_BYTES = 64 * 1024 * 1024  # unpacked


def run_probe(bundle: Bundle, *, threads: int | None = None, provider: str = "cpu") -> dict[str, float]:
    """Embed the probe's crops and texts and compare with the vectors that stand beside them.

    Returns:
        tower name -> the smallest cosine of its rows, in [0.999, 1].

    Raises:
        BundleSelfTestError: no probe, an unreadable one, or a cosine under 0.999.
        EngineError, MissingExtraError: as in the encoders.
    """
    probe = load_probe(bundle)
    crops, texts = probe["crops"], [str(text) for text in probe["texts"]]
    cosines = {}
    for view in bundle.manifest.views:
        vectors = ImageEncoder(bundle, view, threads=threads, provider=provider).embed(list(crops))
        cosines[image_tower(view)] = _min_cosine(vectors, probe[f"vectors_{view}"])
    try:
        vectors = TextEncoder(bundle, threads=threads, provider=provider).embed(texts)
    except QueryError as error:
        raise BundleSelfTestError(f"{PROBE}: texts: {error}") from error
    cosines[TEXT] = _min_cosine(vectors, probe["vectors_text"])
    for tower, cosine in cosines.items():
        # Written so that NaN fails too.
        if not cosine >= MIN_COSINE:
            raise BundleSelfTestError(
                f"{tower}: cosine to the expected vectors is {cosine:.5f}, expected at least {MIN_COSINE}; "
                "this engine does not compute what the bundle was made with: upgrade it, or export again"
            )
    return cosines


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


def _min_cosine(got: npt.NDArray[np.float32], expected: npt.NDArray[Any]) -> float:
    if got.shape != expected.shape:
        raise BundleSelfTestError(f"{PROBE}: expected vectors of shape {got.shape}, found {expected.shape}")
    return float((got * expected).sum(axis=1).min())
