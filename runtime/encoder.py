"""Crops and texts to unit vectors, with the graphs of a bundle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import TEXT, image_tower
from tagclip.runtime.engines import Engines
from tagclip.runtime.errors import ConfigError, EngineError
from tagclip.runtime.preprocess import prepare
from tagclip.runtime.providers import CPU
from tagclip.runtime.tokenizer import Tokenizer
from tagclip.runtime.views import UNIVERSAL, VIEWS

AUTO = "auto"
BATCH = 64  # rows of one run; bounds the memory, larger ones gain nothing on a CPU


def serving(views: tuple[str, ...], view: str) -> tuple[str, ...]:
    """Whose image towers embed a crop of `view`: one, or several whose mean counts.

    Args:
        views: those of a bundle.
        view: as ImageEncoder takes it.

    Raises:
        ConfigError: the bundle has no tower for it.
    """
    if view in views:
        return (view,)
    if view == AUTO:
        return (UNIVERSAL,) if UNIVERSAL in views else views
    if view in VIEWS and views == (UNIVERSAL,):
        return views
    raise ConfigError(f"view {view!r}: this bundle has {', '.join(views)}; choose one of these or {AUTO}")


class ImageEncoder:
    """Crops to vectors, seen from one view. Not for several threads at a time.

    Args:
        bundle: an opened bundle.
        view: "aerial" or "ground" for the specialist of that view, or the universal tower where the bundle has
            no specialists; "universal" for that tower; "auto" when the view is unknown: the universal tower, in
            a bundle without one the mean of the vectors of its specialists, normalised again.
        engine: the name of one, as in Engines, or the Engines of this bundle that several encoders share.
        threads: as in OrtEngine, for an engine that is given by its name.

    Attributes:
        engine: what runs it; `engine.name` says which one that is.

    Raises:
        ConfigError: the bundle has no such view, or the engines are those of another bundle.
        EngineError, MissingExtraError: as in Engines.
    """

    def __init__(
        self, bundle: Bundle, view: str, *, engine: str | Engines = CPU, threads: int | None = None
    ) -> None:
        self.view = view
        self.embedding_dim = bundle.manifest.embedding_dim
        self.towers = tuple(image_tower(name) for name in serving(bundle.manifest.views, view))
        self.engine = _engines(bundle, engine, threads)
        self._spec = bundle.manifest.preprocess
        self._batch = np.empty((BATCH, self._spec.height_px, self._spec.width_px, 3), np.uint8)

    def embed(self, crops: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Embed N crops, each uint8 (H, W, 3) RGB of its own size.

        Returns:
            float32 (N, D), unit rows; (0, D) for no crops.

        Raises:
            SourceError: a crop is empty or not uint8 (H, W, 3).
            EngineError: the engine refuses the graph, or gives something else than unit vectors.
            BundleIntegrityError: the bundle's folder was changed before this encoder was first used.
        """
        result = np.empty((len(crops), self.embedding_dim), np.float32)
        for start in range(0, len(crops), BATCH):
            batch = prepare(crops[start : start + BATCH], self._spec, self._batch)
            vectors = [self.engine.run(tower, batch) for tower in self.towers]
            result[start : start + BATCH] = vectors[0] if len(vectors) == 1 else _mean(vectors)
        return result

    def check(self) -> dict[str, float]:
        """Load the towers and run the probe through them, once for each; afterwards no file of the bundle is read.

        Returns:
            tower name -> the smallest cosine to the vectors that the bundle was made with, 0.999 to 1.

        Raises:
            BundleSelfTestError: the bundle has no probe, or this engine does not compute what it was made with.
            EngineError, BundleIntegrityError: as in `embed`.
        """
        return {tower: self.engine.check(tower) for tower in self.towers}


class TextEncoder:
    """Descriptions to vectors. Not for several threads at a time.

    Args:
        bundle: an opened bundle.
        engine, threads: as in ImageEncoder.

    Attributes:
        engine: as in ImageEncoder.

    Raises:
        BundleManifestError: the tokenizer cannot be read.
        ConfigError, EngineError, MissingExtraError: as in ImageEncoder.
    """

    def __init__(self, bundle: Bundle, *, engine: str | Engines = CPU, threads: int | None = None) -> None:
        self.embedding_dim = bundle.manifest.embedding_dim
        self.engine = _engines(bundle, engine, threads)
        self._tokenizer = Tokenizer.from_bundle(bundle)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed N texts; what an operator typed goes through `check_query` first.

        Returns:
            float32 (N, D), unit rows; (0, D) for no texts.

        Raises:
            QueryError: the vocabulary knows no word of a text.
            EngineError, BundleIntegrityError: as in ImageEncoder.embed.
        """
        tokens = self._tokenizer.encode(texts)
        result = np.empty((len(texts), self.embedding_dim), np.float32)
        for start in range(0, len(texts), BATCH):
            result[start : start + BATCH] = self.engine.run(TEXT, tokens[start : start + BATCH])
        return result

    def check(self) -> dict[str, float]:
        """As ImageEncoder.check, of the text tower."""
        return {TEXT: self.engine.check(TEXT)}


def _engines(bundle: Bundle, engine: str | Engines, threads: int | None) -> Engines:
    if isinstance(engine, str):
        return Engines(bundle, engine, threads=threads)
    # Vectors of two encoders mean nothing to one another.
    if engine.bundle.encoder_id != bundle.encoder_id:
        raise ConfigError(
            f"the engines run encoder {engine.bundle.encoder_id}, expected {bundle.encoder_id} of {bundle.path}; open "
            "engines of this bundle"
        )
    return engine


def _mean(vectors: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The mean of several views' (N, D) unit rows, with length 1 again."""
    mean = np.mean(vectors, axis=0)
    norms = np.linalg.norm(mean, axis=1, keepdims=True)
    if not np.all(norms > 1e-6):
        raise EngineError("the mean of the views: a vector of length 0; name the view instead of auto")
    return np.asarray(mean / norms, np.float32)
