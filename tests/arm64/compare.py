"""Whether two `tagclip search --json` rank the same: compare.py HERE THERE FARTHEST, how far their scores may be apart.

Decoders round differently: a box of the motion detector moves by a pixel, another picture of the person is the best,
and a score by hundredths. On the same pictures only the last of the four printed decimals may differ.
"""

import json
import sys
from pathlib import Path

here, there = (json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:3])
farthest = float(sys.argv[3])
# The people of a video are told by their tracks, those of a folder by their files.
names = [
    [hit["track_id"] or Path(hit["best"]["crop"]).name for hit in found["results"]] for found in (here, there)
]
scores = [[hit["score"] for hit in found["results"]] for found in (here, there)]
for name, a, b in zip(names[0], *scores, strict=False):
    print(f"{name}: {a:.4f} here, {b:.4f} there")
same_encoder, same_order = here["encoder_id"] == there["encoder_id"], names[0] == names[1] and names[0] != []
apart = max((abs(a - b) for a, b in zip(*scores, strict=False)), default=0.0)
print(
    f"same encoder: {same_encoder}, same order: {same_order}, scores at most {apart:.4f} apart, may be {farthest}"
)
sys.exit(0 if same_encoder and same_order and apart <= farthest else 1)
