"""The shapes of a caption: facts about one person in, a sentence, a query or a report out."""

import re
from dataclasses import dataclass, field, replace

import numpy as np

from tagclip.train.synth import lexicon

MAX_WORDS = 60
# What a caption that is too long gives up, in this order.
_EXPENDABLE = ("shoes", "scarf", "bag1", "headwear", "bottom", "bag0")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase without its article."""

    text: str
    plural: bool = False
    doubt: str = ""  # "possibly"

    def full(self) -> str:
        """With its article, and the doubt before it: "possibly a red cap", "some kind of red cap"."""
        bare = self.plural or self.doubt.endswith(" of")
        text = self.text if bare else with_article(self.text)
        return f"{self.doubt} {text}" if self.doubt else text


@dataclass(frozen=True)
class Facts:
    """What one caption says."""

    person: str  # without article
    gender: str  # "" when the caption does not tell
    report: str  # "Adult male, slim"
    hair: str | None  # "short brown hair", "a brown ponytail"
    worn: dict[str, Phrase] = field(default_factory=dict)  # by part, in the order to be said
    bags: dict[str, tuple[str, Phrase]] = field(default_factory=dict)  # by part: ("pulling", suitcase)
    hood_up: str | None = None
    doing: str | None = None  # "sitting", "with an arm raised"


def with_article(text: str) -> str:
    """Put "a" or "an" in front; no word of the lexicon or of a colour has a silent h or a "yoo" u."""
    return f"{'an' if text[0].lower() in 'aeiou' else 'a'} {text}"


def right_articles(text: str) -> str:
    """Make "a" before a vowel an "an"."""
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def place(adjective: str, noun: str) -> str:
    """Put a colour into a noun: "red", "long {c} coat" -> "long red coat"."""
    if "denim" in adjective:  # no "denim blue denim jeans"
        noun = noun.replace("denim ", "")
    text = noun.replace("{c}", adjective) if "{c}" in noun else f"{adjective} {noun}"
    return " ".join(text.split())


def _list(items: list[str]) -> str:
    if len(items) == 2 and " over " in items[0]:  # "a coat over a top and jeans" would put it over both
        return f"{items[0]} with {items[1]}"
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _carrying(facts: Facts, rng: np.random.Generator) -> str:
    """ "carrying a black backpack and pulling a red suitcase"; "" without bags."""
    bags = list(facts.bags.values())
    if len(bags) == 2 and ("with" in (bags[0][0], bags[1][0]) or rng.random() < 0.5):
        return f"with {bags[0][1].full()} and {bags[1][1].full()}"
    return " and ".join(f"{verb} {phrase.full()}" for verb, phrase in bags)


def _worn(facts: Facts) -> str:
    """All garments as a list in a sentence, with the hood where it belongs; "" when none is said."""
    items = [phrase.full() for phrase in facts.worn.values()]
    if facts.hood_up and "top" in facts.worn and not re.search(" with | over | open", facts.worn["top"].text):
        where = list(facts.worn).index("top")
        items[where] += f" {facts.hood_up}"
        return _list(items)
    return (_list(items) if items else "") + (f", {facts.hood_up}" if facts.hood_up else "")


def _who(facts: Facts, article: str = "") -> str:
    person = f"{article} {facts.person}" if article else with_article(facts.person)
    return f"{person} with {facts.hair}" if facts.hair and not article else person


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _sentence(facts: Facts, rng: np.random.Generator) -> str:
    """A woman with long blond hair is wearing a navy coat, jeans and boots, carrying a black handbag."""
    worn, carrying, text = _worn(facts), _carrying(facts, rng), _who(facts)
    text += f" {_pick(rng, lexicon.WEARS)} {worn}" if worn else ""
    return _capital(_then_carrying(text, carrying, facts, rng))


def _hair_first(facts: Facts, rng: np.random.Generator) -> str:
    """With short brown hair, the man is dressed in a grey suit."""
    worn = _worn(facts)
    if not facts.hair or not worn:
        return _sentence(facts, rng)
    text = f"With {facts.hair}, {_who(facts, 'the')} {_pick(rng, lexicon.WEARS)} {worn}"
    return _capital(_then_carrying(text, _carrying(facts, rng), facts, rng))


def _clothes_first(facts: Facts, rng: np.random.Generator) -> str:
    """A red jacket and black trousers, worn by a man with short hair."""
    worn = _worn(facts)
    if not worn:
        return _sentence(facts, rng)
    carrying = _carrying(facts, rng)
    return _capital(_then_carrying(f"{worn}, worn by {_who(facts)}", carrying, facts, rng))


def _query(facts: Facts, rng: np.random.Generator) -> str:
    """A man in a navy jacket with red sleeves and dark blue trousers, as an operator types it."""
    worn, carrying, text = _worn(facts), _carrying(facts, rng), _who(facts)
    if rng.random() < 0.3:
        text = re.sub("^an? ", "", text)
    at_once = facts.doing is not None and rng.random() < 0.5
    text += f" {facts.doing}" if at_once else ""
    text += f" {_pick(rng, lexicon.WEAR)} {worn}" if worn else ""
    comma = "," if worn or facts.hair or facts.doing else ""
    text = f"{text}{comma} {carrying}" if carrying else text
    return f"{text}, {facts.doing}" if facts.doing and not at_once else text


def _telegram(facts: Facts, rng: np.random.Generator) -> str:
    """woman, long blond hair, red jacket, blue jeans, black backpack"""
    items = [facts.person, *([facts.hair] if facts.hair else [])]
    items += [phrase.text for phrase in facts.worn.values()]
    items += [facts.hood_up.removeprefix("with the ")] if facts.hood_up else []
    items += [phrase.text for _, phrase in facts.bags.values()]
    items += [facts.doing] if facts.doing else []
    text = ", ".join(_bare(item) for item in items)
    return text.capitalize() if rng.random() < 0.3 and text.islower() else text


def _report(facts: Facts, rng: np.random.Generator) -> str:
    """Adult male, slim. Hair: short brown. Wears: red jacket, blue jeans. Carries: black backpack."""
    worn = [phrase.text for phrase in facts.worn.values()]
    worn += [facts.hood_up.removeprefix("with the ")] if facts.hood_up else []
    parts = [facts.report]
    parts += [f"Hair: {_bare(facts.hair).removesuffix(' hair')}"] if facts.hair else []
    parts += [f"Wears: {', '.join(worn)}"] if worn else []
    parts += [f"Carries: {', '.join(p.text for _, p in facts.bags.values())}"] if facts.bags else []
    parts += [f"Posture: {facts.doing}"] if facts.doing else []
    return ". ".join(parts) + "."


def _attributes(facts: Facts, rng: np.random.Generator) -> str:
    """gender: female; hair: long blond; top: red jacket; bottom: blue jeans; carries: black backpack"""
    items = [f"gender: {'female' if facts.gender == 'woman' else 'male'}"] if facts.gender else [facts.person]
    items += [f"hair: {_bare(facts.hair).removesuffix(' hair')}"] if facts.hair else []
    items += [f"{part.rstrip('01')}: {phrase.text}" for part, phrase in facts.worn.items()]
    items += [f"hood: {facts.hood_up.removeprefix('with the hood ')}"] if facts.hood_up else []
    items += [f"carries: {phrase.text}" for _, phrase in facts.bags.values()]
    items += [f"posture: {facts.doing}"] if facts.doing else []
    return "; ".join(items)


def _sought(facts: Facts, rng: np.random.Generator) -> str:
    """looking for a man in a red jacket and blue jeans"""
    return f"{_pick(rng, lexicon.SOUGHT)} {_query(facts, rng)}"


def _notice(facts: Facts, rng: np.random.Generator) -> str:
    """Elderly man with grey hair, last seen wearing a beige coat and brown trousers."""
    worn = _worn(facts)
    if not worn:
        return _sentence(facts, rng)
    who = _capital(_bare(_who(facts)))
    return _then_carrying(f"{who}, {_pick(rng, lexicon.LAST_SEEN)} {worn}", _carrying(facts, rng), facts, rng)


def _story(facts: Facts, rng: np.random.Generator) -> str:
    """There is a woman with long hair. She wears a red coat. She also has on blue jeans. She carries a black bag."""
    subject, be, _ = lexicon.PRONOUNS[facts.gender]
    parts = [f"{_pick(rng, ('There is', 'I see', 'This is'))} {_who(facts)}"]
    wears = "are wearing" if be == "are" else "is wearing"
    for k, phrase in enumerate(facts.worn.values()):
        parts.append(f"{subject} {wears} {phrase.full()}" if k == 0 else _more(phrase, subject, be, rng))
    parts += [f"{subject} {be} {facts.hood_up}"] if facts.hood_up else []
    parts += [f"{subject} {be} {facts.doing}"] if facts.doing else []
    parts += [f"{subject} {be} {carrying}"] if (carrying := _carrying(facts, rng)) else []
    return ". ".join(parts) + "."


def _more(phrase: Phrase, subject: str, be: str, rng: np.random.Generator) -> str:
    return f"{subject} also {be} in {phrase.full()}" if rng.random() < 0.5 else _capital(phrase.full())


def _fragment(facts: Facts, rng: np.random.Generator) -> str:
    """navy hoodie, black backpack"""
    items = [phrase.text for phrase in (*facts.worn.values(), *(p for _, p in facts.bags.values()))]
    items += [facts.doing] if facts.doing else []
    return (", " if rng.random() < 0.5 else " ").join(items) if items else _telegram(facts, rng)


def _bare(text: str) -> str:
    return re.sub("^an? ", "", text)


def _then_carrying(text: str, carrying: str, facts: Facts, rng: np.random.Generator) -> str:
    """The end of a sentence: what they do, what they carry."""
    text += f", {facts.doing}" if facts.doing else ""
    if not carrying:
        return text + "."
    pronoun, be, _ = lexicon.PRONOUNS[facts.gender]
    if not carrying.startswith("with") and " with " not in carrying and rng.random() < 0.35:
        return f"{text}. {pronoun} {be} {carrying}."
    return f"{text}, {carrying}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_STYLES = (
    _sentence,
    _sentence,
    _query,
    _query,
    _query,
    _telegram,
    _telegram,
    _report,
    _hair_first,
    _clothes_first,
    _sought,
    _notice,
    _story,
)
_RARE_STYLES = (_attributes, _fragment)


def say(facts: Facts, rng: np.random.Generator) -> str:
    """One caption in a drawn style, of at most MAX_WORDS words."""
    styles = _RARE_STYLES if rng.random() < 0.1 else _STYLES
    style = styles[int(rng.integers(len(styles)))]
    for part in ("", *_EXPENDABLE):
        facts = replace(
            facts,
            worn={k: v for k, v in facts.worn.items() if k != part},
            bags={k: v for k, v in facts.bags.items() if k != part},
        )
        text = style(facts, rng)
        if len(text.split()) <= MAX_WORDS:
            break
    return text
