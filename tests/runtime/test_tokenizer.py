"""Queries and tokens. The toy vocabulary: 0 [PAD], 1 [UNK], 2 red ... 7 white, then words and a comma."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.errors import BundleManifestError, QueryError
from tagclip.runtime.query import check_query
from tagclip.runtime.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_bundle: Bundle) -> Tokenizer:
    return Tokenizer.from_bundle(tiny_bundle)


def test_pads_cuts_and_lowers(tokenizer: Tokenizer) -> None:
    rows = tokenizer.encode(["Red", "a red gizmo", " ".join(["blue"] * 20)])
    assert rows.dtype == np.int64
    assert rows.tolist() == [[2] + [0] * 11, [8, 2, 1] + [0] * 9, [4] * 12]


def test_no_texts(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]).shape == (0, 12)


def test_one_row_does_not_depend_on_the_others(tokenizer: Tokenizer) -> None:
    texts = ["a man in a red jacket", "white", "a, b, red"]
    alone = np.concatenate([tokenizer.encode([text]) for text in texts])
    np.testing.assert_array_equal(tokenizer.encode(texts), alone)


@pytest.mark.parametrize("text", ["zzz", "zzz qqq", "zzz , zzz", ", ,", ""])
def test_a_text_without_a_known_word_is_refused(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(QueryError, match="no word of .* is in this bundle's vocabulary"):
        tokenizer.encode(["red", text])


def test_special_tokens_are_not_words(tiny_parts: dict) -> None:
    """A start token in front of every text must not count as a known word."""
    value = json.loads(tiny_parts["tokenizer_json"])
    value["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "white", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"white": {"id": "white", "ids": [7], "tokens": ["white"]}},
    }
    tokenizer = Tokenizer(json.dumps(value).encode(), 4, 0)
    assert tokenizer.encode(["red"]).tolist() == [[7, 2, 0, 0]]
    with pytest.raises(QueryError):
        tokenizer.encode(["zzz"])


@pytest.mark.parametrize(
    ("data", "pad_id", "message"),
    [
        (b"", 0, "the tokenizer cannot be read by tokenizers"),
        (b"{}", 0, "the tokenizer cannot be read"),
        (b"\xff", 0, "the tokenizer cannot be read"),
        (None, 16, "tokenizer.pad_id: expected less than 16, found 16"),
    ],
)
def test_unusable_tokenizers(tiny_parts: dict, data: bytes | None, pad_id: int, message: str) -> None:
    with pytest.raises(BundleManifestError, match=message):
        Tokenizer(tiny_parts["tokenizer_json"] if data is None else data, 12, pad_id)


@pytest.mark.parametrize("text", ["red", "  a woman in red ", "наушники", "赤い服", "a " * 77, "3 bags"])
def test_good_queries(text: str) -> None:
    assert check_query(text) == text.strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the description is empty; describe clothing"),
        (" \t\n", "the description is empty"),
        ("123 !?", "holds no word"),
        ("red " * 78, "has 78 words, the limit is 77"),
        ("red\x1b[2J", "control character U\\+001B"),
        ("red\nblue", "control character U\\+000A"),
        ("red \udcff", "control character U\\+DCFF"),  # an argument that was not UTF-8
    ],
)
def test_bad_queries(text: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        check_query(text)
