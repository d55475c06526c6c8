"""Crops and texts to unit vectors, with the graphs of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import TEXT, image_tower
from tagclip.runtime.engine import OrtEngine
from tagclip.runtime.errors import ConfigError, EngineError
from tagclip.runtime.preprocess import prepare
from tagclip.runtime.tokenizer import Tokenizer
from tagclip.runtime.views import UNIVERSAL, VIEWS

AUTO = "auto"
BATCH = 64  # rows of one run; bounds the memory, larger ones gain nothing on a CPU

# int8 and fp16 graphs normalise in low precision; beyond this the graph does not normalise at all.
NORM_TOLERANCE = 0.02


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
    """Crops to vectors, seen from one view.

    Args:
        bundle: an opened bundle.
        view: "aerial" or "ground" for the specialist of that view, or the universal tower where the bundle has
            no specialists; "universal" for that tower; "auto" when the view is unknown: the universal tower, in
            a bundle without one the mean of the vectors of its specialists, normalised again.
        threads: as in OrtEngine.
        provider: as in OrtEngine.

    Raises:
        ConfigError: the bundle has no such view.
    """

    def __init__(
        self, bundle: Bundle, view: str, *, threads: int | None = None, provider: str = "cpu"
    ) -> None:
        self.view = view
        self.embedding_dim = bundle.manifest.embedding_dim
        self._spec = bundle.manifest.preprocess
        self._towers = [
            _Tower(bundle, image_tower(name), threads, provider)
            for name in serving(bundle.manifest.views, view)
        ]
        self._batch = np.empty((BATCH, self._spec.height_px, self._spec.width_px, 3), np.uint8)

    def embed(self, crops: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Embed N crops, each uint8 (H, W, 3) RGB of its own size.

        Returns:
            float32 (N, D), unit rows; (0, D) for no crops.

        Raises:
            SourceError: a crop is empty or not uint8 (H, W, 3).
            EngineError: the engine is absent, refuses the graph, or gives something else than unit vectors.
            MissingExtraError: onnxruntime is not installed.
        """
        result = np.empty((len(crops), self.embedding_dim), np.float32)
        for start in range(0, len(crops), BATCH):
            batch = prepare(crops[start : start + BATCH], self._spec, self._batch)
            vectors = [tower.run(batch) for tower in self._towers]
            result[start : start + BATCH] = _unit(np.mean(vectors, axis=0), "the mean of the views")
        return result


class TextEncoder:
    """Descriptions to vectors.

    Args:
        bundle: an opened bundle.
        threads: as in OrtEngine.
        provider: as in OrtEngine.

    Raises:
        BundleManifestError: the tokenizer cannot be read.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, provider: str = "cpu") -> None:
        self.embedding_dim = bundle.manifest.embedding_dim
        self._tokenizer = Tokenizer.from_bundle(bundle)
        self._tower = _Tower(bundle, TEXT, threads, provider)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed N texts; what an operator typed goes through `check_query` first.

        Returns:
            float32 (N, D), unit rows; (0, D) for no texts.

        Raises:
            QueryError: the vocabulary knows no word of a text.
            EngineError, MissingExtraError: as in ImageEncoder.embed.
        """
        tokens = self._tokenizer.encode(texts)
        result = np.empty((len(texts), self.embedding_dim), np.float32)
        for start in range(0, len(texts), BATCH):
            result[start : start + BATCH] = self._tower.run(tokens[start : start + BATCH])
        return result


class _Tower:
    """A graph that is loaded when it is first needed, then kept."""

    def __init__(self, bundle: Bundle, name: str, threads: int | None, provider: str) -> None:
        self._bundle = bundle
        self._tower = bundle.manifest.towers[name]
        self._threads = threads
        self._provider = provider
        self._engine: OrtEngine | None = None

    def run(self, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if self._engine is None:
            graph = self._bundle.read_file(self._tower.file)
            self._engine = OrtEngine(graph, self._tower, threads=self._threads, provider=self._provider)
        vectors = self._engine.run(array)
        norms = np.linalg.norm(vectors, axis=1)
        # Written so that NaN fails too.
        if not np.all(np.abs(norms - 1) <= NORM_TOLERANCE):
            raise EngineError(
                f"{self._tower.file}: expected unit vectors, got lengths {norms.min():.3g} to "
                f"{norms.max():.3g}; run `tagclip bundle verify`"
            )
        return _unit(vectors, self._tower.file)


def _unit(vectors: npt.NDArray[np.float32], source: str) -> npt.NDArray[np.float32]:
    """Rows (N, D) scaled to length 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(norms > 1e-6):
        raise EngineError(f"{source}: a vector of length 0; name the view instead of auto")
    return np.asarray(vectors / norms, np.float32)
