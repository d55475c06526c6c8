"""What a test sees when it looks at a state of the operator's page, and the picture of it for docs/page.md.

TAGCLIP_SHOTS names a folder: then every state is photographed into it in light and dark, with 10,000 hits where there
are many. Without it a test photographs in light alone, into its own folder. Look at the pictures after a change: what
they show is what no test sees.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SHOTS = os.environ.get("TAGCLIP_SHOTS")
MANY = (10_000, 50) if SHOTS else (24, 4)  # hits, devices
SIZE = {"width": 1024, "height": 600}  # of pictures, px
WIDTHS_PX = (1180, 420)
COLOURS = 128
# Of the page itself, and of the part of it that scrolls.
WIDER = """() => [document.documentElement, document.getElementById("main")]
  .filter((part) => part.scrollWidth > part.clientWidth).map((part) => `${part.tagName} ${part.scrollWidth}`)"""


class Looks:
    """Looks at `page`; what axe-core finds is kept in `faults`, in words.

    Args:
        folder: where pictures go without TAGCLIP_SHOTS.
    """

    def __init__(self, page: Any, folder: Path) -> None:
        from axe_playwright_python.sync_playwright import Axe

        self.page, self.folder = page, Path(SHOTS) if SHOTS else folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.faults: list[str] = []
        self._axe, self._asked = Axe().axe_script, []
        page.set_viewport_size(SIZE)
        page.on("request", lambda request: self._asked.append(request.url))

    def at(self, name: str, *words: str) -> None:
        """The page says `words`, fits into windows of WIDTHS_PX, has asked nobody else; NAME-light.png shows it."""
        text = self.page.inner_text("body")
        missing = [each for each in words if each not in text]
        assert not missing, f"{name}: expected {missing} in:\n{text[:2000]}"
        host = urlsplit(self.page.url).netloc
        elsewhere = {url for url in self._asked if urlsplit(url).netloc not in ("", host)}
        assert not elsewhere, (name, elsewhere)
        for width_px in WIDTHS_PX:
            self.page.set_viewport_size({"width": width_px, "height": SIZE["height"]})
            wider = self.page.evaluate(WIDER)
            assert not wider, f"{name}: at {width_px} px it is wider: {wider}"
        self.page.set_viewport_size(SIZE)
        self.page.emulate_media(color_scheme="light", reduced_motion="reduce")
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(self._axe)
        self._faults(name, "light", {"resultTypes": ["violations"]})
        self._photograph(f"{name}-light.png")
        self.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        # Nothing but colours differs there.
        self._faults(name, "dark", {"resultTypes": ["violations"], "runOnly": ["color-contrast"]})
        if SHOTS:
            self._photograph(f"{name}-dark.png")

    def _faults(self, name: str, scheme: str, options: dict[str, Any]) -> None:
        for fault in self.page.evaluate("(options) => axe.run(options)", options)["violations"]:
            if fault["impact"] in ("serious", "critical"):
                where = [node["html"][:200] for node in fault["nodes"][:3]]
                self.faults.append(f"{name}, {scheme}: {fault['id']} {json.dumps(where)}")

    def _photograph(self, name: str) -> None:
        from PIL import Image

        path = self.folder / name
        if SHOTS:
            self.page.wait_for_timeout(400)  # pictures in it have to come
        self.page.screenshot(path=path)
        with Image.open(path) as shot:
            image = shot.convert("RGB")
        assert image.size == (SIZE["width"], SIZE["height"])
        assert len(image.getcolors(1 << 20) or ()) > 8, f"{path} is blank"
        if SHOTS:
            # By coverage: colours that are rare, as those of a button are, keep their place. A third of the bytes.
            image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
                path, optimize=True
            )
