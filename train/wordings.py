"""How far meaning carries: the same people described in plain words, in new company, and in words never seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.runtime.errors import DataError
from tagclip.runtime.ranking import Ids, Vectors
from tagclip.train.compare import Difference, compare
from tagclip.train.datasets.sample import Sample
from tagclip.train.evaluate import Row, answer, rows
from tagclip.train.measure import Embed
from tagclip.train.synth.free_words import WORDINGS, phrasings

COUNT = 200
TITLES = {"plain": "plain", "company": "new company", "unseen": "unseen words"}


@dataclass(frozen=True)
class ByWording:
    """Retrieval in the gallery of all pictures, by wording.

    Attributes:
        lines: a line each for plain words, for words that training never put together, and for unseen words.
        differences: of the latter two to plain words, metric by metric, paired over people.
        unseen_words: mean number of unseen words in a text of the last line.
        examples: the three texts of the first people.
    """

    lines: dict[str, Row]
    differences: dict[str, dict[str, Difference]]
    unseen_words: float
    examples: list[list[str]]


def by_wording(model: Embed, samples: list[Sample], images: Vectors, folder: Path) -> ByWording:
    """Measure a model on `COUNT` people of a split, see `synth.free_words.phrasings`.

    Args:
        samples: a split of `tagclip synth crops`.
        images: (G, D) their vectors.
        folder: the data folder.

    Raises:
        DataError: the annotations are not synth's, or too few people can be described in unseen words.
    """
    found = phrasings([_row(sample, folder) for sample in samples], COUNT)
    if len({samples[p.row].identity for p in found}) < 2:
        raise DataError(
            f"{folder}: expected people whom unseen words describe, found {len(found)}; add people"
        )
    identity, view = np.array([s.identity for s in samples]), np.array([s.view for s in samples])
    owner: Ids = np.array([p.row for p in found])
    asked = [replace(samples[p.row], captions=tuple(p.texts[w] for w in WORDINGS)) for p in found]
    texts = model(asked)[0].reshape(len(found), len(WORDINGS), -1)
    answers = {w: answer(texts[:, k], images, owner, identity, view) for k, w in enumerate(WORDINGS)}
    return ByWording(
        {TITLES[w]: rows(answers[w], "all")["all"] for w in WORDINGS},
        {f"{TITLES[w]} - plain": compare(answers[w], answers["plain"], "all")["all"] for w in WORDINGS[1:]},
        float(np.mean([len(p.unseen) for p in found])),
        [[p.texts[w] for w in WORDINGS] for p in found[:5]],
    )


def _row(sample: Sample, folder: Path) -> dict[str, Any]:
    if sample.attributes is None or sample.visible is None or sample.elevation_deg is None:
        raise DataError(
            f"{sample.where}: expected attributes, visible and elevation_deg, from which wordings are made; "
            "only folders of `tagclip synth crops` have them"
        )
    return {
        "file_path": sample.path.relative_to(folder / "images").as_posix(),
        "id": sample.identity,
        "attributes": sample.attributes,
        "visible": sample.visible,
        "elevation_deg": sample.elevation_deg,
    }
