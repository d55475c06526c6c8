"""Captions: English, true to what can be seen, and free of what must not be said."""

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from tagclip.train.synth import garments, lexicon, palette, rare_names
from tagclip.train.synth.appearance import Appearance
from tagclip.train.synth.captions import Wording, _Voice, captions
from tagclip.train.synth.people import sample_appearance
from tagclip.train.synth.styles import MAX_WORDS

WORDINGS: tuple[Wording, ...] = ("plain", "company", "unseen")
FORBIDDEN = re.compile(
    r"\b(skin|race|ethnic\w*|caucasian|african|asian|face|complexion)\b"
    r"|\b(shit|puke|vomit|poop|none|null|nan)\b|[{}\0_]|  "
)
# Words that only this part has; where one stands, the part is named.
PART_WORDS = {
    "bottom": r"jeans|denims|trousers|pants|sweatpants|trackpants|leggings|jeggings|treggings|shorts|boardshorts"
    r"|bermudas|skirt|miniskirt|skort|bottoms|joggers|slacks|tights|chinos|cargos|cords|corduroys|britches|combats|pantaloons|flares"
    r"|bell-bottoms|palazzos|culottes|baggies|trackies|sweats|cut-offs|cutoffs|trunks",
    "shoes": r"shoes|sneakers|boots|sandals|footwear|trainers|loafers|brogues|lace-ups|slip-ons|flats|oxfords|moccasins"
    r"|derbies|pumps|kicks|runners|plimsolls|high-tops|low-tops|tennies|sandshoes|sneaks|wellies|wellingtons|bootees|chukkas"
    r"|flip-flops|flipflops|sliders|slides|mules|espadrilles",
    "scarf": r"scarf|muffler|neckerchief|kerchief|shawl|snood|gaiter|bandana|cravat|pashmina",
    "headwear": r"cap|beanie|beany|hat|sunhat|snapback|fedora|trilby|panama|stetson|homburg|toque|tuque|ballcap"
    r"|hood up|hood over|hood pulled|hood raised|hood on|hood",
    "bags": r"bag|backpack|rucksack|pack|handbag|suitcase|case|trolley|knapsack|haversack|satchel|purse|luggage|baggage"
    r"|pocketbook|clutch|carrier|shopper|carry-on|rollaboard|daypack|bookbag|schoolbag|packsack|crossbody",
    "hair": r"hair|haired|ponytail|bun|bald|shaved|bob|topknot|updo|locks|mane|chignon|brunette",
    "top": r"coat|overcoat|dress|vest|polo|sweater|jumper|pullover|hoodie|parka|puffer|jacket|anorak|blouse|gilet",
}


def all_visible(person: Appearance) -> dict[str, float]:
    visible = {"hair": 0.05, "top": 0.3, "shoes": 0.04, "skin": 0.06, "sleeves": 0.1}
    visible |= {"bottom": 0.25} if person.bottom else {}
    visible |= {"headwear": 0.03} if person.headwear else {}
    visible |= {"inner": 0.05} if person.top.inner_rgb else {}
    visible |= {"top_pattern": 0.05} if person.top.rgb2 else {}
    visible |= {"scarf": 0.03} if person.scarf else {}
    return visible | {f"bag{i}": 0.05 for i in range(len(person.bags))}


def sample(seed: int, count: int, wording: Wording = "train", complete: bool = True) -> list[str]:
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        person = sample_appearance(rng)
        texts += captions(
            person, all_visible(person), float(rng.uniform(0, 90)), rng, wording=wording, complete=complete
        )
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


def held_out_words(text: str) -> list[str]:
    return [w for w in re.findall("[a-z]+", text.lower()) if lexicon.held_out(w)]


def test_no_training_caption_has_a_held_out_word() -> None:
    rng = np.random.default_rng(2)
    for _ in range(700):
        person = sample_appearance(rng)
        for text in captions(person, all_visible(person), 20, rng, 2, complete=True):
            assert held_out_words(text) == [], text


def test_unseen_wording_has_them_and_the_others_have_not() -> None:
    texts = {wording: sample(3, 300, wording) for wording in WORDINGS}
    assert np.mean([len(held_out_words(t)) >= 2 for t in texts["unseen"]]) > 0.6
    assert [t for w in ("plain", "company") for t in texts[w] if held_out_words(t)] == []
    assert len({w for t in texts["unseen"] for w in held_out_words(t)}) > 50


def test_held_out_words_are_a_ninth_of_those_outside_the_core() -> None:
    nouns = {
        w
        for n in garments.NAMES.values()
        for t in (*n.usual, *n.other)
        for w in re.findall("[a-z]+", t.lower())
    }
    colours = {w for name in palette.all_names() for w in name.split()}
    free = [w for w in nouns | colours if w not in lexicon.CORE and len(w) > 2]
    assert 0.05 < np.mean([bool(lexicon.held_out(w)) for w in free]) < 0.15


def test_company_joins_what_training_keeps_apart() -> None:
    rng = np.random.default_rng(4)
    kept: dict[str, list[bool]] = {"train": [], "company": []}
    for _ in range(200):
        rgb = palette.sample_clothing_rgb("top", rng)
        cases: tuple[tuple[Wording, bool], ...] = (("train", False), ("company", True))
        for wording, apart in cases:
            person = replace(sample_appearance(rng), gender="woman")
            voice = _Voice(person, {}, 0.0, rng, rng, wording)
            pairs = [voice.colour_and_noun(rgb, "jacket") for _ in range(5)]
            kept[wording] += [lexicon.held_out_pair(*pair) == apart for pair in pairs]
    assert np.mean(kept["train"]) == 1 and np.mean(kept["company"]) > 0.8  # a colour may have too few names


def test_wordings_of_one_seed_say_the_same_things() -> None:
    rng = np.random.default_rng(9)
    parts = {
        p: words for p, words in PART_WORDS.items() if p != "top"
    }  # tops have more names than stand above
    same = 0
    for seed in range(200):
        person = sample_appearance(rng)
        named = []
        for wording in WORDINGS:
            said = np.random.default_rng(seed)
            text = captions(person, all_visible(person), 20, said, 1, wording=wording, complete=True)[
                0
            ].lower()
            named.append({p for p, words in parts.items() if re.search(rf"\b({words})\b", text)})
        same += named[0] == named[1] == named[2]
    assert same > 170, same  # not all: a word may name two parts


def test_more_than_1500_names() -> None:
    nouns = {t for n in garments.NAMES.values() for t in (*n.usual, *n.other)}
    rows = [
        *lexicon.PERSON.values(),
        *lexicon.BUILD.values(),
        *lexicon.HAIR_COLOURS.values(),
        *lexicon.HAIR_SHAPES.values(),
    ]
    people = {t for row in rows for t in row}
    assert len(nouns) > 700 and len(palette.all_names()) > 800 and len(people) > 120
    assert len(nouns | set(palette.all_names()) | people) > 1600


def test_only_what_is_visible_is_named() -> None:
    rng = np.random.default_rng(9)
    checked = 0
    for _ in range(1000):
        person = sample_appearance(rng)
        visible = {part: share for part, share in all_visible(person).items() if rng.random() < 0.55}
        texts = captions(person, visible, float(rng.uniform(0, 90)), rng, n=1, complete=True)
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
    for text in captions(person, visible, 10, rng, n=2, complete=True):
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
    return re.sub(r"hooded|with a hood|with a brim|leather|short-cut|dress (shoes|pants|trousers)", "", text)


@pytest.mark.parametrize(("complete", "low", "high"), [(False, 0.3, 0.65), (True, 0.85, 1.0)])
def test_the_second_caption_leaves_out_unless_complete(complete: bool, low: float, high: float) -> None:
    rng = np.random.default_rng(4)
    people = [p for p in (sample_appearance(rng) for _ in range(300)) if p.bottom]
    pairs = [captions(p, all_visible(p), 10, rng, complete=complete) for p in people]
    named = [[bool(re.search(PART_WORDS["bottom"], text)) for text in pair] for pair in pairs]
    first, second = np.mean(named, 0)
    assert first > 0.85 and low < second <= high and all(a != b for a, b in pairs)


def with_rare(share: float, complete: bool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("tagclip.train.synth.captions._RARE", share)
    return sample(5, 150, complete=complete)


def test_rare_names_of_colours_are_for_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rare = set(rare_names._table()[0])
    texts = {(s, c): with_rare(s, c, monkeypatch) for s in (0.0, 0.5) for c in (False, True)}
    holds = {
        key: sum(bool(rare.intersection(re.findall("[a-z]+", t.lower()))) for t in found)
        for key, found in texts.items()
    }
    assert texts[0.0, True] == texts[0.5, True]
    assert holds[0.5, True] == 0 == holds[0.0, False]
    assert holds[0.5, False] > 150  # of 300
    assert not any(lexicon.held_out(word) for word in rare)
    assert not [text for text in texts[0.5, False] if FORBIDDEN.search(text.lower())]


def test_a_rare_name_means_the_colour() -> None:
    rng = np.random.default_rng(0)
    table = dict(zip(*rare_names._table(), strict=True))
    assert len(table) > 500
    none = 0
    for _ in range(300):
        rgb = palette.sample_clothing_rgb("top", rng)
        text = rare_names.rare_name(rgb, rng)
        none += text is None
        if text is not None:
            word, *basic = text.split()
            assert palette.delta_e(palette.to_lab(rgb), table[word][None])[0] < 10
            assert basic in ([], [palette.basic_name(rgb)])
    assert none < 60
