"""Captions of a synthetic person: what can be seen in one picture, said in many ways."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from tagclip.train.synth import garments, lexicon, palette
from tagclip.train.synth.appearance import Appearance, Bottom, Top
from tagclip.train.synth.rare_names import rare_name
from tagclip.train.synth.slips import slip
from tagclip.train.synth.styles import Facts, Phrase, place, right_articles, say, with_article

# "train": all words but the held-out ones. The others are for measuring, on the same facts: "plain" says the usual noun
# and the basic colour, "company" puts words together that no training caption does, "unseen" uses held-out words.
Wording = Literal["train", "plain", "company", "unseen"]
T = TypeVar("T")

# The least fraction of the person's pixels that must show a part before a caption may name it.
_LEAST = {"top": 0.03, "bottom": 0.03, "inner": 0.02, "sleeves": 0.02, "top_pattern": 0.005, "skin": 0.02}
_LEAST_SMALL = 0.01
# No second adjective before these: "black-haired tall man" is nobody's English.
_ADJECTIVES = frozenset(
    {
        "little",
        "bald",
        *(word for row in (lexicon.BUILD, lexicon.HEIGHT) for words in row.values() for word in words),
    }
)
_KEPT = (0.3, 0.5, 0.7)  # how much of what is visible the later captions say
_SLIPS = 0.12  # share of training captions with a slip
_RARE = 0.15  # share of the colours of training captions that go by a rare name
_UNSURE = 0.04  # share of the things in training captions that were seen badly
# How often a training caption says what somebody does: the rarer, the more it is worth. Never where the caption is a
# query for the person's other pictures, in which they do something else.
_DOING = {"walking": 0.12, "standing": 0.12, "lying": 0.8, "sitting": 0.55, "waving": 0.6}
_DOING_ELSE = 0.5
_SLEEVED = frozenset({"t-shirt", "shirt", "polo", "sweater", "dress", "long dress"})


def captions(
    appearance: Appearance,
    visible: Mapping[str, float],
    elevation_deg: float,
    rng: np.random.Generator,
    n: int = 2,
    *,
    wording: Wording = "train",
    complete: bool = False,
) -> list[str]:
    """Describe a person as far as one picture shows them: `n` different captions of at most 60 words.

    `visible`: part (see `appearance.PARTS`) -> share of the person's pixels, 0..1; absent means unseen.
    The first caption names nearly all that can be seen; the others leave things out, unless `complete`.
    `elevation_deg`: 0 from the side, 90 from straight above. Training captions have slips of the keyboard and rare
    names of colours now and then, unless `complete`.
    """
    found: list[str] = []
    for attempt in range(50 * n):
        # What is said has a stream of its own, so that two wordings of one seed say the same things.
        said, words = (np.random.default_rng(seed) for seed in rng.integers(2**63, size=2))
        loose = wording == "train" and not complete
        voice = _Voice(appearance, visible, elevation_deg, said, words, wording, loose)
        partial = float(said.choice(_KEPT)) if attempt < 25 * n else 1.0
        facts = voice.facts(keep=0.96 if complete or not found else partial)
        text = say(facts, said)
        if voice.american:
            for british, american in lexicon.AMERICAN:
                text = text.replace(british, american)
        if loose and voice.chance(_SLIPS):
            text = slip(text, words)
        if text.lower() not in (other.lower() for other in found):
            found.append(text)
        if len(found) == n:
            return found
    raise ValueError(
        f"only {len(found)} of {n} different captions for parts {sorted(visible)}; ask for fewer"
    )


@dataclass
class _Voice:
    """One speaker: what they see, and how they talk."""

    who: Appearance
    visible: Mapping[str, float]
    elevation_deg: float
    rng: np.random.Generator  # of what is said, and in which order
    words: np.random.Generator  # of the words for it
    wording: Wording
    loose: bool = False  # as people talk: rare names of colours, what somebody does, doubts

    def __post_init__(self) -> None:
        self.american = self.chance(0.4)
        self.plain = float(self.words.choice([0.1, 0.4, 0.75]))  # how often a colour is just its basic term

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def one(self, options: tuple[T, ...]) -> T:
        return options[int(self.words.integers(len(options)))]

    def sees(self, part: str) -> bool:
        return self.visible.get(part, 0.0) >= _LEAST.get(part, _LEAST_SMALL)

    def facts(self, keep: float) -> Facts:
        """Choose what to say of what is visible; each thing is said with probability `keep`."""
        who = self.who
        above = self.elevation_deg > 60
        parts = [
            p for p in ("headwear", "top", "bottom", "shoes", "scarf", "bag0", "bag1", "hair") if self.sees(p)
        ]
        if above:  # whoever looks down on a person hardly speaks of the shoes
            parts = [p for p in parts if p != "shoes" or self.chance(0.3)]
        said = {p for p in parts if self.chance(max(keep, 0.9) if p == "top" else keep)}
        if parts and not said:
            said = {parts[int(self.rng.integers(len(parts)))]}
        clothes = [p for p in ("top", "bottom") if p in parts]
        if clothes and not said.intersection(clothes) and self.chance(0.85):  # shoes alone find nobody
            said.add(clothes[int(self.rng.integers(len(clothes)))])
        facts = self.person(above)
        bald = who.hair.length == "bald" and not who.headwear and self.sees("skin") and self.chance(keep)
        if "hair" in said and who.hair.length != "bald":
            facts = self.with_hair(facts)
        elif bald:
            facts = replace(facts, person=f"bald {facts.person}") if self.chance(0.5) else facts
            facts = facts if "bald" in facts.person else replace(facts, hair=self.one(lexicon.BALD))
        hooded = who.headwear is not None and who.headwear.kind == "hood" and "headwear" in said
        worn: dict[str, Phrase] = {}
        if who.headwear and "headwear" in said and not (hooded and "top" in said):
            worn["headwear"] = Phrase(self.named(who.headwear.rgb, who.headwear.kind))
        if "top" in said:
            worn["top"] = self.top(who.top)
        if who.bottom and "bottom" in said:
            worn["bottom"] = self.bottom(who.bottom)
        if "shoes" in said:
            worn["shoes"] = self.pair(self.named(who.shoes.rgb, who.shoes.kind), 0.08)
        if who.scarf and "scarf" in said:
            worn["scarf"] = Phrase(self.named(who.scarf, "scarf"))
        if "headwear" in worn and self.chance(0.5):  # from the clothes up to the head
            worn["headwear"] = worn.pop("headwear")
        bags = {}
        for i, bag in enumerate(who.bags):
            if f"bag{i}" in said:
                phrase = Phrase(self.named(bag.rgb, bag.kind))
                if bag.kind == "backpack" and worn and self.chance(0.25):  # worn like a garment
                    worn[f"bag{i}"] = phrase
                else:
                    bags[f"bag{i}"] = (self.one(lexicon.CARRY[bag.kind]), phrase)
        hood_up = self.one(lexicon.HOOD_UP) if hooded and "top" in said else None
        if self.loose:
            worn = {part: self.doubted(phrase) for part, phrase in worn.items()}
            bags = {part: (verb, self.doubted(phrase)) for part, (verb, phrase) in bags.items()}
        return replace(facts, worn=worn, bags=bags, hood_up=hood_up, doing=self.doing())

    def doubted(self, phrase: Phrase) -> Phrase:
        return replace(phrase, doubt=self.one(lexicon.UNSURE)) if self.chance(_UNSURE) else phrase

    def doing(self) -> str | None:
        posture = self.who.posture
        if not self.loose or not self.chance(_DOING.get(posture, _DOING_ELSE)):
            return None
        return self.one(lexicon.DOING[posture])

    def person(self, above: bool) -> Facts:
        who, rng = self.who, self.rng
        gender = who.gender if self.chance(0.72 if above else 0.87) else ""
        tells_age = self.chance(
            {"child": 0.85, "young": 0.4, "adult": 0.25, "old": 0.6}[who.age] * (0.6 if above else 1)
        )
        adjectives = (
            [self.one(self.known(lexicon.BUILD[who.build]))]
            if who.build != "average" and self.chance(0.12)
            else []
        )
        if who.height != "average" and who.age != "child" and self.chance(0.06):
            adjectives.insert(0, self.one(self.known(lexicon.HEIGHT[who.height])))
        if not gender:
            noun = "child" if who.age == "child" and tells_age else self.one(self.known(lexicon.GENDERLESS))
        else:
            nouns = lexicon.PERSON[who.gender, who.age] if tells_age else lexicon.AGELESS[who.gender]
            noun = self.one(self.known(nouns))
        if " " in noun:  # an adjective is there already, or a clause that follows ("in his twenties")
            adjectives = []
        sex = {"woman": "female", "man": "male", "": "person"}[gender]
        report = sex.capitalize()
        if tells_age or rng.random() < 0.3:
            report = f"Child, {sex}" if who.age == "child" else f"{lexicon.REPORT_AGE[who.age]} {sex}"
        return Facts(" ".join([*adjectives, noun]), gender, ", ".join([report, *adjectives]), None)

    def with_hair(self, facts: Facts) -> Facts:
        hair = self.who.hair
        if hair.name == "dyed":
            basic = palette.basic_name(hair.rgb)
            colours: tuple[str, ...] = (f"dyed {basic}", basic, f"bright {basic}")
        else:
            colours = self.known(lexicon.HAIR_COLOURS[hair.name])
            unfit = {"brunette"} if facts.gender != "woman" else set()  # nobody says it of a man
            unfit |= {"greying"} if self.who.age != "old" else set()
            colours = tuple(c for c in colours if c not in unfit)
        covered = self.sees("headwear") and self.who.headwear and hair.length in ("short", "medium")
        if self.chance(0.15) and facts.person.split()[0] not in _ADJECTIVES:
            return replace(facts, person=f"{colours[0].split()[-1]}-haired {facts.person}")
        shapes = lexicon.HAIR_HIDDEN if covered else lexicon.HAIR_SHAPES[hair.length]
        return replace(facts, hair=right_articles(self.one(shapes).format(h=self.one(colours))))

    def top(self, top: Top) -> Phrase:
        vest = top.kind in ("vest", "hi-vis vest")
        inner = top.inner_rgb if self.sees("inner") or (vest and self.sees("sleeves")) else None
        sleeves = top.sleeve_rgb if self.sees("sleeves") and not vest else None
        pattern: str = top.pattern if self.sees("top_pattern") else "plain"
        if top.kind == "hi-vis vest" and pattern != "plain":
            pattern = "tape"
        colour, noun = self.colour_and_noun(
            top.rgb, top.kind, simple=pattern != "plain" or sleeves is not None
        )
        sleeve = self.sleeve_word(top)
        if (
            "{c}" not in noun and sleeve
        ):  # else there is an adjective already, and sleeves would be one too many
            noun = f"{sleeve} {noun}"
        text = self.patterned(noun, colour, pattern, top.rgb2)
        if sleeves and (second := self.other_colour(sleeves, colour)):
            if " with " in text:
                text += f" and {second} sleeves"
            else:
                text += " " + self.one(lexicon.TWO_TONE).format(s=second)
        if inner:
            under, layer = self.colour_and_noun(inner, "inner")
            if vest and top.sleeve == "long" and self.sees("sleeves") and self.chance(0.3):
                layer = f"long-sleeved {layer}"
            over = with_article(place(under, layer))
            text = self.one(lexicon.OPEN_OVER if top.open else lexicon.VEST_OVER).format(t=text, i=over)
        return Phrase(text)

    def sleeve_word(self, top: Top) -> str:
        if top.sleeve == "none":
            return "sleeveless" if "dress" in top.kind and self.chance(0.4) else ""
        unusual = top.kind == "t-shirt" and top.sleeve == "long"
        told = top.kind in _SLEEVED and self.sees("sleeves") and self.chance(0.6 if unusual else 0.18)
        return f"{top.sleeve}-sleeved" if told else ""

    def bottom(self, bottom: Bottom) -> Phrase:
        pattern = bottom.pattern if self.visible.get("bottom", 0) > 0.06 else "plain"
        colour, noun = self.colour_and_noun(bottom.rgb, bottom.kind, simple=pattern != "plain")
        text = self.patterned(noun, colour, pattern, bottom.rgb2)
        return self.pair(text, 0.06) if bottom.kind in garments.PLURAL else Phrase(text)

    def pair(self, text: str, p: float) -> Phrase:
        if self.chance(p) and not re.search("footwear|leggings|tights", text):
            return Phrase(f"pair of {text}")
        return Phrase(text, plural=True)

    def patterned(self, noun: str, first: str, pattern: str, rgb2: palette.RGB | None) -> str:
        """A garment with its colours."""
        if pattern == "plain":
            return place(first, noun)
        second = self.other_colour(rgb2, first) if rgb2 and self.chance(0.85) else None
        table = lexicon.PATTERNS if second else lexicon.PATTERNS_ALONE
        text = self.one(table[pattern]).format(a=first, b=second, n="\0")
        before, after = right_articles(text).split("\0")
        return place(before.strip(), noun) + after

    def named(self, rgb: palette.RGB, kind: str) -> str:
        return place(*self.colour_and_noun(rgb, kind))

    def colour_and_noun(self, rgb: palette.RGB, kind: str, simple: bool = False) -> tuple[str, str]:
        """Words for a colour and a kind that may stand together; `simple` as in `noun`."""
        for _ in range(41):
            colour, noun = self.colour(rgb), self.noun(kind, simple)
            if lexicon.held_out_pair(colour, noun) == (self.wording == "company"):
                return colour, noun
        # A kind of one name in a colour of one name: no other pair is to be had.
        return f"{palette.basic_name(rgb)}-coloured" if self.wording == "train" else colour, noun

    def colour(self, rgb: palette.RGB) -> str:
        if self.wording == "plain":
            return palette.basic_name(rgb)
        if self.words.random() < 0.03:  # seen too badly for a colour
            light = float(palette.to_lab(rgb)[0])
            if light < 28 or light > 80:
                return self.one(("dark", "dark-coloured") if light < 28 else ("light", "light-coloured"))
        if self.loose and self.words.random() < _RARE and (rare := rare_name(rgb, self.words)):
            return rare
        if self.wording == "unseen":
            return palette.name(rgb, self.words, 0.0, prefer=lambda text: bool(lexicon.held_out(text)))
        return palette.name(rgb, self.words, self.plain, without=lambda text: bool(lexicon.held_out(text)))

    def other_colour(self, rgb: palette.RGB, first: str) -> str | None:
        """A name for a second colour of the same garment; None when it has no name of its own."""
        for _ in range(6):
            second = self.colour(rgb)
            if second.split()[-1] != first.split()[-1] and second not in ("dark", "light"):
                return second
        return None

    def noun(self, kind: str, simple: bool = False) -> str:
        """A noun for a kind; `simple`: without "with ...", because more of that kind follows."""
        if kind == "hood":
            return "hood"
        names = garments.NAMES[kind]
        if self.wording == "plain":
            return names.usual[0]
        pool = (
            names.usual
            if self.wording != "unseen" and self.words.random() < 0.45
            else names.usual + names.other
        )
        fit = [n for n in pool if not (simple and " with " in n)]
        if self.who.gender != "woman":
            fit = [n for n in fit if n not in garments.WOMENS]
        return self.one(self.known(tuple(fit)))

    def known(self, options: tuple[str, ...]) -> tuple[str, ...]:
        """Those that the wording may use: unseen words first where they are wanted, else none of them."""
        unseen = tuple(text for text in options if lexicon.held_out(text))
        if self.wording == "unseen":
            return unseen or options
        return tuple(text for text in options if text not in unseen)
