"""Words of captions beside garments and colours: people, hair, patterns, verbs; and which words training never sees."""

from __future__ import annotations

import functools
import re
import zlib

# Words that are never held out: operators could not do without them, or they mean too little alone.
CORE = frozenset(
    """
    a an and at his her back bag baggy bags bald ball base beanie beige belt black blazer blond blonde blue body
    boots bottom bottoms bright brimmed british brown brownish build built buttoned cap carrier carry
    cardigan case casual charcoal child city close coat collar collared cotton cream dark deep denim down dress
    dull fair female figure flat fleece floor footwear full girl gold golden gray green grey guy hair
    hand handle hat head heavy held helmet hi high hood hooded hoodie in jacket jeans joggers jogging jumper
    khaki knee knit knitted lady layer leather leggings length light long loose male man maroon medium
    muted navy neck off old olive on open orange out over padded pair pale pants pastel person pink
    plastic polo puffer pure purple quilted rain raincoat red reddish roll rucksack running sandals
    scarf school shirt shoe shoes shopping short shorts shoulder silver ski skirt sky sleeve sleeveless
    sleeves slim small smart sneakers sports straw student suit suitcase summer sun sweater sweatshirt t
    tan tank teal tee the tight top track tracksuit trainers training travel trousers turquoise umbrella very
    vest violet vis viz waist waistcoat white wide winter with woman wool woollen work worn yellow yoga
    young zip
    """.split()
)
_ONE_IN = 9


def _row(text: str) -> tuple[str, ...]:
    return tuple(" ".join(item.split()) for item in text.split(";"))


def held_out(text: str) -> list[str]:
    """The words of a noun, colour or person that no training caption uses, to measure how far meaning carries.

    One in nine of the words outside CORE, by a checksum: nobody picked them, so the measure is no matter of taste.
    """
    return [word for word in re.findall("[a-z]+", text.lower()) if _held_out(word)]


@functools.cache
def _held_out(word: str) -> bool:
    free = len(word) < 3 or word in CORE or word in template_words()
    return not free and zlib.crc32(word.encode()) % _ONE_IN == 0


def held_out_pair(colour: str, noun: str) -> bool:
    """Whether a colour and a noun never stand together in a training caption, although each does alone."""
    return zlib.crc32(f"{colour}|{noun}".lower().encode()) % 12 == 0


@functools.cache
def template_words() -> frozenset[str]:
    """Words that stand around nouns and colours: every caption may need them."""
    tables = (HAIR_SHAPES, PATTERNS, PATTERNS_ALONE, CARRY)
    rows = [row for table in tables for row in table.values()]
    rows += [
        tuple(word for pair in AMERICAN for word in pair),
        ("colored",),
        BALD,
        TWO_TONE,
        HOOD_UP,
        OPEN_OVER,
        VEST_OVER,
        WEAR,
        WEARS,
        *DOING.values(),
        UNSURE,
        SOUGHT,
        LAST_SEEN,
    ]
    return frozenset(re.findall("[a-z]+", " ".join(text for row in rows for text in row).lower()))


PERSON = {
    ("woman", "child"): _row(
        """girl; little girl; young girl; child; female child; kid; schoolgirl; small girl; wee girl; lass;
        youngster"""
    ),
    ("man", "child"): _row(
        """boy; little boy; young boy; child; male child; kid; schoolboy; small boy; lad; wee boy; young
        lad; youngster"""
    ),
    ("woman", "young"): _row(
        """young woman; young lady; woman; young female; girl; lady; lass; gal; young gal; young lass;
        woman in her twenties; young adult female; teenage girl; female"""
    ),
    ("man", "young"): _row(
        """young man; young guy; man; young male; guy; lad; young lad; young bloke; youth; dude; young
        fellow; man in his twenties; young adult male; teenage boy; male; young chap"""
    ),
    ("woman", "adult"): _row(
        """woman; woman; lady; female; adult woman; grown woman; middle-aged woman; gal; adult female;
        middle-aged lady"""
    ),
    ("man", "adult"): _row(
        """man; man; guy; male; adult man; bloke; gent; gentleman; chap; fella; fellow; dude; grown man;
        middle-aged man; adult male; middle-aged guy"""
    ),
    ("woman", "old"): _row(
        """elderly woman; old woman; older woman; older lady; woman; senior woman; old lady; elderly lady;
        senior lady; aged woman; elderly female; female pensioner; senior citizen"""
    ),
    ("man", "old"): _row(
        """elderly man; old man; older man; older guy; man; senior man; elderly gentleman; old bloke; old
        chap; older gentleman; old fella; aged man; elderly male; old gent; male pensioner; senior
        citizen"""
    ),
}
AGELESS = {
    "woman": _row("woman; woman; lady; female; woman; gal"),
    "man": _row("man; man; guy; male; bloke; gent; fella; fellow; dude; chap; man; gentleman"),
}
GENDERLESS = _row("person; person; individual; pedestrian; person; figure; subject; walker; passer-by")
REPORT_AGE = {"young": "Young", "adult": "Adult", "old": "Elderly"}
BUILD: dict[str, tuple[str, ...]] = {
    "slim": _row(
        """slim; slender; thin; skinny; lean; slight; slightly built; slimly built; wiry; lightly built;
        thinly built; spindly"""
    ),
    "heavy": _row(
        """heavy-set; stocky; heavily built; heavy; overweight; large; big; plump; chubby; stout; heavyset;
        thickset; portly; big-built; broad; bulky; burly; well-built"""
    ),
    "average": (),
}
HEIGHT: dict[str, tuple[str, ...]] = {
    "tall": _row("tall; tall; very tall; lanky"),
    "short": _row("short; short; small"),
    "average": (),
}

HAIR_COLOURS = {
    "black": _row("black; black; dark; jet-black; raven; raven-black; coal-black; inky black"),
    "dark brown": _row(
        """dark brown; dark; brown; brunette; dark chestnut; deep brown; chocolate brown; brown-black; dark
        brunette"""
    ),
    "brown": _row("brown; brown; brunette; chestnut; mid-brown; medium brown; chestnut-brown; nut-brown"),
    "light brown": _row(
        """light brown; brown; light brown; mousy; sandy brown; mouse-brown; dark blond; dirty blond; honey
        brown; caramel; pale brown"""
    ),
    "blond": _row(
        """blond; blonde; blond; fair; light; golden; flaxen; straw-coloured; sandy; yellow; golden blond;
        honey blond; light blonde; straw blond"""
    ),
    "grey": _row("grey; grey; silver; greying; silvery; salt-and-pepper; ash-grey; steel-grey; grizzled"),
    "white": _row("white; white; snow-white; silvery white; snowy"),
    "red": _row(
        """red; ginger; auburn; reddish; copper; carroty; red-brown; rust-coloured; coppery; titian"""
    ),
}
HAIR_SHAPES = {
    "short": _row(
        """short {h} hair; short {h} hair; {h} hair cut short; short-cut {h} hair; cropped {h} hair;
        close-cropped {h} hair; a short {h} haircut; a {h} crop; trimmed {h} hair; {h} hair cropped
        short"""
    ),
    "curly": _row(
        """curly {h} hair; {h} curls; thick curly {h} hair; frizzy {h} hair; bushy {h} hair; a {h} afro;
        a mop of {h} curls; a mass of {h} hair; wild {h} hair; {h} corkscrew curls; big {h} hair; {h}
        ringlets; fluffy {h} hair; a halo of {h} curls; voluminous {h} hair"""
    ),
    "medium": _row(
        """shoulder-length {h} hair; medium-length {h} hair; {h} hair down to the shoulders; {h} hair;
        mid-length {h} hair; a {h} bob; bobbed {h} hair; chin-length {h} hair; {h} hair to the
        shoulders; collar-length {h} hair"""
    ),
    "long": _row(
        """long {h} hair; long {h} hair; {h} hair worn long; long, loose {h} hair; flowing {h} hair; {h}
        hair down the back; waist-length {h} hair; long {h} locks; {h} hair hanging down; a long {h}
        mane; loose long {h} hair"""
    ),
    "ponytail": _row(
        """{h} hair in a ponytail; a {h} ponytail; {h} hair tied back; {h} hair tied in a ponytail; {h}
        hair pulled back; {h} hair in a pony tail; a {h} pony tail; {h} hair gathered at the back; {h}
        hair drawn back; {h} hair pulled back in a ponytail"""
    ),
    "bun": _row(
        """{h} hair in a bun; a {h} bun; {h} hair tied up; {h} hair put up in a bun; a {h} topknot; {h}
        hair in a topknot; {h} hair in a chignon; {h} hair pinned up; a {h} updo; {h} hair up in a knot;
        a {h} top knot; {h} hair wound into a bun"""
    ),
}
HAIR_HIDDEN = ("{h} hair",)  # under headwear its length is a guess
BALD = _row(
    """a bald head; a shaved head; no hair; a shaven head; a hairless head; a clean-shaven head; a bald
    pate"""
)

PATTERNS = {
    "horizontal stripes": _row(
        """{a} and {b} striped {n}; {a} and {b} stripy {n}; {a} {n} with {b} horizontal stripes; {a} {n}
        with {b} stripes; {n} with {a} and {b} stripes; horizontally striped {a} and {b} {n}; {a} and
        {b} hooped {n}; {a} {n} with {b} hoops; {a} and {b} banded {n}; {a} {n} with {b} bands; {a} {n}
        with {b} lines across; {a} and {b} stripey {n}; breton {a} and {b} {n}"""
    ),
    "vertical stripes": _row(
        """{a} and {b} striped {n}; {a} {n} with vertical {b} stripes; vertically striped {a} and {b} {n};
        {a} {n} with {b} stripes; {a} {n} with {b} pinstripes; pinstriped {a} and {b} {n}; {a} {n} with
        {b} lines down it; {a} {n} with upright {b} stripes"""
    ),
    "checks": _row(
        """{a} and {b} checked {n}; {a} and {b} plaid {n}; {a} and {b} chequered {n}; checked {a} and {b}
        {n}; {a} {n} with {b} checks; {a} and {b} tartan {n}; {a} and {b} gingham {n}; {a} and {b}
        flannel {n}; {a} and {b} lumberjack {n}; {a} {n} with {b} squares; {a} and {b} check {n}; {a}
        {n} with a {b} grid; {a} and {b} windowpane {n}"""
    ),
    "colour block": _row(
        """{a} and {b} {n}; two-tone {a} and {b} {n}; {a} and {b} colour-block {n}; {a} {n} with a {b}
        lower half; {a} and {b} two-tone {n}; two-coloured {n} in {a} and {b}; half {a}, half {b} {n};
        {n} in {a} and {b}; {a} {n} with a {b} bottom half; colour-blocked {a} and {b} {n}"""
    ),
    "logo": _row(
        """{a} {n} with a {b} logo; {a} {n} with a {b} print; {a} {n} with a {b} patch; {a} {n} with {b}
        lettering; {a} {n} with a small {b} logo; {a} {n} with a {b} emblem; {a} {n} with a {b} motif;
        {a} {n} with {b} writing; {a} {n} with a {b} badge; {a} {n} with a {b} crest; {a} {n} with a {b}
        graphic; {a} {n} with a {b} design; {a} {n} with {b} text on it; {a} {n} with a {b} slogan"""
    ),
    "print": _row(
        """{a} {n} with a {b} print; {a} and {b} printed {n}; patterned {a} and {b} {n}; {a} and {b}
        patterned {n}; {a} {n} with a {b} pattern; {a} {n} with {b} flowers; {a} and {b} floral {n};
        {a} and {b} flowered {n}; {a} and {b} camouflage {n}; {a} and {b} camo {n}; {a} {n} with {b}
        blotches; {a} {n} with {b} patches all over; mottled {a} and {b} {n}; {a} and {b} flowery {n};
        {a} {n} with an all-over {b} print; {a} and {b} leafy {n}; {a} {n} with {b} leaves"""
    ),
    "polka dots": _row(
        """{a} {n} with {b} polka dots; {a} and {b} polka-dot {n}; {a} {n} with {b} dots; {a} {n} with {b}
        spots; spotted {a} and {b} {n}; {a} and {b} spotted {n}; dotted {a} and {b} {n}; {a} and {b}
        spotty {n}; {a} {n} with round {b} spots; {a} and {b} dotty {n}; {a} and {b} polka-dotted {n}"""
    ),
    # of hi-vis clothes
    "tape": _row(
        """{a} {n} with reflective strips; {a} {n} with silver bands; {a} {n} with reflective tape; {a}
        {n}; {a} {n} with shiny stripes; {a} {n} with grey reflectors; {a} {n} with reflective bands"""
    ),
}
# The second colour unknown or not worth a word.
PATTERNS_ALONE = {
    "horizontal stripes": _row("striped {a} {n}; {a} striped {n}; stripy {a} {n}; hooped {a} {n}"),
    "vertical stripes": _row("striped {a} {n}; {a} {n} with vertical stripes; pinstriped {a} {n}"),
    "checks": _row("checked {a} {n}; {a} plaid {n}; {a} checked {n}; tartan {a} {n}; {a} gingham {n}"),
    "colour block": _row("two-tone {a} {n}; two-coloured {a} {n}"),
    "print": _row(
        "printed {a} {n}; patterned {a} {n}; {a} patterned {n}; {a} {n} with a pattern; floral {a} {n}"
    ),
    "polka dots": _row("spotted {a} {n}; polka-dot {a} {n}; {a} {n} with dots; dotted {a} {n}"),
    "logo": _row("{a} {n} with a logo; {a} {n} with a print; printed {a} {n}; {a} graphic {n}"),
    "tape": _row("{a} {n}"),
}
TWO_TONE = _row(
    """with {s} sleeves; with {s} sleeves; with {s} arms; that has {s} sleeves; with contrasting {s}
    sleeves"""
)
HOOD_UP = _row(
    """with the hood up; with the hood up; with the hood pulled up; with the hood over the head; with the
    hood raised; with the hood on"""
)
OPEN_OVER = _row(
    """open {t} over {i}; {t} worn open over {i}; {t} over {i}; {t} open over {i}; unzipped {t} over {i}"""
)
VEST_OVER = _row("{t} over {i}; {t} on top of {i}; {t} worn over {i}")

WEAR = _row(
    """wearing; wearing; dressed in; in; in; who wears; clad in; clothed in; sporting; kitted out in;
    attired in; decked out in; who has on; who is in"""
)
WEARS = _row(
    """is wearing; wears; is dressed in; has on; is clad in; is in; sports; is clothed in; is sporting; has
    got on; is kitted out in; is decked out in"""
)
CARRY = {
    "backpack": _row("carrying; with; with; wearing; shouldering; lugging; toting"),
    "shoulder bag": _row("carrying; with; with; wearing; toting; lugging"),
    "handbag": _row("carrying; holding; with; clutching; gripping; toting"),
    "suitcase": _row("pulling; with; carrying; dragging; wheeling; towing; hauling; rolling; lugging"),
    "plastic bag": _row("carrying; holding; with; clutching; lugging; hauling"),
    "umbrella": _row("holding; under; with; carrying; sheltering under; holding up; beneath"),
    "box": _row("carrying; holding; with; lugging; hauling; bearing"),
}
# What somebody does; said after the clothes, "lying on the ground", or of them, "is lying on the ground".
DOING: dict[str, tuple[str, ...]] = {
    "walking": _row(
        "walking; walking along; on foot; strolling; striding; walking past; on the move; ambling"
    ),
    "running": _row("running; jogging; sprinting; on the run; running along; rushing; racing along; dashing"),
    "standing": _row(
        "standing; standing still; standing about; waiting; just standing there; stood there; not moving"
    ),
    "sitting": _row(
        """sitting; sitting down; seated; sat down; taking a seat; having a sit; resting; sitting there;
        perched there; sitting about"""
    ),
    "crouching": _row(
        """crouching; squatting; crouched down; crouching down; squatting down; hunkered down; on the
        haunches; ducking down; in a squat"""
    ),
    "kneeling": _row(
        "kneeling; kneeling down; on the knees; down on one knee; kneeling on the ground; knelt down"
    ),
    "bending": _row(
        """bending over; bending down; bent over; stooping; leaning down; bent forward; stooped over;
        picking something up; reaching down; doubled over"""
    ),
    "lying": _row(
        """lying on the ground; lying down; lying on the floor; lying there; on the ground; collapsed; fallen
        over; flat out; sprawled on the ground; stretched out; slumped on the ground; laid out; prone;
        not getting up"""
    ),
    "waving": _row(
        """waving; waving an arm; with an arm raised; with a hand up; signalling; with arms in the air; waving for
        help; with a hand in the air; beckoning; flagging somebody down; gesturing"""
    ),
    "phoning": _row(
        """on the phone; talking on the phone; using a phone; with a phone in the hand; making a call; on a
        mobile; looking at a phone; texting; holding a phone; on a cell phone; phoning"""
    ),
}
# How somebody says that a colour or a thing was seen badly.
UNSURE = _row(
    "possibly; maybe; perhaps; what looks like; probably; apparently; I think; some kind of; likely"
)
# How an operator opens a request, and how a notice does.
SOUGHT = _row(
    """looking for; find; search for; look out for; show me; trying to locate; we are after; spot; need to
    find; watch for; locate; any sign of; has anyone seen; keep an eye out for"""
)
LAST_SEEN = _row(
    """last seen wearing; last seen in; was wearing; believed to be wearing; reported in; described as
    wearing"""
)
PRONOUNS = {"woman": ("She", "is", "Her"), "man": ("He", "is", "His"), "": ("They", "are", "Their")}
AMERICAN = (
    ("grey", "gray"),
    ("Grey", "Gray"),
    ("colour", "color"),
    ("Colour", "Color"),
    ("chequered", "checkered"),
    ("woollen", "woolen"),
    ("stripy", "stripey"),
)
