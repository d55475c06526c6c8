"""What an image's annotation says of the person, as class numbers: a training-only task for both towers.

Contrast alone tells an encoder slowly what a sleeve is; synthetic people come with the answer. Each group below is a
small classification from the embedding, as the identity loss is, and leaves the model that ships unchanged. Real data
sets without `attributes` simply have no labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import DataError
from tagclip.train.datasets.sample import Sample
from tagclip.train.synth import appearance, palette

UNKNOWN = -1  # the picture does not show it, or the annotation does not say
LEAST_VISIBLE = 0.012  # share of the person's pixels
COLOURS = tuple(palette.TABLE)
NONE = "none"

# Name of each group and its classes.
GROUPS: dict[str, tuple[str, ...]] = {
    "gender": get_args(appearance.Gender),
    "age": get_args(appearance.Age),
    "build": get_args(appearance.Build),
    "hair length": get_args(appearance.HairLength),
    "hair colour": COLOURS,
    "headwear": (NONE, *get_args(appearance.HeadwearKind)),
    "headwear colour": COLOURS,
    "top": get_args(appearance.TopKind),
    "top colour": COLOURS,
    "pattern": get_args(appearance.Pattern),
    "pattern colour": COLOURS,
    "sleeve": get_args(appearance.Sleeve),
    "sleeve colour": COLOURS,
    "inner colour": (NONE, *COLOURS),
    "bottom": (NONE, *get_args(appearance.BottomKind)),
    "bottom colour": COLOURS,
    "shoes": get_args(appearance.ShoesKind),
    "shoes colour": COLOURS,
    **{kind: ("no", "yes") for kind in get_args(appearance.BagKind)},
    "bag colour": COLOURS,
    "scarf": ("no", "yes"),
    "posture": get_args(appearance.Posture),
}


def labels_of_samples(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Class numbers (N, groups) of `labels_of`, UNKNOWN throughout for a sample without attributes.

    Raises:
        DataError: attributes that synth did not write, with file and row.
    """
    labels = np.full((len(samples), len(GROUPS)), UNKNOWN, np.int64)
    for row, sample in zip(labels, samples, strict=True):
        if sample.attributes is None:
            continue
        try:
            row[:] = labels_of(sample.attributes, sample.visible)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(
                f"{sample.where}: attributes and visible are not what synth writes: {error!r}; "
                "train on them with train.weight_attributes=0"
            ) from error
    return labels


def labels_of(attributes: Mapping[str, Any], visible: Mapping[str, float]) -> tuple[int, ...]:
    """Class of each of GROUPS, UNKNOWN where the picture does not show it.

    Args:
        attributes: what `appearance.to_json` writes.
        visible: share (0..1) of the person's pixels by part, as in the annotation.

    Raises:
        KeyError, TypeError, ValueError: something is absent or no value of its group.
    """

    def sees(part: str) -> bool:
        return visible.get(part, 0.0) >= LEAST_VISIBLE

    def colour(rgb: Any) -> str:
        return palette.basic_name((int(rgb[0]), int(rgb[1]), int(rgb[2])))

    top, bottom, hair, wear = (attributes[k] for k in ("top", "bottom", "hair", "headwear"))
    shoes, bags = attributes["shoes"], attributes["bags"]
    said: dict[str, str] = {key: attributes[key] for key in ("gender", "age", "build")}
    if sees("hair") or hair["length"] == "bald":
        said["hair length"] = hair["length"]
    if sees("hair"):
        said["hair colour"] = colour(hair["rgb"])
    if wear is None or sees("headwear"):
        said["headwear"] = NONE if wear is None else wear["kind"]
    if wear is not None and sees("headwear"):
        said["headwear colour"] = colour(wear["rgb"])
    if sees("top"):
        said |= {"top": top["kind"], "top colour": colour(top["rgb"]), "pattern": top["pattern"]}
        said["inner colour"] = NONE if top["inner_rgb"] is None else colour(top["inner_rgb"])
    if top["rgb2"] is not None and sees("top_pattern"):
        said["pattern colour"] = colour(top["rgb2"])
    if sees("top") or sees("sleeves"):
        said["sleeve"] = top["sleeve"]
    if sees("sleeves"):
        said["sleeve colour"] = colour(top["sleeve_rgb"] or top["rgb"])
    if bottom is None or sees("bottom"):
        said["bottom"] = NONE if bottom is None else bottom["kind"]
    if bottom is not None and sees("bottom"):
        said["bottom colour"] = colour(bottom["rgb"])
    if sees("shoes"):
        said |= {"shoes": shoes["kind"], "shoes colour": colour(shoes["rgb"])}
    carried = {bag["kind"]: k for k, bag in enumerate(bags)}
    for kind in get_args(appearance.BagKind):
        if kind not in carried:
            said[kind] = "no"
        elif sees(f"bag{carried[kind]}"):
            said[kind] = "yes"
    shown = [k for k in range(len(bags)) if sees(f"bag{k}")]
    if shown:
        most = max(shown, key=lambda k: visible[f"bag{k}"])
        said["bag colour"] = colour(bags[most]["rgb"])
    if "posture" in attributes:  # sets that were made before postures were drawn have none
        said["posture"] = attributes["posture"]
    if attributes["scarf"] is None or sees("scarf"):
        said["scarf"] = "no" if attributes["scarf"] is None else "yes"
    return tuple(
        classes.index(said[group]) if group in said else UNKNOWN for group, classes in GROUPS.items()
    )
