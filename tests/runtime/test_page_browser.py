"""The operator's page in headless Chromium: from a query to a confirmed hit with the keyboard, and what never moves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

for _package in ("argon2", "cryptography", "jinja2", "onnxruntime", "playwright", "starlette", "uvicorn"):
    pytest.importorskip(_package)

from beside import load

from tagclip.runtime.bundle import Bundle

worlds, browsers = load("page_world"), load("page_chromium")


@pytest.fixture(scope="module")
def world(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with worlds.opened(tmp_path_factory.mktemp("browser"), tiny_bundle.path) as world:
        yield world


@pytest.fixture(scope="module")
def port(world: Any) -> Iterator[int]:
    with world.served() as port:
        yield port


@pytest.fixture
def device(world: Any, port: int, request: pytest.FixtureRequest) -> Iterator[Any]:
    device = worlds.Device(world, port, re.sub(r"\W+", "-", request.node.name)[:60])
    yield device
    device.connection.close()


def test_from_a_query_to_a_confirmed_hit_by_keyboard(
    world: Any, port: int, chromium: Any, device: Any
) -> None:
    with browsers.visit(chromium, port) as page:
        browsers.log_in(page, "root", worlds.PASSWORD)
        page.goto("/queries")
        page.focus("#text")
        page.keyboard.type("a person in red")
        page.keyboard.press("Tab")
        page.keyboard.type("missing since noon")
        page.keyboard.press("Enter")
        page.wait_for_selector("article h2:text-is('a person in red')")
        (query,) = [each for each in world.station.queries.listed() if each["text"] == "a person in red"]

        page.goto(f"/hits?query={query['id']}")
        page.wait_for_selector("#empty:has-text('No hits here')")
        page.evaluate("window.unloaded = false")
        hit = world.hit(device.name, query["id"], query["text"])
        device.report(hit)
        row = page.wait_for_selector(f"li[data-id='{hit['id']}']")
        assert "a person in red" in row.inner_text() and page.evaluate("window.unloaded") is False
        assert page.text_content("[data-count=unreviewed]") == "1"

        page.keyboard.press("j")
        page.wait_for_selector(f"#pane .hit[data-id='{hit['id']}'] .picture img")
        browsers.until(page, "document.querySelector('#pane .picture img').naturalWidth > 20")
        page.keyboard.press("c")
        page.wait_for_selector("#pane .mark.confirmed")
        browsers.said(page, "Confirmed.")
        assert review(world, hit["id"]) == "confirmed"
        assert page.is_visible(f"li[data-id='{hit['id']}']")  # it does not vanish under the hand
        page.keyboard.press("u")
        browsers.said(page, "Undone.")
        page.wait_for_selector("#pane .mark.unreviewed")
        assert review(world, hit["id"]) == "unreviewed"
        page.keyboard.press("r")
        browsers.said(page, "Rejected.")
        assert review(world, hit["id"]) == "rejected"

        page.focus("#filters [value=rejected]")
        page.keyboard.press("Space")
        page.focus("#export summary")
        page.keyboard.press("Enter")
        page.focus("#export [data-format=jsonl]")
        with page.expect_download() as taken:
            page.keyboard.press("Enter")
        assert re.fullmatch(r"hits-\w+\.jsonl", taken.value.suggested_filename)
        (line,) = taken.value.path().read_text().splitlines()  # what is filtered is what is exported
        assert json.loads(line)["id"] == hit["id"] and json.loads(line)["review"] == "rejected"
        page.keyboard.press("?")
        page.wait_for_selector("#keys[open]")
        page.keyboard.press("Escape")
        page.wait_for_selector("#keys:not([open])", state="attached")


def review(world: Any, hit: str) -> str:
    with world.station.database.read() as connection:
        return str(connection.execute("SELECT review FROM hits WHERE id = ?", (hit,)).fetchone()[0])


def test_what_the_operator_looks_at_does_not_move(world: Any, port: int, chromium: Any, device: Any) -> None:
    query = world.query("somebody in blue")
    device.report(*(world.hit(device.name, query, "somebody in blue") for _ in range(30)))
    device.report(*(world.hit(device.name, query, "somebody in blue") for _ in range(30)))
    with browsers.visit(chromium, port) as page:
        browsers.log_in(page, "rita", worlds.PASSWORD)
        page.goto(f"/hits?query={query}")
        assert page.locator("#rows li").count() == 50
        for _ in range(3):
            page.keyboard.press("j")
        page.wait_for_selector("#pane .hit")
        chosen = page.locator(".row[aria-current=true]")
        browsers.until(page, "document.activeElement.matches('.row[aria-current=true]')")
        both = "document.activeElement.parentElement.dataset.id === document.querySelector('#pane .hit').dataset.id"
        browsers.until(page, both)
        before, shown = chosen.bounding_box(), page.get_attribute("#pane .hit", "data-id")
        new = world.hit(device.name, query, "somebody in blue")
        device.report(new)
        page.wait_for_selector("#fresh:has-text('1 new hit')")
        assert chosen.bounding_box() == before and page.get_attribute("#pane .hit", "data-id") == shown
        page.keyboard.press("n")
        page.wait_for_selector(f"li[data-id='{new['id']}']")
        assert page.locator("#rows li").first.get_attribute("data-id") == new["id"]
        # The rest comes as she goes down.
        page.locator("#rows li").nth(50).scroll_into_view_if_needed()
        browsers.until(page, "document.querySelectorAll('#rows li').length === 61")


def test_a_lost_link_is_said_and_nothing_seems_saved(
    world: Any, port: int, chromium: Any, device: Any
) -> None:
    query = world.query("somebody in green")
    hit = world.hit(device.name, query, "somebody in green")
    device.report(hit)
    with browsers.visit(chromium, port) as page:
        browsers.log_in(page, "rita", worlds.PASSWORD)
        page.goto(f"/hits?query={query}")
        page.keyboard.press("j")
        page.wait_for_selector("#pane .hit")
        page.context.set_offline(True)
        page.keyboard.press("c")
        browsers.said(page, "Not saved")
        page.wait_for_selector("#offline:has-text('out of reach since')")
        page.wait_for_selector("#pane .mark.unreviewed")
        assert review(world, hit["id"]) == "unreviewed"
        page.context.set_offline(False)
        page.keyboard.press("c")
        page.wait_for_selector("#pane .mark.confirmed")
        page.wait_for_selector("#offline", state="hidden")
        page.wait_for_selector("#link:has-text('connected')")


def test_an_operator_has_no_key_to_decide_with(world: Any, port: int, chromium: Any, device: Any) -> None:
    query = world.query("somebody in white")
    hit = world.hit(device.name, query, "somebody in white")
    device.report(hit)
    with browsers.visit(chromium, port) as page:
        browsers.log_in(page, "olga", worlds.PASSWORD)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.method))
        page.goto(f"/hits?query={query}")
        page.keyboard.press("j")
        page.wait_for_selector("#pane .hit")
        for key in "cru":
            page.keyboard.press(key)
        page.keyboard.press("?")
        text = page.wait_for_selector("#keys[open]").inner_text()
        assert "confirm" not in text and set(asked) == {"GET"} and review(world, hit["id"]) == "unreviewed"


def test_the_first_password_is_changed_on_the_way_in(world: Any, port: int, chromium: Any) -> None:
    one_time = world.station.users.add("novice", "reviewer", "test")
    with browsers.visit(chromium, port) as page:
        page.goto("/hits?review=all")
        page.wait_for_url(re.compile(r"/login\?next="))
        page.fill("#name", "novice")
        page.fill("#password", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#problem:has-text('Wrong name or password')")
        page.fill("#password", one_time)
        page.keyboard.press("Enter")
        page.wait_for_url("**/password")
        page.fill("#old", one_time)
        page.fill("#new", "four words do well")
        page.fill("#again", "four words do bad")
        page.keyboard.press("Enter")
        page.wait_for_selector("#problem:has-text('differ')")
        page.fill("#again", "four words do well")
        page.keyboard.press("Enter")
        page.wait_for_url("**/hits")
        page.click(".me summary")
        page.click("#logout")
        page.wait_for_url("**/login")
