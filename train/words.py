"""The tokenizer and the word vectors that a text tower starts from.

"minilm": the alphabetic part of all-MiniLM-L6-v2's word pieces, and the words of two dictionaries, with what is known
of each (word_vectors.py) rounded to 8 bits a number, so that a description in words that no training caption holds
still lands near what it means.
"none": whole words of the training captions, vectors learned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.train.word_vectors import VECTOR_DIM, word_vectors

PAD_ID, UNKNOWN_ID = 0, 1
SPECIAL = ["[PAD]", "[UNK]"]


@dataclass(frozen=True)
class Words:
    """A tokenizer (the JSON of `tokenizers`), and word vectors as int8 codes (V, S) with a scale (V, 1), or None."""

    tokenizer_json: str
    vocabulary: int
    codes: NDArray[np.int8] | None = None
    scales: NDArray[np.float32] | None = None


def build_words(kind: str, captions: Iterable[str]) -> Words:
    """Make the words of a new model.

    Args:
        kind: "minilm" or "none".
        captions: training captions; only "none" looks at them.

    Raises:
        MissingExtraError: "minilm" without its package.
    """
    return _minilm() if kind == "minilm" else _from_captions(captions)


def _tokenizer(model: Any) -> str:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    # Letters only: "t-shirt", "T shirt" and "t shirt," are the same two words.
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex("[^a-z]+"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return str(tokenizer.to_str())


def _minilm() -> Words:
    from tokenizers import models

    names, table = word_vectors()
    scales = np.abs(table).max(1, keepdims=True) / 127
    codes = np.rint(table / scales).astype(np.int8)
    blank = np.zeros((len(SPECIAL), VECTOR_DIM), np.int8)
    vocabulary = {name: k for k, name in enumerate([*SPECIAL, *names])}
    model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=40)
    return Words(
        _tokenizer(model),
        len(vocabulary),
        np.concatenate([blank, codes]),
        np.concatenate([np.ones((len(SPECIAL), 1)), scales]).astype(np.float32),
    )


def _from_captions(captions: Iterable[str]) -> Words:
    from tokenizers import models

    words = sorted({word for caption in captions for word in re.findall("[a-z]+", caption.lower())})
    vocabulary = {word: k for k, word in enumerate([*SPECIAL, *words])}
    return Words(_tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")), len(vocabulary))


def encode(tokenizer_json: str, captions: list[str], context_length: int) -> NDArray[np.int64]:
    """Token ids (N, context_length), padded with PAD_ID and cut at the end (an end token stays)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.enable_truncation(context_length)
    ids = np.full((len(captions), context_length), PAD_ID, np.int64)
    for row, encoding in zip(ids, tokenizer.encode_batch(captions), strict=True):
        row[: len(encoding.ids)] = encoding.ids
    return ids
