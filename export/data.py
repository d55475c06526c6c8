"""The pictures and captions that an export is measured on, and those that ranges and gates are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.export.gate import Labels
from tagclip.runtime.bundle_manifest import TEXT, image_tower
from tagclip.runtime.errors import DataError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.runtime.views import UNIVERSAL, VIEWS
from tagclip.train.config import Config
from tagclip.train.data import Sample, input_spec, load_images, load_split
from tagclip.train.measure import owners
from tagclip.train.model import TagClip
from tagclip.train.progress import Tick
from tagclip.train.words import encode

NOISE_CROPS = 64
CALIBRATION = 256  # inputs of each tower for ranges
DISTIL_CROPS = 8192  # of each view, for distillation
TEXTS = ["a woman in a red jacket", "a man"]


@dataclass(frozen=True)
class Material:
    """What goes through the towers.

    Attributes:
        spec: size of the crops.
        crops: (N, H, W, 3) uint8, of the validation split or noise.
        texts, tokens: C captions of them, and (C, T) int64.
        view: (N,) 0 aerial, 1 ground.
        labels: None without a data folder.
        calibration: tower -> inputs of the training split; empty where none were asked for.
    """

    spec: PreprocessSpec
    crops: NDArray[np.uint8]
    texts: list[str]
    tokens: NDArray[np.int64]
    view: NDArray[np.int64]
    labels: Labels | None
    calibration: dict[str, NDArray[Any]]

    def inputs(self, tower: str) -> NDArray[Any]:
        """All inputs of a tower."""
        return self.tokens if tower == TEXT else self.crops

    def served(self, tower: str) -> NDArray[np.int64]:
        """Which of them it answers for: all captions, the crops of its view, or all crops without labels."""
        if self.labels is None or tower in (TEXT, image_tower(UNIVERSAL)):
            return np.arange(len(self.inputs(tower)))
        return np.flatnonzero(self.view == VIEWS.index(tower.removeprefix("image-")))


def gather(
    calib: Path | None,
    views: tuple[str, ...],
    tokenizer_json: str,
    model: TagClip,
    config: Config,
    tick: Tick,
    training: int = 0,
) -> Material:
    """Read what an export needs.

    Args:
        calib: data folder, or None for noise.
        views: the towers; pictures of a view that none of them serves are left out.
        training: how many training pictures and captions to read for each tower; 0 for none.

    Raises:
        DataError: no data, a picture that cannot be read, or none of these views.
    """
    spec = input_spec(config.model)
    if calib is None:
        crops = np.random.default_rng(0).integers(
            0, 256, (NOISE_CROPS, spec.height_px, spec.width_px, 3), dtype=np.uint8
        )
        tokens = encode(tokenizer_json, TEXTS, model.context_length)
        return Material(spec, crops, TEXTS, tokens, np.zeros(NOISE_CROPS, np.int64), None, {})
    samples = _seen(load_split(calib, "val"), views, f"{calib}: val")
    crops = load_images(samples, spec, lambda done, total: tick("read validation", done, total, ""))
    texts = [caption for sample in samples for caption in sample.captions]
    view = np.array([sample.view for sample in samples])
    labels = Labels(owners(samples), np.array([sample.identity for sample in samples]), view)
    calibration: dict[str, NDArray[Any]] = {}
    if training:
        train = _seen(load_split(calib, "train"), views, f"{calib}: train")
        for name in views:
            mine = [s for s in train if name == UNIVERSAL or s.view == VIEWS.index(name)]
            chosen = _spread(mine, training)
            calibration[image_tower(name)] = load_images(chosen, spec, partial(_tell, tick, name))
        captions = [sample.captions[0] for sample in _spread(train, CALIBRATION)]
        calibration[TEXT] = encode(tokenizer_json, captions, model.context_length)
    return Material(
        spec, crops, texts, encode(tokenizer_json, texts, model.context_length), view, labels, calibration
    )


def _tell(tick: Tick, view: str, done: int, total: int) -> None:
    tick(f"read {image_tower(view)} inputs", done, total, "")


def _seen(samples: list[Sample], views: tuple[str, ...], where: str) -> list[Sample]:
    found = [s for s in samples if UNIVERSAL in views or VIEWS[s.view] in views]
    for view in views:
        if view != UNIVERSAL and not any(VIEWS[s.view] == view for s in found):
            raise DataError(
                f"{where}: expected pictures from the {view} view, found none; leave out --view {view}"
            )
    return found


def _spread(samples: list[Sample], count: int) -> list[Sample]:
    """At most `count` of them, evenly over the list and in an order that mixes people."""
    chosen = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)
    return [samples[k] for k in np.random.default_rng(0).permutation(chosen)]
