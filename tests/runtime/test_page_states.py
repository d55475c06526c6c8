"""Every state of the operator's page: what it says, that it fits, that axe-core finds no serious fault, its picture.

`TAGCLIP_SHOTS=docs/page python -m pytest tests/runtime/test_page_states.py` makes the pictures of docs/page.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

for _package in (
    "argon2",
    "axe_playwright_python",
    "cryptography",
    "jinja2",
    "onnxruntime",
    "PIL",
    "playwright",
    "starlette",
    "uvicorn",
):
    pytest.importorskip(_package)

from beside import load

worlds, browsers, look = load("page_world"), load("page_chromium"), load("page_look")
DOCS = Path(__file__).parent.parent.parent / "docs"
TEXT = worlds.TEXTS[0]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Any]:
    """Nothing has happened there yet."""
    with worlds.opened(tmp_path) as world:
        yield world


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Many devices, hits and people, and their `queries`."""
    with worlds.opened(tmp_path_factory.mktemp("full")) as world:
        world.queries = world.fill(*look.MANY)
        for device in ("drone-2", "drone-3"):
            # For pictures whoever is found has to look like the words.
            world.people_seen(device, *((150, worlds.vectors()) if look.SHOTS else (8, world.looks(8))))
        yield world


@pytest.fixture
def visit(chromium: Any, tmp_path: Path) -> Iterator[Callable[[Any], Any]]:
    """What `looks` at a page of a world; at the end no fault was found."""
    with ExitStack() as open_:

        def visit(world: Any) -> Any:
            port = open_.enter_context(world.served())
            page = open_.enter_context(
                browsers.visit(chromium, port, locale="en-GB", timezone_id="Europe/Zurich")
            )
            looks = look.Looks(page, tmp_path / "shots")
            open_.callback(lambda: looks.faults and pytest.fail("\n".join(looks.faults)))
            return looks

        yield visit


def shown(page: Any) -> None:
    """Wait for the picture of the chosen hit."""
    browsers.until(page, "document.querySelector('#pane .picture img')?.naturalWidth > 20")


def test_before_anything_is_there(world: Any, visit: Any) -> None:
    looks = visit(world)
    looks.page.goto("/login")
    looks.at("login", "tagclip station", "is kept in the station's log")
    browsers.log_in(looks.page, "root", worlds.PASSWORD)
    looks.at("hits-empty", "No device reports here yet.", "Enrol the first one.", "Choose a hit.")
    looks.page.goto("/queries")
    looks.at("queries-empty", "Nobody is looked for.", "no names, no faces")
    looks.page.goto("/map")
    looks.page.wait_for_selector("#told:has-text('No hit here has a place')")
    looks.at("map-empty", "Cameras whose position and direction are known give one.")
    looks.page.goto("/fleet")
    looks.at("fleet-empty", "No device yet.")
    looks.page.goto("/search")
    looks.page.fill("#text", "a person in red")
    looks.page.keyboard.press("Enter")
    looks.page.wait_for_selector("#told:has-text('Nobody stored fits')")
    looks.at("search-empty", "Nobody stored fits these filters.")
    looks.page.goto("/password")
    looks.at("password", "Change your password", "12 characters or more")


def test_the_first_hit(world: Any, visit: Any) -> None:
    world.enrol("drone-2")
    query = world.query(TEXT)
    world.take("drone-2", world.hit("drone-2", query, TEXT, frame=0), now_s=0.0)
    looks = visit(world)
    browsers.log_in(looks.page, "root", worlds.PASSWORD)
    looks.page.keyboard.press("j")
    shown(looks.page)
    assert looks.page.text_content("[data-count=all]") == "1" and looks.page.locator("#rows li").count() == 1
    looks.at("hits-one", TEXT, "drone-2", "Confirm", "Reject", "to review")


def test_thousands_of_hits(full: Any, visit: Any) -> None:
    looks = visit(full)
    page = looks.page
    browsers.log_in(page, "root", worlds.PASSWORD)
    assert page.text_content("[data-count=all]") == f"{look.MANY[0]:,}"
    for _ in range(3):
        page.keyboard.press("j")
    shown(page)
    page.keyboard.press("c")
    browsers.said(page, "Confirmed.")
    # The mark comes at once, the station's words later.
    page.wait_for_selector("#pane .mark.confirmed")
    page.wait_for_selector("#pane .decision:has-text('by root')")
    looks.at("hits", "Confirmed.", "Undo (U)", "by root", "false alarm")
    page.keyboard.press("?")
    looks.at("keys", "next hit", "undo your last decision", "Keys of one letter are on")
    page.keyboard.press("Escape")
    page.goto(f"/hits/{page.get_attribute('#rows li', 'data-id')}")
    looks.at("hit", "By chance", "In the frame", "More like this")
    for path, *words in (
        ("/fleet", "in reach", "Waiting there", "drone-2"),
        ("/admin", "Add the user", "rita", "Shut out"),
        ("/admin/devices", "Make the line", "drone-2", "End its token"),
        ("/admin/audit", "Who did what", "review", "Each row holds a hash"),
        ("/admin/quarantine", "Everything that devices sent could be read."),
    ):
        page.goto(path)
        looks.at(path[1:].replace("/", "-"), *words)
    page.goto("/map")
    page.wait_for_selector("#places button")
    looks.at("map", "hits with a place", "circle: how far off it may be")


def test_queries_and_search(full: Any, visit: Any) -> None:
    looks = visit(full)
    page = looks.page
    browsers.log_in(page, "root", worlds.PASSWORD)
    page.goto("/queries")
    looks.at("queries", *worlds.TEXTS, "missing since noon, case 17")
    page.click(f"[data-id='{full.queries[0]}'] [data-threshold]")
    page.wait_for_selector(".threshold .grid li")
    page.evaluate("document.querySelector('.threshold .grid').closest('article').scrollIntoView()")
    looks.at(
        "threshold", "False alarms allowed: 1 in 2 hours at each camera", "Expected over", "Just under it"
    )
    page.goto("/search")
    page.fill("#text", TEXT)
    page.keyboard.press("Enter")
    page.wait_for_selector("#results li")
    looks.at("search", "people, the best first", "1. score", "More like this")


def test_out_of_reach_loading_and_wrong(full: Any, visit: Any) -> None:
    looks = visit(full)
    page = looks.page
    browsers.log_in(page, "root", worlds.PASSWORD)
    page.keyboard.press("j")
    shown(page)
    page.context.set_offline(True)
    page.keyboard.press("j")
    page.wait_for_selector("#offline:visible")
    page.wait_for_selector("#pane [data-failed]")
    looks.at("offline", "The station is out of reach since", "decisions are not saved", "out of reach")
    page.context.set_offline(False)
    page.wait_for_selector("#offline", state="hidden")
    page.goto("/nowhere")
    looks.at("error", "Nothing here", "To the hits")
    page.route("**/hits/rows*", lambda route: None)  # an answer that does not come
    page.goto("/hits")
    page.check("[name=review][value=all]", force=True)
    page.wait_for_selector("[aria-busy=true]")
    looks.at("loading", "To review")


def test_the_docs_name_every_picture_that_lies_there() -> None:
    named = set()
    for path in DOCS.glob("*.md"):
        named |= set(re.findall(r"\]\(page/([\w-]+\.png)\)", path.read_text(encoding="utf-8")))
    assert named == {path.name for path in (DOCS / "page").iterdir()}
