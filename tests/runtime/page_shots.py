"""Makes the pictures of docs/page.md: `python tests/runtime/page_shots.py`, every state of the page in light and dark.

Look at each of them after a change: what they show is what the tests cannot see.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cv2
import page_chromium as browsers
import page_world as worlds

from tagclip.runtime.station.server import Server

OUT = Path(__file__).parent.parent.parent / "docs" / "page"
SCHEMES = ("light", "dark")
SIZE = {"width": 1024, "height": 600}
COLOURS = 128


class Camera:
    """Photographs the page in light and dark.

    Args:
        wanted: names of pictures; empty: all.
    """

    def __init__(self, page: Any, out: Path, wanted: tuple[str, ...]) -> None:
        self.page, self.out, self.wanted = page, out, wanted

    def take(self, name: str) -> None:
        """Write NAME-light.png and NAME-dark.png."""
        if self.wanted and name not in self.wanted:
            return
        for scheme in SCHEMES:
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            self.page.wait_for_timeout(400)
            path = self.out / f"{name}-{scheme}.png"
            self.page.screenshot(path=path)
            smaller(path)


def smaller(path: Path) -> None:
    """Write a PNG anew with a palette of few colours, a third of the bytes."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    # By coverage: colours that are rare, as those of a button are, keep their place.
    image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


def empty(world: worlds.World, page: Any, camera: Camera) -> None:
    """Before anything is there."""
    page.goto("/login")
    camera.take("login")
    browsers.log_in(page, "root", worlds.PASSWORD)
    camera.take("hits-empty")
    if not camera.wanted:
        page.goto("/queries")
        camera.take("queries-empty")


def one(world: worlds.World, page: Any, camera: Camera) -> None:
    """The first hit."""
    world.enrol("drone-2")
    query = world.query(worlds.TEXTS[0])
    world.take("drone-2", world.hit("drone-2", query, worlds.TEXTS[0], frame=0), now_s=0.0)
    page.goto("/hits")
    page.keyboard.press("j")
    browsers.until(page, "document.querySelector('#pane .picture img')?.naturalWidth > 20")
    camera.take("hits-one")


def many(world: worlds.World, page: Any, camera: Camera, hits: int) -> None:
    """10,000 hits of 50 devices, and everything else."""
    queries = world.fill(hits, 50)
    looks = worlds.vectors()
    for device in ("drone-2", "drone-3"):
        world.people_seen(device, 150, looks)
    page.goto("/hits")
    for key in "jjj":
        page.keyboard.press(key)
        page.wait_for_timeout(300)
    browsers.until(page, "document.querySelector('#pane .picture img')?.naturalWidth > 20")
    page.keyboard.press("c")
    page.wait_for_selector("#pane .mark.confirmed")
    browsers.said(page, "Confirmed.")
    camera.take("hits")
    page.context.set_offline(True)
    page.keyboard.press("j")
    page.wait_for_selector("#offline:visible")
    page.wait_for_timeout(600)
    camera.take("offline")
    page.context.set_offline(False)
    page.wait_for_selector("#offline", state="hidden")
    page.keyboard.press("?")
    camera.take("keys")
    hit = page.get_attribute("#rows li", "data-id")
    page.goto(f"/hits/{hit}")
    camera.take("hit")
    page.goto("/queries")
    page.click(f"[data-id='{queries[0]}'] [data-threshold]")
    page.wait_for_selector(".threshold .grid li")
    page.evaluate("document.querySelector('.threshold .grid').closest('article').scrollIntoView()")
    camera.take("threshold")
    page.goto("/queries")
    camera.take("queries")
    page.goto("/search")
    page.fill("#text", worlds.TEXTS[0])
    page.keyboard.press("Enter")
    page.wait_for_selector("#results li img")
    camera.take("search")
    for name in ("map", "fleet", "admin", "admin/devices", "admin/audit", "admin/quarantine"):
        page.goto(f"/{name}")
        page.wait_for_timeout(500)
        camera.take(name.replace("/", "-"))
    page.goto("/nowhere")
    camera.take("error")
    page.route("**/hits/rows*", lambda route: None)  # an answer that does not come
    page.goto("/hits")
    page.check("[name=review][value=all]", force=True)
    page.wait_for_selector("[aria-busy=true]")
    camera.take("loading")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/page.md.")
    parser.add_argument("names", nargs="*", help="Of pictures; all without.")
    parser.add_argument("--hits", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        world = worlds.World(Path(folder) / "data")
        cv2.setNumThreads(1)
        with Server(world.station, ("127.0.0.1", 0)) as server, browsers.chromium() as browser:
            world.listen(server.port)
            with browsers.visit(
                browser, server.port, locale="en-GB", timezone_id="Europe/Zurich", viewport=SIZE
            ) as page:
                camera = Camera(page, asked.out, tuple(asked.names))
                empty(world, page, camera)
                one(world, page, camera)
                many(world, page, camera, asked.hits)
        world.station.close()


if __name__ == "__main__":
    main()
