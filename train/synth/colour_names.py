"""Names of colours beyond the everyday ones of palette.py: fashion, food, stones, plants, paints; typical sRGB each.

The XKCD survey and CSS4, which matplotlib carries, come on top (palette.py), less what is dropped here.
"""

import re

MORE_NAMES = """
aegean blue 4e6e81, air blue 77a0a5, alabaster edeae0, almond efdecd, antique white faebd7, arctic blue
c6e6fb, arctic white f4f8fb, ash b2beb5, asphalt 5b5c5e, auburn 8a3324, banana yellow ffe135, battleship
grey 848482, bay leaf 7d8c6b, beetroot 7d1c45, biscotti e3c9a1, bistre 3d2b1f, black cherry 3b0f1a, black
olive 3b3c36, blackcurrant 3d1c40, blood orange e2401a, bone e3dac9, bordeaux 5f0b24, bracken 6b5a2e, brandy
874028, brass b5a642, brick red 9c3a2e, bubblegum blue 8fd3f0, burlap c9a97c, burnt sienna b4552d, burnt
umber 7a3420, buttercup f9d648, butternut e89b4b, cabernet 5c1028, cacao 4e3629, cafe au lait a67b5b, candy
apple red e0101a, candyfloss pink f6a6c1, cantaloupe ffa264, cappuccino a0785a, carbon 333536, carbon black
1c1c1e, carob 4a3728, cashmere d1b399, celadon ace1af, celeste b2f2ef, chalk efeee8, chalk white f4f3ee,
charcoal black 2b2b2d, chilli red c21807, cinnabar d8402f, cinnamon 9c5a2c, citron dfcf45, citrus yellow
e8e04a, clay b66a50, clay brown 8f6248, cloud grey c3c7c9, clover green 0b8a44, cobalt 0f47a8, cocoa 6f4e37,
coconut f4efe4, coffee 5a3d2b, cola brown 3c2a20, concrete grey 95948f, conifer green 3a5f3c, cordovan
6f2f2c, cotton white f8f7f2, cotton candy pink ffbcd9, cranberry 9e1b34, crystal blue 68a0b0, curry yellow
d29a1e, cypress green 4a5c45, daffodil yellow ffe14d, damson 4e2a4f, dark denim 27364b, delft blue 1f305e,
desert sand dcc19c, dijon c79a2b, driftwood af9b7d, duck blue 0f6b7b, dune c2b280, dusk blue 5c6f8f, dusky
lilac a08bab, earth brown 5b4433, ebony 23201f, egg yolk yellow f5b22d, elephant grey 8a8d8e, emerald
1f9d61, espresso 3c2618, faded denim 7f93ab, faded black 3a393b, faded red b8605c, feldgrau 4d5d53, fern
green 4f7942, field green 5b6b3a, fir green 2f5540, firebrick b22222, flag red c8102e, flame orange e25822,
flame red d9381e, flamingo pink fc8eac, flax eedc82, flint grey 6f6a61, fog grey b9bcbb, forest 1e4d2b,
french navy 1b2a49, frost e4eef2, frost blue c9dfe8, fudge 6b3f28, garnet 6f2a30, geranium red d8394a,
ginger b06500, glacier blue b7d5e3, glaucous 6082b6, gold brown a3701f, granite grey 676767, grape 6c3082,
grass 4c9a32, gravel grey 8f8d88, green apple 7fb539, gull grey a4adb0, hay dcc37a, hazelnut a47551, hemp
bfae86, henna 7c4a2d, honey d99b2b, hot chocolate 4f2f22, ice grey d5dde0, ice white eff5f7, ink 1b1f33,
iris purple 5a4fcf, iron grey 5d6164, ironstone 865040, ivory white f3efe0, jade 2aa174, jasper red c8373a,
jet 111113, juniper green 3a5a40, kelly green 2f9e3f, ketchup red b01c1f, khaki drab 7a6f45, kingfisher blue
006b8f, lead grey 6c6f73, leaf green 4f9a3a, lemon f7e948, lichen green 8a9a7b, linen faf0e6, liquorice
1f1a1d, lobster red c52f25, loden 4b5842, loden green 455a45, lavender grey b8b4c8, magnolia f4ead5,
mahogany red 6e2420, malachite 1fa05a, mandarin f37a1f, mango f6a732, maple ba6b33, marigold eaa221, marine
blue 1b3b6f, marl grey b4b4b4, melon fdbcb4, merlot 5b1a2b, metal grey 8b8f93, midnight 16203a, midnight
black 101218, military green 4b5320, milk white f6f3ea, milk chocolate 7a4b33, mineral blue 5c7f93, mink
8a7566, mole grey 625a52, moonstone 8fa3ad, moss 76804a, mouse grey 8f8b84, mulled wine 5a3344, mushroom
b5a392, mustard brown a8791f, nectarine ff8656, neon orange ff6a1a, neon pink ff3fa4, neon yellow e6fb2c,
nickel 8a8c8c, night blue 151b54, nougat d2a784, nut brown 6b4428, nutmeg 8a5a33, oak brown 9c7a4d, oat
dccdaa, obsidian 15161a, ocean blue 1f5f8b, onyx 1d1d1f, optic white fbfcff, orchid pink d68ac0, oxford blue
14213d, oyster d6cfc0, oyster white e8e3d8, pacific blue 1ca0c4, papaya ff9b5e, paprika b8341b, parma violet
b59ad0, peacock 0d6478, peacock green 0e6b5c, pearl eae6dc, pearl grey c9c9c6, pearl white f3f0e8, pebble
b7b0a3, peony pink d9628f, persimmon e3581e, petrol 0f4c5c, petrol green 1b5450, pigeon blue 6a8299, pigeon
grey 8b9198, pine 234f3d, pine green 1f4d3a, pitch black 0b0b0c, plaster pink e3bfae, poppy red d9372b,
porcelain f2f0eb, port wine 5a1b2d, primrose f2e48f, prune 55243f, prussian blue 0f3057, quartz pink e3c2c5,
racing red c8102e, raisin 3f2a34, raven black 121318, red wine 6d1a2d, reed green 8b9a5b, rhubarb c8505e,
rosewood 65000b, rosemary 5d6b56, ruby a0193c, rye brown a5763f, saddle tan b07a46, sandstone brown b58b62,
sangria 6d1230, sapphire 1b4f9c, sapphire blue 1f55a8, satsuma f27d2a, seal brown 3b241d, seal grey 6a6f74,
shadow grey 6b6b70, shark grey 6c7378, shell pink f6d0c8, shocking pink fc2fa0, slate 5f6b77, smoke 8c8f91,
snow f6f9fb, snow white f8fafb, soot 2a2828, spice brown 8c4f2b, spinach green 4a6b35, spruce green 2c5b4c,
steel 71797e, storm grey 6f7780, storm blue 4b6375, strawberry red d23a4a, strawberry pink f0708a, sulphur
yellow eee04e, sunset orange f4603f, tar black 171717, tarragon 6f7f5c, tawny a5642e, tea rose f0bfbf, teak
brown 9a6a3c, thunder grey 57595d, tile red b5533c, tobacco brown 7a5632, toast brown a87850, topaz yellow
e8b84a, tortilla c09468, treacle 3a2216, truffle 6f5b4c, turmeric d9a02c, tuscan red 7c4848, ultramarine
2a2ea0, vanilla f3e5ab, verdigris 43a39e, vine green 5f7a3a, viridian 40826d, volcanic grey 4a4a4d, walnut
5d4030, warm grey 9f968c, watermelon pink e8495f, wedgwood blue 6b8fb4, wheat e3cd9d, whisky brown a9642a,
willow green 9aae7c, wine 722f37, wisteria bda0cf, zinc grey 8c8f90
"""

# Vulgar, bodily, insulting, misspelt, vague and brand names, and things that are no colour in front of a
# garment.
_DROP_WORDS = frozenset(
    """
    shit poop poo puke vomit snot booger barf piss bile diarrhea blood dried bruise ugly nasty gross icky
    sick sickly toxic poison radioactive hospital dirty dirt weird boring bland nice skin flesh nude
    indian barney kermit windows pig fluro acid macaroni swamp camo mud muddy murky frog turtle slime hot
    creme liliac lavendar forrest perrywinkle toupe terracota siena ocre ocher vermillion burple blurple
    urple bluey greeny browny orangey yellowy pinky reddy purply purpley purpleish tealish darkish
    lightish orangeish orangish greenblue clear flat true primary pure off hint tree really very lighter
    velvet leather lipstick bubble metallic
    """.split()
)
_DROP_NAMES = frozenset(
    """
    dark pale dust cement desert tea apple pear pea banana butter butterscotch custard squash kiwi mango
    grapefruit melon watermelon strawberry tomato pumpkin leaf grass fern straw parchment putty mushroom
    lichen algae seaweed sea sky ocean marine ice earth twilight dusk foam royal carnation dandelion
    sunflower cherry lemon spruce pine forest moss jungle cinnamon cocoa coffee adobe clay sandstone drab
    spearmint evergreen rosa puce pinkish reddish greenish bluish purplish brownish yellowish greyish
    sandy golden azul iris canary maize marigold heliotrope celery asparagus rouge sapphire topaz steel
    camouflage wheat peach goldenrod chocolate orchid berry avocado wintergreen shamrock bubblegum
    blueberry pastel darkblue darkgreen lightblue lightgreen bluegrey greyblue bluegreen yellowgreen
    orangered hazel heather blush wine slate brick
    """.split()
).union(
    "pale grey,almost black,light khaki,light beige,light tan,golden rod,pea soup,lemon lime,key lime".split(
        ","
    )
)
SHADES = frozenset("very dark light pale deep bright vivid pastel dull muted medium mid lighter".split())
# The CSS4 names that people say, apart; "dark grey" and the like of CSS4 mislead (it is lighter than its
# "grey").
CSS_NAMES = """
    cadet blue, cornflower blue, dark cyan, dark magenta, dark olive green, dark orchid, dark salmon,
    dark slate blue, dark turquoise, deep pink, deep sky blue, dodger blue, forest green, hot pink,
    light coral, light salmon, light sea green, light sky blue, light steel blue, lime green,
    medium aquamarine, medium blue, medium orchid, medium purple, medium sea green, medium slate blue,
    medium turquoise, medium violet red, mint cream, misty rose, olive drab, orange red, pale green,
    pale turquoise, pale violet red, powder blue, rosy brown, royal blue, saddle brown, sea green, sienna,
    spring green, yellow green
"""


def says_a_colour(text: str) -> bool:
    """Whether a name of the survey is one that can stand before a garment."""
    words = text.split()
    doubled = any(a == b for a, b in zip(words, words[1:], strict=False))
    return not (
        doubled or text in _DROP_NAMES or _DROP_WORDS.intersection(words) or not re.fullmatch("[a-z ]+", text)
    )
