"""Where the camera looks from. The order is the number in annotations (`cam_id`) and for the model."""

from __future__ import annotations

AERIAL = "aerial"
GROUND = "ground"
VIEWS: tuple[str, str] = (AERIAL, GROUND)

UNIVERSAL = "universal"  # not a view: an image tower that takes crops of any view
TOWER_VIEWS = (*VIEWS, UNIVERSAL)
