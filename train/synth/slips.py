"""Slips of the keyboard and of spelling, as operators make them."""

import re

import numpy as np

# Frequent misspellings of words that descriptions use.
MISSPELT = {
    "backpack": ("back pack", "bagpack", "backpak"),
    "beanie": ("beany", "benie"),
    "beige": ("biege", "beije"),
    "blond": ("blonde",),
    "blonde": ("blond",),
    "burgundy": ("burgandy", "burgendy"),
    "colour": ("coulour", "collour"),
    "fuchsia": ("fuschia", "fushia"),
    "grey": ("gery", "grayish"),
    "hoodie": ("hoody", "hooddie"),
    "jacket": ("jaket", "jackett", "jacet"),
    "jeans": ("jeens", "jean"),
    "khaki": ("kaki", "khakhi"),
    "leggings": ("leggins", "legings"),
    "maroon": ("marroon", "maron"),
    "purple": ("purpel", "puple"),
    "rucksack": ("rucksac", "rucsack"),
    "scarf": ("scalf", "scraf"),
    "shoulder": ("sholder", "shoudler"),
    "sneakers": ("sneekers", "sneakres"),
    "striped": ("stripped", "stiped"),
    "suitcase": ("suit case", "suticase"),
    "sweater": ("swetter", "sweter"),
    "sweatshirt": ("sweat shirt", "sweetshirt"),
    "trousers": ("trowsers", "trouser", "trousres"),
    "turquoise": ("turqoise", "turquois"),
    "wearing": ("wering", "waering"),
    "yellow": ("yelow", "yellw"),
}
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LEAST_LETTERS = 4


def slip(text: str, rng: np.random.Generator) -> str:
    """Spoil one or two words of at least four letters; `text` with no such word comes back as it is."""
    words = [m for m in re.finditer(r"[A-Za-z]+", text) if len(m[0]) >= _LEAST_LETTERS]
    if not words:
        return text
    count = min(len(words), 1 + int(rng.random() < 0.3))
    for k in sorted(rng.choice(len(words), count, replace=False).tolist(), reverse=True):
        found = words[k]
        text = text[: found.start()] + _spoil(found[0], rng) + text[found.end() :]
    return text


def _spoil(word: str, rng: np.random.Generator) -> str:
    known = MISSPELT.get(word.lower())
    if known and rng.random() < 0.5:
        return known[int(rng.integers(len(known)))]
    at = int(rng.integers(1, len(word) - 1))  # first letters are rarely wrong
    kind = int(rng.integers(4))
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    if kind == 2:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + _neighbour(word[at].lower(), rng) + word[at + 1 :]


def _neighbour(letter: str, rng: np.random.Generator) -> str:
    row = next(keys for keys in _KEYS if letter in keys)
    at = row.index(letter)
    near = row[max(0, at - 1) : at] + row[at + 1 : at + 2]
    return near[int(rng.integers(len(near)))]
