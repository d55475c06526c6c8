"""The words of captions: what people call garments, hair, bags and each other.

A noun may hold `{c}` where its colour goes ("long {c} coat"); without it the colour stands in front. Every
noun is honest for its kind: "jacket" may stand for a hooded jacket, never the reverse.
"""

NOUNS: dict[str, tuple[str, ...]] = {
    "t-shirt": ("t-shirt", "T-shirt", "cotton t-shirt", "top"),
    "shirt": ("shirt", "button-up shirt", "collared shirt", "button-down shirt"),
    "polo": ("polo shirt", "polo", "shirt with a collar", "polo top"),
    "sweater": ("sweater", "sweatshirt", "knitted sweater", "knit top", "top"),
    "hoodie": ("hoodie", "hooded sweatshirt", "hooded top", "sweatshirt with a hood"),
    "jacket": ("jacket", "zip-up jacket", "bomber jacket", "short {c} jacket"),
    "hooded jacket": ("hooded jacket", "jacket with a hood", "parka", "jacket", "hooded coat"),
    "puffer jacket": (
        "puffer jacket",
        "padded jacket",
        "down jacket",
        "puffer",
        "quilted jacket",
        "puffy jacket",
    ),
    "coat": ("coat", "short {c} coat", "winter coat", "jacket"),
    "long coat": (
        "long {c} coat",
        "long coat",
        "trench coat",
        "knee-length coat",
        "long {c} trench coat",
        "coat",
    ),
    "vest": ("vest", "sleeveless jacket", "body warmer", "waistcoat"),
    "hi-vis vest": ("hi-vis vest", "safety vest", "reflective vest", "hi-vis waistcoat", "work vest"),
    "tank top": ("tank top", "sleeveless top", "sleeveless shirt", "vest top"),
    "dress": ("dress", "dress", "knee-length {c} dress"),
    "long dress": ("long {c} dress", "maxi dress", "full-length {c} dress"),
    "inner": ("top", "shirt", "t-shirt"),
    "jeans": ("jeans", "jeans", "denim jeans", "denim trousers", "denim pants"),
    "trousers": ("trousers", "pants", "trousers", "pants", "long {c} pants"),
    "wide trousers": (
        "wide {c} trousers",
        "wide-leg {c} pants",
        "loose {c} trousers",
        "wide {c} pants",
        "trousers",
    ),
    "sweatpants": ("sweatpants", "jogging bottoms", "tracksuit bottoms", "track pants", "jogging pants"),
    "leggings": ("leggings", "tight {c} pants", "tight {c} leggings"),
    "shorts": ("shorts", "short {c} trousers", "short {c} pants"),
    "skirt": ("skirt", "short {c} skirt", "knee-length {c} skirt"),
    "long skirt": ("long {c} skirt", "maxi skirt", "full-length {c} skirt"),
    "shoes": ("shoes", "footwear", "leather shoes", "flat {c} shoes"),
    "sneakers": ("sneakers", "running shoes", "sports shoes", "shoes", "athletic shoes", "tennis shoes"),
    "boots": ("boots", "ankle boots", "boots", "leather boots"),
    "sandals": ("sandals", "open {c} shoes", "strappy {c} sandals"),
    "backpack": ("backpack", "rucksack", "backpack", "bag on the back", "day pack"),
    "shoulder bag": ("shoulder bag", "bag over the shoulder", "crossbody bag", "messenger bag", "sling bag"),
    "handbag": ("handbag", "hand bag", "bag in the hand", "small {c} bag"),
    "suitcase": ("suitcase", "rolling suitcase", "trolley case", "wheeled suitcase"),
    "plastic bag": ("plastic bag", "shopping bag", "carry bag", "bag of shopping"),
    "cap": ("cap", "baseball cap", "peaked cap", "sports cap"),
    "beanie": ("beanie", "knit cap", "knitted hat", "knit hat", "wool hat"),
    "hat": ("hat", "brimmed hat", "sun hat", "hat with a brim"),
    "scarf": ("scarf", "neck scarf", "scarf around the neck"),
}

# Nouns that no training caption uses: only the "held-out" wording does, to measure how far meaning carries.
HELD_OUT_NOUNS: dict[str, tuple[str, ...]] = {
    "t-shirt": ("tee",),
    "shirt": ("dress shirt", "oxford shirt"),
    "sweater": ("jumper", "pullover"),
    "hoodie": ("hooded jumper", "hooded pullover"),
    "jacket": ("windbreaker", "blouson"),
    "hooded jacket": ("anorak", "hooded windbreaker"),
    "long coat": ("overcoat",),
    "vest": ("gilet",),
    "hi-vis vest": ("high-visibility vest",),
    "tank top": ("singlet",),
    "dress": ("frock",),
    "long dress": ("gown",),
    "inner": ("undershirt",),
    "trousers": ("slacks",),
    "wide trousers": ("baggy {c} slacks", "baggy {c} trousers"),
    "sweatpants": ("joggers",),
    "leggings": ("tights",),
    "shorts": ("bermudas",),
    "skirt": ("miniskirt",),
    "long skirt": ("ankle-length {c} skirt",),
    "sneakers": ("trainers",),
    "backpack": ("knapsack",),
    "shoulder bag": ("satchel",),
    "handbag": ("purse",),
    "suitcase": ("piece of luggage",),
    "plastic bag": ("carrier bag",),
    "beanie": ("woolly hat",),
    "scarf": ("muffler",),
}
HELD_OUT_COLOURS = frozenset(
    """
    cerulean claret vermilion russet aubergine periwinkle chartreuse cerise ultramarine viridian ochre
    petrol bordeaux merlot cranberry celadon pistachio cobalt ruby saffron apricot tangerine mulberry
    wisteria gunmetal taupe ecru umber mahogany anthracite midnight emerald
    """.split()
)
# Single words, as they stand in a caption; not "dress shirt", whose words occur apart in training.
HELD_OUT = HELD_OUT_COLOURS | frozenset(
    """
    tee oxford jumper pullover windbreaker blouson anorak overcoat gilet high-visibility singlet frock
    gown undershirt slacks baggy joggers tights bermudas miniskirt ankle-length trainers knapsack
    satchel purse luggage carrier woolly muffler gentleman chap
    """.split()
)

PLURAL = frozenset(
    "jeans trousers sweatpants leggings shorts shoes sneakers boots sandals".split() + ["wide trousers"]
)

PERSON = {
    ("woman", "child"): ("girl", "little girl", "young girl", "child", "female child"),
    ("man", "child"): ("boy", "little boy", "young boy", "child", "male child"),
    ("woman", "young"): ("young woman", "young lady", "woman", "young female", "girl", "lady"),
    ("man", "young"): ("young man", "young guy", "man", "young male", "guy"),
    ("woman", "adult"): ("woman", "woman", "lady", "female", "adult woman"),
    ("man", "adult"): ("man", "man", "guy", "male", "adult man"),
    ("woman", "old"): ("elderly woman", "old woman", "older woman", "older lady", "woman", "senior woman"),
    ("man", "old"): ("elderly man", "old man", "older man", "older guy", "man", "senior man"),
}
AGELESS = {"woman": ("woman", "woman", "lady", "female"), "man": ("man", "man", "guy", "male")}
GENDERLESS = ("person", "person", "individual", "pedestrian")
HELD_OUT_PERSON = {"man": ("gentleman", "chap"), "woman": ("lady", "woman")}
REPORT_AGE = {"young": "Young", "adult": "Adult", "old": "Elderly"}
BUILD = {
    "slim": ("slim", "slender", "thin"),
    "heavy": ("heavy-set", "stocky", "heavily built"),
    "average": (),
}
HEIGHT = {"tall": ("tall",), "short": ("short",), "average": ()}

HAIR_COLOURS: dict[str, tuple[str, ...]] = {
    "black": ("black", "black", "dark", "jet-black"),
    "dark brown": ("dark brown", "dark", "brown", "brunette"),
    "brown": ("brown", "brown", "brunette", "chestnut"),
    "light brown": ("light brown", "brown", "light brown"),
    "blond": ("blond", "blonde", "blond", "fair", "light", "golden"),
    "grey": ("grey", "grey", "silver", "greying"),
    "white": ("white", "white", "snow-white"),
    "red": ("red", "ginger", "auburn", "reddish"),
}
HAIR_SHAPES: dict[str, tuple[str, ...]] = {
    "short": ("short {h} hair", "short {h} hair", "{h} hair cut short", "short-cut {h} hair"),
    "medium": (
        "shoulder-length {h} hair",
        "medium-length {h} hair",
        "{h} hair down to the shoulders",
        "{h} hair",
    ),
    "long": ("long {h} hair", "long {h} hair", "{h} hair worn long", "long, loose {h} hair"),
    "ponytail": (
        "{h} hair in a ponytail",
        "a {h} ponytail",
        "{h} hair tied back",
        "{h} hair tied in a ponytail",
    ),
    "bun": ("{h} hair in a bun", "a {h} bun", "{h} hair tied up", "{h} hair put up in a bun"),
}
HAIR_HIDDEN = ("{h} hair",)  # under headwear its length is a guess
BALD = ("a bald head", "a shaved head", "no hair")

PATTERNS = {
    "horizontal stripes": (
        *("{a} and {b} striped {n}", "{a} and {b} stripy {n}", "{a} {n} with {b} horizontal stripes"),
        *("{a} {n} with {b} stripes", "{n} with {a} and {b} stripes", "horizontally striped {a} and {b} {n}"),
    ),
    "vertical stripes": (
        *(
            "{a} and {b} striped {n}",
            "{a} {n} with vertical {b} stripes",
            "vertically striped {a} and {b} {n}",
        ),
        *("{a} {n} with {b} stripes", "{a} {n} with {b} pinstripes"),
    ),
    "checks": (
        *(
            "{a} and {b} checked {n}",
            "{a} and {b} plaid {n}",
            "{a} and {b} chequered {n}",
            "checked {a} and {b} {n}",
        ),
        *("{a} {n} with {b} checks", "{a} and {b} tartan {n}"),
    ),
    "colour block": (
        *(
            "{a} and {b} {n}",
            "two-tone {a} and {b} {n}",
            "{a} and {b} colour-block {n}",
            "{a} {n} with a {b} lower half",
        ),
        *("{a} and {b} two-tone {n}", "two-coloured {n} in {a} and {b}"),
    ),
    "logo": (
        *(
            "{a} {n} with a {b} logo",
            "{a} {n} with a {b} print",
            "{a} {n} with a {b} patch",
            "{a} {n} with {b} lettering",
        ),
        "{a} {n} with a small {b} logo",
    ),
    # of a hi-vis vest
    "tape": (
        "{a} {n} with reflective strips",
        "{a} {n} with silver bands",
        "{a} {n} with reflective tape",
        "{a} {n}",
    ),
}
# The second colour unknown or not worth a word.
PATTERNS_ALONE = {
    "horizontal stripes": ("striped {a} {n}", "{a} striped {n}", "stripy {a} {n}"),
    "vertical stripes": ("striped {a} {n}", "{a} {n} with vertical stripes"),
    "checks": ("checked {a} {n}", "{a} plaid {n}", "{a} checked {n}"),
    "colour block": ("two-tone {a} {n}",),
    "logo": ("{a} {n} with a logo", "{a} {n} with a print"),
    "tape": ("{a} {n}",),
}
TWO_TONE = ("with {s} sleeves", "with {s} sleeves", "with {s} arms", "that has {s} sleeves")
HOOD_UP = ("with the hood up", "with the hood up", "with the hood pulled up", "with the hood over the head")
OPEN_OVER = ("open {t} over {i}", "{t} worn open over {i}", "{t} over {i}", "{t} open over {i}")
VEST_OVER = ("{t} over {i}", "{t} on top of {i}", "{t} worn over {i}")

WEAR = ("wearing", "wearing", "dressed in", "in", "who wears", "clad in")
WEARS = ("is wearing", "wears", "is dressed in", "has on", "is clad in")
CARRY: dict[str, tuple[str, ...]] = {
    "backpack": ("carrying", "with", "with"),
    "shoulder bag": ("carrying", "with", "with"),
    "handbag": ("carrying", "holding", "with"),
    "suitcase": ("pulling", "with", "carrying"),
    "plastic bag": ("carrying", "holding", "with"),
}
PRONOUNS = {"woman": ("She", "is", "Her"), "man": ("He", "is", "His"), "": ("They", "are", "Their")}
AMERICAN = (
    ("grey", "gray"),
    ("Grey", "Gray"),
    ("colour", "color"),
    ("Colour", "Color"),
    ("chequered", "checkered"),
)
