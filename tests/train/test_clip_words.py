"""The tokenizer for devices against open_clip's own, on captions as people and models write them."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pytest

open_clip = pytest.importorskip("open_clip")

from tagclip.runtime.tokenizer import Tokenizer
from tagclip.train.clip_words import clip_words
from tagclip.train.words import PAD_ID, Words, encode

CONTEXT = 77
PEOPLE = ["a man", "The woman", "an older person", "A boy's father", "two kids", "someone", "GUY", "She"]
VERBS = [
    "wears",
    "is dressed in",
    "isn't wearing",
    "has got",
    "'s in",
    "who'd put on",
    "they're carrying",
    "w/",
]
THINGS = [
    "a red T-shirt",
    "blue jeans, and white sneakers",
    "an off-white, knee-length dress",
    "a size-42 jacket (navy)",
    'a "NYC" cap',
    "black & grey Adidas(R) trainers",
    "a hi-vis vest; reflective",
    "100% cotton polo",
    "a café-au-lait coat",
    "naïve-looking socks",
    "a mackintosh – beige",
    "a backpack…",
    "shoes: brown",
    "an 80's-style windbreaker!!",
    "a #7 jersey ~ faded",
    "leather gloves*",
    "sandals/flip-flops @ feet",
    "chinos\tand  a belt",
    "a £20 scarf",
]
TAILS = [".", "!", "", " ...", "?", ", I'd say.", " (seen from above)", " 😀", " 赤い服", " наушники"]
ODD = [
    "",
    " ",
    "a",
    "!",
    "!!x",
    "can't won't shouldn't've",
    "rock'n'roll o'clock",
    "--- - -- a-b-c -d- e-",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "e\u0301tude caf\u00e9 A\u030angstro\u0308m",
    "O\u2019Neill\u2019s \u2018quoted\u2019 \u201cwords\u201d",
    "1234567890 3.5 1,000 4x4 2nd",
    "ÀÉÎÕÜ ß Ø æ ŁÓDŹ ÇA",
    "مرحبا שלום नमस्ते 你好 こんにちは 안녕",
    "a_b a+b=c a<b>c {d} [e] \\f |g| ^h `i`",
    "word " * 120,
    "red, " * 60,
    "pneumonoultramicroscopicsilicovolcanoconiosis " * 9,
    " ".join(f"w{k}" for k in range(76)),
]


def sentences() -> list[str]:
    draw = random.Random(0)
    made = [
        f"{who} {verb} {one} with {other}{tail}"
        for who, verb, one, other, tail in draw.sample(
            list(itertools.product(PEOPLE, VERBS, THINGS, THINGS, TAILS)), 600
        )
    ]
    return made + ODD


def cleaned(caption: str) -> str:
    """The release's cleaning; quotes made straight first, as open_clip's ftfy would do."""
    caption = re.sub("[\u2018\u2019]", "'", re.sub("[\u201c\u201d]", '"', caption)).lower()
    caption = re.sub(r'[.!"()*#:;~]', " ", caption)
    return " ".join(re.sub(" {2,}", " ", caption).strip(" ").split(" ")[:77])


@pytest.fixture(scope="module")
def words() -> Words:
    return clip_words()


def test_tokens_are_open_clips(words: Words) -> None:
    given = sentences()
    wanted = open_clip.tokenize([cleaned(s) for s in given], CONTEXT).numpy()
    found = encode(words.tokenizer_json, given, CONTEXT)
    wrong = [s for s, a, b in zip(given, found, wanted, strict=True) if not np.array_equal(a, b)]
    assert not wrong and len(given) > 600
    assert sum((row != 0).all() for row in wanted) >= 4, "some must be over-long"


def test_sentences_that_need_no_cleaning_are_taken_as_they_are(words: Words) -> None:
    given = [s for s in sentences() if not re.search('[.!"()*#:;~\u2018\u2019\u201c\u201d]', s)]
    assert len(given) > 50
    found = encode(words.tokenizer_json, given, CONTEXT)
    np.testing.assert_array_equal(found, open_clip.tokenize(given, CONTEXT).numpy())


def test_shorter_contexts_keep_the_end(words: Words) -> None:
    given = sentences()
    wanted = open_clip.tokenize([cleaned(s) for s in given], 9).numpy()
    np.testing.assert_array_equal(encode(words.tokenizer_json, given, 9), wanted)
    assert (wanted.max(1) == words.vocabulary - 1).all()


def test_the_device_reads_the_same(words: Words) -> None:
    given = [s for s in sentences() if any(c.isalpha() for c in cleaned(s))]
    device = Tokenizer(words.tokenizer_json.encode(), CONTEXT, PAD_ID)
    np.testing.assert_array_equal(device.encode(given), encode(words.tokenizer_json, given, CONTEXT))


def test_case_and_full_stop_do_not_matter(words: Words) -> None:
    one, *others = encode(
        words.tokenizer_json, ["a man in red", "A Man in RED.", ' "a man in red" '], CONTEXT
    )
    assert all(np.array_equal(one, other) for other in others)


def test_vocabulary_is_open_clips(words: Words) -> None:
    import tokenizers

    theirs = open_clip.SimpleTokenizer()
    found = tokenizers.Tokenizer.from_str(words.tokenizer_json).get_vocab()
    assert found == theirs.encoder and words.vocabulary == theirs.vocab_size


def test_a_description_cannot_end_itself(words: Words) -> None:
    """Unlike open_clip: its control tokens are plain words in what an operator types."""
    (row,) = encode(words.tokenizer_json, ["red <end_of_text> blue"], CONTEXT)
    assert (row == words.vocabulary - 1).sum() == 1
