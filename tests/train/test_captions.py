"""Captions: English, true to what can be seen, and free of what must not be said."""

import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from tagclip.train.synth import lexicon
from tagclip.train.synth.appearance import Appearance, sample_appearance
from tagclip.train.synth.captions import Wording, captions
from tagclip.train.synth.styles import MAX_WORDS

FORBIDDEN = re.compile(
    r"\b(skin|race|ethnic\w*|caucasian|african|asian|face|complexion)\b"
    r"|\b(shit|puke|vomit|poop|none|null|nan)\b|[{}\0_]|  "
)
# Words that only this part has; where one stands, the part is named.
PART_WORDS = {
    "bottom": r"jeans|trousers|pants|sweatpants|leggings|shorts|skirt|bottoms|joggers|slacks|tights",
    "shoes": r"shoes|sneakers|boots|sandals|footwear|trainers",
    "scarf": r"scarf|muffler",
    "headwear": r"cap|beanie|hat|hood up|hood over|hood pulled|hood",
    "bags": r"bag|backpack|rucksack|day pack|handbag|suitcase|trolley|knapsack|satchel|purse|luggage",
    "hair": r"hair|haired|ponytail|bun|bald|shaved",
    "top": r"coat|dress|vest|polo|sweater|hoodie|parka|puffer",
}


def all_visible(person: Appearance) -> dict[str, float]:
    visible = {"hair": 0.05, "top": 0.3, "shoes": 0.04, "skin": 0.06, "sleeves": 0.1}
    visible |= {"bottom": 0.25} if person.bottom else {}
    visible |= {"headwear": 0.03} if person.headwear else {}
    visible |= {"inner": 0.05} if person.top.inner_rgb else {}
    visible |= {"top_pattern": 0.05} if person.top.rgb2 else {}
    visible |= {"scarf": 0.03} if person.scarf else {}
    return visible | {f"bag{i}": 0.05 for i in range(len(person.bags))}


def sample(seed: int, count: int, wording: Wording = "train") -> list[str]:
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        person = sample_appearance(rng)
        texts += captions(person, all_visible(person), float(rng.uniform(0, 90)), rng, wording=wording)
    return texts


@pytest.fixture(scope="module")
def train_texts() -> list[str]:
    return sample(1, 1000)


def test_nothing_forbidden_and_short_enough(train_texts: list[str]) -> None:
    assert len(train_texts) == 2000
    for text in train_texts:
        assert not FORBIDDEN.search(text.lower()), text
        assert len(text.split()) <= MAX_WORDS, text
        assert not re.search(r"\b(\w+) \1\b", text.lower()), text  # "denim denim", "light light"


def test_articles(train_texts: list[str]) -> None:
    plural = re.compile(r"\ban? ((dark|light|blue|black|grey|gray|white) )*(jeans|trousers|boots|shoes)\b")
    for text in train_texts:
        assert not re.search(r"\ba [aeiou]", text.lower()), text
        assert not re.search(r"\ban [^aeiou]", text.lower()), text
        assert not plural.search(text.lower()), text


def test_held_out_words() -> None:
    words = re.compile("|".join(rf"\b{re.escape(w)}\b" for w in sorted(lexicon.HELD_OUT)), re.IGNORECASE)
    train, held_out = sample(2, 1000), sample(3, 300, wording="held-out")
    assert [t for t in train if words.search(t)] == []
    assert np.mean([bool(words.search(t)) for t in held_out]) > 0.8
    found = {w.lower() for t in held_out for w in words.findall(t)}
    assert len(found) > 0.6 * len(lexicon.HELD_OUT), lexicon.HELD_OUT - found


def test_held_out_nouns_are_listed_and_in_no_training_table() -> None:
    nouns = [n.replace("{c} ", "") for row in lexicon.HELD_OUT_NOUNS.values() for n in row]
    unlisted = [n for n in nouns if not lexicon.HELD_OUT.intersection(n.split())]
    assert unlisted == ["dress shirt"]  # the one whose words occur apart
    trained = {w for row in lexicon.NOUNS.values() for n in row for w in n.split()}
    assert trained & lexicon.HELD_OUT == set()
    assert set(lexicon.HELD_OUT_NOUNS) <= set(lexicon.NOUNS)


def test_only_what_is_visible_is_named() -> None:
    rng = np.random.default_rng(9)
    checked = 0
    for _ in range(1000):
        person = sample_appearance(rng)
        visible = {part: share for part, share in all_visible(person).items() if rng.random() < 0.55}
        texts = captions(person, visible, float(rng.uniform(0, 90)), rng, n=1)
        hidden = [p for p in ("bottom", "shoes", "scarf", "headwear") if p not in visible]
        hidden += ["bags"] if not {"bag0", "bag1"} & visible.keys() else []
        hidden += ["hair"] if not {"hair", "skin"} & visible.keys() else []
        hidden += ["top"] if "top" not in visible else []
        for text in texts:
            plain = _without_overlaps(text.lower())
            for part in hidden:
                checked += 1
                assert not re.search(rf"\b({PART_WORDS[part]})\b", plain), (part, text, visible)
    assert checked > 2000


def test_a_part_too_small_is_not_named() -> None:
    rng = np.random.default_rng(2)
    person = next(
        p for p in (sample_appearance(rng) for _ in range(1000)) if p.bags and not p.scarf and p.bottom
    )
    visible = {"top": 0.5, "bottom": 0.029, "shoes": 0.009, "bag0": 0.009}
    for text in captions(person, visible, 10, rng, n=2):
        for part in ("bottom", "shoes", "bags"):
            assert not re.search(rf"\b({PART_WORDS[part]})\b", text.lower()), text


def test_nothing_visible_still_gives_a_sentence() -> None:
    rng = np.random.default_rng(0)
    texts = captions(sample_appearance(rng), {}, 80, rng)
    assert len(set(texts)) == 2 and all(texts)


def test_first_caption_is_the_fuller_one_and_the_two_differ() -> None:
    rng = np.random.default_rng(6)
    first, second = [], []
    for _ in range(300):
        person = sample_appearance(rng)
        a, b = captions(person, all_visible(person), 20, rng)
        assert a.lower() != b.lower()
        first.append(len(a.split()))
        second.append(len(b.split()))
    assert np.mean(first) > 1.3 * np.mean(second)


def test_same_seed_same_captions() -> None:
    assert sample(5, 30) == sample(5, 30)
    assert sample(5, 30) != sample(6, 30)


def test_two_tone_sleeves_hoods_and_open_garments_are_said() -> None:
    rng = np.random.default_rng(8)
    sleeves, hoods, opened = [], [], []
    for _ in range(2500):
        person = sample_appearance(rng)
        text = captions(person, all_visible(person), 10, rng, n=1)[0]
        if person.top.sleeve_rgb and "vest" not in person.top.kind:
            sleeves.append(bool(re.search(" (sleeves|arms)", text)))
        if person.headwear and person.headwear.kind == "hood":
            hoods.append("hood" in text)
        if person.top.open:
            opened.append(" over " in text)
    assert min(np.mean(sleeves), np.mean(hoods), np.mean(opened)) > 0.8
    assert min(len(sleeves), len(hoods), len(opened)) > 50


def test_captions_are_varied(train_texts: list[str]) -> None:
    assert len({t.lower() for t in train_texts}) > 0.97 * len(train_texts)
    assert len({w for t in train_texts for w in re.findall("[a-z-]+", t.lower())}) > 400
    assert {w for t in train_texts for w in ("grey", "gray") if w in t} == {"grey", "gray"}
    assert not any("grey" in t and "gray" in t for t in train_texts)  # one speaker, one spelling


def _without_overlaps(text: str) -> str:
    """Cut the phrases whose words mean another part than they seem to."""
    return re.sub(
        r"hooded|with a hood|with a brim|polo shirt|leather|short-cut|sweatshirt|knee-length coat", "", text
    )


@pytest.mark.parametrize(("complete", "low", "high"), [(False, 0.35, 0.7), (True, 0.9, 1.0)])
def test_the_second_caption_leaves_out_unless_complete(complete: bool, low: float, high: float) -> None:
    rng = np.random.default_rng(4)
    people = [p for p in (sample_appearance(rng) for _ in range(300)) if p.bottom]
    pairs = [captions(p, all_visible(p), 10, rng, complete=complete) for p in people]
    named = [[bool(re.search(PART_WORDS["bottom"], text)) for text in pair] for pair in pairs]
    first, second = np.mean(named, 0)
    assert first > 0.9 and low < second <= high and all(a != b for a, b in pairs)
