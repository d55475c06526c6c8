"""Does an engine compute what the bundle was made with? One tower at a time, for whatever runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import Tower
from tagclip.runtime.encoder import NORM_TOLERANCE
from tagclip.runtime.errors import BundleSelfTestError, QueryError
from tagclip.runtime.preprocess import prepare
from tagclip.runtime.selftest import MIN_COSINE, PROBE, load_probe
from tagclip.runtime.tokenizer import Tokenizer

Run = Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]


def tower_cosine(bundle: Bundle, tower: Tower, run: Run) -> float:
    """The smallest cosine of the vectors that `run` gives for the probe to those that stand in it.

    Args:
        bundle: has a probe.
        tower: the tower that `run` computes.
        run: the method `run` of an engine: input of `tower` -> float32 (N, D).

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
        spec, crops = bundle.manifest.preprocess, list(probe["crops"])
        given = prepare(crops, spec, np.empty((len(crops), spec.height_px, spec.width_px, 3), np.uint8))
        expected = probe[f"vectors_{tower.view}"]
    vectors = run(given)
    if vectors.shape != expected.shape:
        raise BundleSelfTestError(
            f"{PROBE}: expected vectors of shape {vectors.shape}, found {expected.shape}"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    cosine = float(((vectors * expected).sum(axis=1) / lengths / np.linalg.norm(expected, axis=1)).min())
    # Both are written so that NaN fails too.
    if not np.all(np.abs(lengths - 1) <= NORM_TOLERANCE):
        raise BundleSelfTestError(
            f"{tower.name}: this engine gives vectors of length {lengths.min():.3g} to {lengths.max():.3g}, "
            "expected 1; upgrade the runtime, or export the bundle again"
        )
    if not cosine >= MIN_COSINE:
        raise BundleSelfTestError(
            f"{tower.name}: cosine to the expected vectors is {cosine:.5f}, expected at least {MIN_COSINE}; "
            "this engine does not compute what the bundle was made with: upgrade the runtime, or export again"
        )
    return cosine
