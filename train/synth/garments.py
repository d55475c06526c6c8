"""What people call garments, shoes, bags and hats, in British and American English.

Each row is "usual names | other names". A name may hold `{c}` where its colour goes ("long {c} coat"); without it the
colour stands in front. Every name is honest for its kind: "jacket" may stand for a hooded jacket, never the reverse.
"""

from dataclasses import dataclass

_ROWS: dict[str, str] = {
    "t-shirt": """
        t-shirt, T-shirt, tee, top | cotton t-shirt, tee shirt, tee-shirt, cotton tee, crew neck, crew-neck
        t-shirt, round-neck t-shirt, jersey top, cotton top, crew-neck tee, jersey t-shirt, round-necked
        top, casual top""",
    "shirt": """
        shirt, button-up shirt, collared shirt, button-down shirt | dress shirt, oxford shirt, button-down,
        button-up, buttoned shirt, formal shirt, casual shirt, work shirt, collared top, shirt with buttons,
        buttoned-up shirt, blouse, smart shirt, office shirt, cotton shirt, button-front shirt, oxford""",
    "polo": """
        polo shirt, polo, shirt with a collar | polo top, polo tee, golf shirt, tennis shirt, collared
        t-shirt, collared tee, sports shirt, golf top, polo jersey, rugby shirt""",
    "sweater": """
        sweater, jumper, sweatshirt, pullover | knitted sweater, knit top, top, knitted jumper, woolly
        jumper, woollen jumper, wool sweater, crew-neck sweater, crewneck, knitwear, knitted top, knit
        sweater, fleece, fleece top, jersey, woolen sweater, knitted pullover, woolly, wool jumper,
        crew-neck jumper, winter jumper, sweat top""",
    "cardigan": """
        cardigan, knitted cardigan, knit cardigan, buttoned cardigan | cardi, wool cardigan, woollen cardigan,
        button-front cardigan, knitted jacket, chunky cardigan, long-line cardigan, zip
        cardigan, cable-knit cardigan, knit jacket, woolly cardigan, fleece jacket, buttoned jumper""",
    "hoodie": """
        hoodie, hooded sweatshirt, hooded top, sweatshirt with a hood | hoody, hooded jumper, hooded
        pullover, jumper with a hood, top with a hood, hooded sweater, hooded fleece, pullover with a hood,
        sweater with a hood, hooded sweat top, hooded tracksuit top, fleece with a hood, hooded jersey""",
    "jacket": """
        jacket, zip-up jacket, short {c} jacket, windbreaker | bomber jacket, bomber, blouson, zip jacket,
        zipped jacket, track top, tracksuit top, track jacket, tracksuit jacket, waist-length {c} jacket,
        windcheater, harrington, harrington jacket, zip-up top, zip top, fleece jacket, softshell, softshell
        jacket, casual jacket, outdoor jacket, training jacket, training top, flight jacket, coach jacket,
        shell jacket, zip-up, warm-up jacket, spring jacket, zippered jacket, windproof jacket, sports
        jacket""",
    "hooded jacket": """
        hooded jacket, jacket with a hood, parka, raincoat | jacket, hooded coat, anorak, cagoule, rain
        jacket, waterproof, waterproof jacket, hooded windbreaker, hooded anorak, hooded parka, coat with a
        hood, hooded raincoat, kagoule, hooded rain jacket, hooded zip jacket, mountain jacket, hiking
        jacket, hooded waterproof, hooded windcheater, mac, mack, storm jacket, hooded shell, rain coat,
        hooded outdoor jacket""",
    "puffer jacket": """
        puffer jacket, padded jacket, down jacket, puffer | quilted jacket, puffy jacket, puffa jacket,
        puffa, bubble jacket, padded coat, puffer coat, down coat, quilted coat, ski jacket, insulated
        jacket, padded winter jacket, duvet jacket, duvet coat, puffy coat, thick padded jacket, wadded
        jacket, winter puffer, quilted winter jacket, padded parka, bubble coat, puffed jacket""",
    "hi-vis jacket": """
        hi-vis jacket, safety jacket, reflective jacket, high-visibility jacket | hi-vis coat, high-vis
        jacket, hi-viz jacket, hi-vis, high-visibility coat, work jacket, reflector jacket, hi-viz coat,
        roadworker's jacket, warning jacket, rescue jacket, construction jacket, safety coat, visibility
        jacket, hi-vis parka, traffic jacket""",
    "blazer": """
        blazer, suit jacket, sports jacket, jacket | dinner jacket, sport coat, tailored jacket, formal
        jacket, smart jacket, suit coat, dress jacket, office jacket, tweed jacket, suit blazer, lounge
        jacket, business jacket, buttoned jacket, fitted jacket""",
    "coat": """
        coat, short {c} coat, winter coat | jacket, pea coat, peacoat, reefer jacket, hip-length {c} coat,
        thigh-length {c} coat, car coat, short {c} overcoat, donkey jacket, three-quarter coat, wool coat,
        woollen coat, autumn coat, outer coat, heavy coat, warm coat, winter jacket, mid-length {c} coat,
        reefer""",
    "long coat": """
        long {c} coat, long coat, trench coat, overcoat | knee-length coat, long {c} trench coat, coat,
        trenchcoat, greatcoat, topcoat, maxi coat, duster coat, duster, calf-length coat, long {c} overcoat,
        long {c} mac, mackintosh, coat down to the knees, long {c} winter coat, full-length coat,
        ankle-length coat, trench, long {c} topcoat""",
    "vest": """
        vest, sleeveless jacket, body warmer, gilet | waistcoat, bodywarmer, padded vest, sleeveless gilet,
        quilted vest, padded gilet, down vest, puffer vest, outdoor vest, jacket without sleeves, sleeveless
        puffer, sleeveless padded jacket, jerkin, quilted gilet, padded body warmer, fleece vest, sleeveless
        body warmer, puffer gilet""",
    "hi-vis vest": """
        hi-vis vest, safety vest, reflective vest, hi-vis | hi-vis waistcoat, work vest, high-vis vest,
        high-visibility vest, hi-viz vest, hi-viz, high vis, reflective waistcoat, hi-vis tabard,
        high-visibility waistcoat, reflector vest, safety waistcoat, construction vest, warning vest,
        traffic vest, roadworker's vest, visibility vest, hazard vest, hi-vis gilet, safety tabard,
        workman's vest, high-viz waistcoat""",
    "tank top": """
        tank top, sleeveless top, sleeveless shirt, vest top | tank, singlet, sleeveless t-shirt, sleeveless
        tee, muscle shirt, muscle vest, running vest, camisole, cami, gym vest, muscle tee, athletic vest,
        sleeveless jersey, basketball vest, racerback, undershirt, gym top, cami top, tanktop""",
    "dress": """
        dress, knee-length {c} dress, summer dress | frock, sundress, short {c} dress, mini dress,
        minidress, shift dress, skater dress, tunic dress, midi dress, pinafore, day dress, shift, short {c}
        frock, tea dress, swing dress, cotton dress""",
    "long dress": """
        long {c} dress, maxi dress, full-length {c} dress | gown, long {c} gown, ankle-length {c} dress,
        floor-length {c} dress, maxi, flowing {c} dress, long {c} frock, long {c} summer dress, calf-length
        {c} dress, evening dress, evening gown, sweeping {c} dress, long flowing {c} dress""",
    "inner": """
        top, shirt, t-shirt, tee | undershirt, base layer, inner layer, under layer, tee shirt, layer
        underneath""",
    "jeans": """
        jeans, denim jeans, denims, denim trousers | denim pants, denim bottoms, jean trousers, jean pants""",
    "trousers": """
        trousers, pants, long {c} pants, slacks | chinos, cargo pants, cargos, cargo trousers, suit
        trousers, dress pants, straight {c} trousers, long {c} trousers, cords, corduroys, britches,
        combats, combat trousers, work trousers, work pants, casual trousers, smart trousers, formal
        trousers, bottoms, straight-leg {c} trousers, suit pants, twill trousers, pantaloons, straight-cut
        {c} pants, dress trousers, casual pants, chino trousers, corduroy trousers, long {c} bottoms,
        utility trousers""",
    "wide trousers": """
        wide {c} trousers, wide-leg {c} pants, loose {c} trousers, baggy {c} trousers | wide {c} pants,
        trousers, baggy {c} pants, loose {c} pants, flared {c} trousers, flares, bell-bottoms, palazzo
        pants, palazzos, wide-legged {c} trousers, flared {c} pants, loose-fitting {c} trousers, loose-fit
        {c} pants, culottes, baggies, baggy {c} slacks, billowing {c} trousers, harem pants, roomy {c}
        trousers, oversized {c} trousers, flowing {c} trousers, bell bottoms, big wide {c} trousers, floppy
        {c} trousers""",
    "sweatpants": """
        sweatpants, joggers, jogging bottoms, tracksuit bottoms | jogging pants, track pants, trackies,
        trackie bottoms, tracksuit trousers, tracksuit pants, sweats, jog pants, training pants, gym
        bottoms, trackpants, sports trousers, running bottoms, cuffed joggers, lounge pants, warm-up pants,
        jogger pants, gym pants, training bottoms, sweat pants, trackie pants, jog bottoms, tracky bottoms""",
    "leggings": """
        leggings, tight {c} pants, tight {c} leggings, tights | running tights, yoga pants, tight {c}
        trousers, stretch pants, jeggings, treggings, gym leggings, close-fitting {c} leggings, lycra
        leggings, footless tights, sports leggings, tight-fitting {c} leggings, workout tights, lycra
        tights, spandex leggings, running leggings, figure-hugging {c} leggings, stretchy {c} leggings""",
    "shorts": """
        shorts, short {c} trousers, short {c} pants | bermudas, bermuda shorts, gym shorts, board shorts,
        boardshorts, cargo shorts, running shorts, sports shorts, summer shorts, walking shorts, cut-offs,
        swim shorts, football shorts, trunks, knee shorts, casual shorts, cutoffs, hiking shorts, basketball
        shorts, short {c} bottoms""",
    "skirt": """
        skirt, short {c} skirt, knee-length {c} skirt | miniskirt, mini skirt, a-line skirt, pencil skirt,
        skater skirt, skort, flared {c} skirt, mini, flared mini skirt, straight {c} skirt, short {c} summer
        skirt""",
    "long skirt": """
        long {c} skirt, maxi skirt, full-length {c} skirt | ankle-length {c} skirt, floor-length {c} skirt,
        midi skirt, flowing {c} skirt, calf-length {c} skirt, long flowing {c} skirt, peasant skirt,
        sweeping {c} skirt, maxi, long {c} summer skirt, trailing {c} skirt""",
    "shoes": """
        shoes, footwear, leather shoes, flat {c} shoes | dress shoes, loafers, brogues, lace-ups, slip-ons,
        formal shoes, smart shoes, flats, oxfords, moccasins, office shoes, work shoes, deck shoes, boat
        shoes, lace-up shoes, low {c} shoes, derbies, slip-on shoes, casual shoes, walking shoes, pumps""",
    "sneakers": """
        sneakers, running shoes, trainers, sports shoes | shoes, athletic shoes, tennis shoes, gym shoes,
        kicks, runners, plimsolls, canvas shoes, high-tops, tennies, sport shoes, basketball shoes, training
        shoes, skate shoes, pumps, sandshoes, jogging shoes, running trainers, sneaks, low-tops, gym
        trainers""",
    "boots": """
        boots, ankle boots, leather boots | wellies, hiking boots, walking boots, work boots, combat boots,
        wellingtons, chelsea boots, army boots, lace-up boots, desert boots, bootees, rigger boots, snow
        boots, winter boots, chukkas, safety boots, heavy boots, sturdy boots, ankle-high boots, wellington
        boots""",
    "sandals": """
        sandals, open {c} shoes, strappy {c} sandals | flip-flops, sliders, slides, flipflops, open-toed {c}
        shoes, open-toe sandals, slip-on sandals, beach shoes, summer sandals, mules, espadrilles, flip
        flops, gladiator sandals, beach sandals""",
    "backpack": """
        backpack, rucksack, bag on the back, day pack | daypack, knapsack, school bag, schoolbag, pack, back
        pack, haversack, kit bag, hiking pack, bookbag, book bag, daysack, trekking pack, bag worn on the
        back, pack on the back, school rucksack, hiking rucksack, packsack, hiking backpack, rucksac,
        bergen, student backpack""",
    "shoulder bag": """
        shoulder bag, bag over the shoulder, crossbody bag, messenger bag | sling bag, satchel, cross-body
        bag, bag across the body, courier bag, over-the-shoulder bag, bag slung over one shoulder, laptop
        bag, side bag, bag with a long strap, man bag, strap bag, crossbody, bag on one shoulder, slung bag,
        bag worn across the chest, record bag""",
    "handbag": """
        handbag, hand bag, bag in the hand, small {c} bag | purse, pocketbook, clutch, clutch bag, hand-held
        bag, bag held in one hand, small {c} handbag, top-handle bag, evening bag, ladies' bag, small {c}
        purse, pocket book""",
    "suitcase": """
        suitcase, rolling suitcase, trolley case, wheeled suitcase | piece of luggage, case, travel case,
        cabin bag, carry-on, carry-on case, roller bag, trolley bag, trolley, wheelie case, wheelie bag,
        wheeled case, roller case, travel bag, rollaboard, suitcase on wheels, pull-along case, cabin case,
        trolley suitcase, hard case, piece of baggage, roll-along case, wheely case, hand luggage case,
        travel trolley""",
    "plastic bag": """
        plastic bag, shopping bag, carrier bag, carry bag | bag of shopping, grocery bag, carrier,
        supermarket bag, poly bag, polythene bag, plastic carrier, bag of groceries, plastic shopping bag,
        store bag, plastic sack, shopper, plastic carrier bag, bag from a shop""",
    "umbrella": """
        umbrella, brolly, open umbrella | parasol, rain umbrella, golf umbrella, sunshade, walking umbrella,
        sun umbrella, big umbrella, bumbershoot""",
    "box": """
        box, cardboard box, parcel, package | carton, crate, packing case, big box, large parcel, delivery
        box, moving box, storage box, square box, shipping box, packet, container""",
    "helmet": """
        helmet, hard hat, safety helmet, bike helmet | cycle helmet, cycling helmet, crash helmet, skid lid,
        bicycle helmet, climbing helmet, builder's helmet, construction helmet, site helmet, protective
        helmet, hardhat, work helmet, riding helmet""",
    "cap": """
        cap, baseball cap, peaked cap, sports cap | ball cap, trucker hat, trucker cap, snapback, cap with a
        peak, cap with a visor, visor cap, golf cap, running cap, baseball hat, peak cap, visored cap, dad
        hat, billed cap, cap with a brim, ballcap, tennis cap""",
    "beanie": """
        beanie, knit cap, knitted hat, woolly hat | knit hat, wool hat, bobble hat, beanie hat, wooly hat,
        woollen hat, watch cap, toque, tuque, ski hat, stocking cap, knitted cap, winter hat, woolen cap,
        knitted beanie, knitted winter hat, wool cap, tight knitted hat, ski cap, beany, wool beanie""",
    "hat": """
        hat, brimmed hat, sun hat, hat with a brim | wide-brimmed hat, sunhat, bucket hat, fedora, trilby,
        panama hat, panama, bush hat, boonie hat, floppy hat, cowboy hat, stetson, trilby hat, homburg,
        fishing hat, hat with a wide brim, broad-brimmed hat, slouch hat, felt hat, summer hat, bush cap,
        safari hat""",
    "scarf": """
        scarf, neck scarf, scarf around the neck | muffler, neckerchief, shawl, snood, neck warmer, neck
        gaiter, bandana, cravat, neck wrap, scarf round the neck, winter scarf, knitted scarf, woollen
        scarf, pashmina, wool scarf, knit scarf, kerchief, scarf about the neck""",
}

PLURAL = frozenset(
    "jeans trousers sweatpants leggings shorts shoes sneakers boots sandals".split() + ["wide trousers"]
)
# Singular or mass nouns among the names of plural kinds, and plurals among the others.
MASS = frozenset({"footwear"})
# What is said of a woman's garment only.
WOMENS = frozenset(
    {"blouse", "camisole", "cami", "cami top", "racerback", "ladies' bag", "clutch", "clutch bag"}
)


@dataclass(frozen=True)
class Names:
    """The names of one kind: those that everybody uses, and all the others."""

    usual: tuple[str, ...]
    other: tuple[str, ...]


def _names(row: str) -> Names:
    usual, _, other = " ".join(row.split()).partition("|")
    return Names(
        tuple(t.strip() for t in usual.split(",")), tuple(t.strip() for t in other.split(",") if t.strip())
    )


NAMES: dict[str, Names] = {kind: _names(row) for kind, row in _ROWS.items()}
