"""The background of scores against numbers worked out pair by pair."""

import numpy as np
import pytest

from tagclip.calibration.scores import background


def unit(rng: np.random.Generator, rows: int) -> np.ndarray:
    vectors = rng.normal(size=(rows, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_against_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(0)
    texts, images = unit(rng, 30), unit(rng, 40)
    text_ids, image_ids = rng.integers(0, 5, 30), rng.integers(0, 5, 40)
    pairs = [float(texts[q] @ images[g]) for q in range(30) for g in range(40) if text_ids[q] != image_ids[g]]
    found = background(texts, images, text_ids, image_ids)
    assert list(found) == ["pairs", "mean", "std", "q50", "q90", "q99", "q99.9"]
    expected = [len(pairs), np.mean(pairs), np.std(pairs), *np.percentile(pairs, [50, 90, 99, 99.9])]
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-6)


def test_pairs_of_the_same_identity_do_not_count() -> None:
    """Identity 1 would score 1 with itself; only its cosine of 0 to identity 2 is background."""
    vectors = np.eye(2, dtype=np.float32)
    found = background(vectors, vectors, np.array([1, 2]), np.array([1, 2]))
    assert found == {"pairs": 2, "mean": 0, "std": 0, "q50": 0, "q90": 0, "q99": 0, "q99.9": 0}


@pytest.mark.parametrize("images", [0, 2])  # none at all, or only the target's own
def test_no_pair_is_said_and_nothing_else(images: int) -> None:
    vectors = np.eye(2, dtype=np.float32)
    same = np.array([1, 1])
    assert background(vectors, vectors[:images], same, same[:images]) == {"pairs": 0}
