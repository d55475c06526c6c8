"""The operator's page with the keyboard alone: after the log-in nothing is clicked, filled or focused by the test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

for _package in ("argon2", "cryptography", "jinja2", "onnxruntime", "playwright", "starlette", "uvicorn"):
    pytest.importorskip(_package)

from beside import load

worlds, browsers = load("page_world"), load("page_chromium")
MAP = "document.querySelector('#map canvas').toDataURL()"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with worlds.opened(
        tmp_path_factory.mktemp("keyboard")
    ) as world:  # the bundle that ships, for its background
        world.queries = world.fill(6, 2)
        for device in ("drone-2", "mast-1"):
            world.people_seen(device, 8, world.looks(8))
        yield world


@pytest.fixture(scope="module")
def port(world: Any) -> Iterator[int]:
    with world.served() as port:
        yield port


@pytest.fixture
def page(request: pytest.FixtureRequest, port: int, chromium: Any) -> Iterator[Any]:
    """Of the user whom the parameter names, after the log-in."""
    with browsers.visit(chromium, port) as page:
        browsers.log_in(page, request.param, worlds.PASSWORD)
        yield page


def as_(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", [name], indirect=True)


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until what has the focus fits `selector`; the page's own shortcuts are for other tests."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"120 times Tab do not reach {selector}")


def enter(page: Any, selector: str) -> None:
    tab_to(page, selector)
    page.keyboard.press("Enter")


def go(page: Any, path: str) -> None:
    tab_to(page, f"nav a[href='{path}']")
    with page.expect_navigation(url=f"**{path}"):  # which may be the page that is shown
        page.keyboard.press("Enter")


def choose(page: Any, selector: str, value: str) -> None:
    """An option of a select, with the arrows."""
    tab_to(page, selector)
    for _ in range(10):
        if page.evaluate("document.activeElement.value") == value:
            return
        page.keyboard.press("ArrowDown")
    raise AssertionError(f"ArrowDown does not bring {selector} to {value}")


@as_("olga")
def test_the_threshold_is_moved_by_arrows_and_taken(world: Any, page: Any) -> None:
    (query,) = world.queries[:1]
    go(page, "/queries")
    enter(page, f"[data-id='{query}'] [data-threshold]")
    page.wait_for_selector(".threshold .grid li")
    tab_to(page, ".threshold [type=range]")
    label, expected = page.locator(".threshold label"), page.locator(".threshold .hint").first
    assert label.inner_text() == "False alarms allowed: 1 in 2 hours at each camera"
    before = expected.inner_text()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    # Ten steps are ten times as many: five steps from 0.5, which is 10^-0.3, lead to 10^0.2.
    assert label.inner_text() == "False alarms allowed: 1.6 an hour at each camera"
    assert page.evaluate("document.activeElement.ariaValueText") == "1.6 an hour"
    assert re.fullmatch(
        r"Expected over \d+ cameras: .+\. Compared with 16 people seen\.", expected.inner_text()
    )
    assert expected.inner_text() != before
    standing = {each["id"]: each for each in world.station.queries.listed()}
    assert standing[query]["alarms_per_hour"] == 0.5  # nothing changes until it is taken
    enter(page, ".threshold .main")
    browsers.said(page, "Taken.")
    standing = {each["id"]: each for each in world.station.queries.listed()}
    assert standing[query]["alarms_per_hour"] == 1.6
    assert (
        page.inner_text(f"[data-id='{query}'] [data-promise]")
        == "false alarms: at most 1.6 an hour at each camera"
    )


@as_("rita")
def test_search_by_words_then_more_like_one(page: Any) -> None:
    go(page, "/search")
    tab_to(page, "#text")
    page.keyboard.type(worlds.TEXTS[0])
    choose(page, "#device", "drone-2")
    enter(page, "#search .main")
    page.wait_for_selector("#told:has-text('of 8 people')")
    found = page.locator("#results li").all_inner_texts()
    assert len(found) == 8 and all("drone-2" in each for each in found)
    tab_to(page, "#results a")
    like = page.evaluate("document.activeElement.getAttribute('href')")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{like}")
    page.wait_for_selector("#told:has-text('people, the best first')")
    assert page.is_visible("#like-line") and page.is_disabled("#text")
    enter(page, "#no-like")
    browsers.until(page, "document.activeElement.id === 'text' && !document.querySelector('#results li')")


@as_("olga")
def test_the_map_is_moved_and_its_hits_opened(page: Any) -> None:
    go(page, "/map")
    page.wait_for_selector("#places button")
    tab_to(page, "canvas")
    browsers.until(page, f"(window.whole = {MAP}) && true")
    for key in ("ArrowRight", "ArrowUp", "+", "-"):
        page.evaluate(f"(window.before = {MAP}) && true")
        page.keyboard.press(key)
        browsers.until(page, f"{MAP} !== before")
    page.keyboard.press("0")
    browsers.until(page, f"{MAP} === whole")
    tab_to(page, "[data-zoom='1']")
    page.keyboard.press("Enter")
    browsers.until(page, f"{MAP} !== whole")
    enter(page, "[data-zoom='0']")
    browsers.until(page, f"{MAP} === whole")
    tab_to(page, "#people")
    page.keyboard.press("Space")  # without the dots of everybody else
    browsers.until(page, f"{MAP} !== whole")
    tab_to(page, "canvas")
    page.keyboard.press("Enter")  # the hit nearest to its middle
    browsers.until(page, "document.activeElement.matches('[aria-pressed=true] + .open')")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/hits/[0-9a-f-]{36}"))
    go(page, "/map")
    choose(page, "#review", "confirmed")
    page.wait_for_selector("#told:has-text('1 hit with a place')")
    enter(page, "#places button")
    hit = page.evaluate("document.activeElement.dataset.id")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/hits/{hit}")


@as_("root")
def test_admins_add_users_change_them_and_enrol_devices(world: Any, port: int, page: Any) -> None:
    def nina() -> dict[str, Any]:
        (user,) = [each for each in world.station.users.users() if each["name"] == "nina"]
        return dict(user)

    def agree() -> None:
        page.wait_for_selector("dialog[open]")
        tab_to(page, "dialog [value=yes]")
        page.keyboard.press("Enter")

    go(page, "/admin")
    tab_to(page, "#name")
    page.keyboard.type("nina")
    choose(page, "#role", "reviewer")
    enter(page, "#add-user .main")
    page.wait_for_selector("#secret:has-text('nina')")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "One-time password"
    assert world.station.users.login("nina", page.input_value("#secret input"), "test")
    go(page, "/admin")
    choose(page, "[data-user=nina] [data-role]", "admin")
    assert nina()["role"] == "reviewer"  # not by an arrow
    enter(page, "[data-user=nina] [data-take-role]")
    browsers.said(page, "nina is now: admin")
    assert nina()["role"] == "admin"
    enter(page, "[data-user=nina] [data-disable=true]")
    agree()
    page.wait_for_selector("[data-user=nina]:has-text('shut out')")
    assert nina()["disabled"]

    world.enrol("worn-out")
    go(page, "/admin/devices")
    tab_to(page, "#device")
    page.keyboard.type("mast-9")
    page.keyboard.press("Enter")
    page.wait_for_selector("#secret:has-text('mast-9')")
    line = page.input_value("#secret input")
    enrolment = rf"tagclip-enrol:127\.0\.0\.1:{port}:[a-z2-7]+:[0-9a-f]{{64}}"
    assert re.fullmatch(rf"tagclip enrol {enrolment} --device mast-9 --folder link", line)
    enter(page, "[data-dismiss=worn-out]")
    agree()
    page.wait_for_selector("[data-dismiss=worn-out]", state="detached")
    assert "worn-out" not in {row["name"] for row in world.station.store.devices()}
    for path in ("/admin/audit", "/admin/quarantine"):
        go(page, path)
    go(page, "/fleet")
    enter(page, "tbody a[href*='device=drone-2']")
    page.wait_for_url("**/hits?device=drone-2**")


@as_("rita")
def test_the_list_is_one_stop_and_the_log_out_is_reached(page: Any) -> None:
    tab_to(page, "#rows .row")
    assert page.evaluate("document.querySelectorAll('#rows .row:not([tabindex=\"-1\"])').length") == 1
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#pane .hit")
    hits = page.locator("#rows li")
    assert page.evaluate("document.activeElement.parentElement.dataset.id") == hits.nth(1).get_attribute(
        "data-id"
    )
    page.wait_for_selector(f"#pane .hit[data-id='{hits.nth(1).get_attribute('data-id')}']")
    page.keyboard.press("Tab")  # out of the list, however long it is
    assert page.evaluate("document.activeElement.matches('#pane [data-decide=confirmed]')")
    enter(page, "header .me summary")
    page.wait_for_selector("#logout")
    page.keyboard.press("Escape")
    page.wait_for_selector("#logout", state="hidden")
    page.keyboard.press("Enter")
    enter(page, "#logout")
    page.wait_for_url("**/login")


# What a person can use, each by its place in the page: what is fetched anew is the same.
CONTROLS = """() => {
  document.activeElement.blur();
  window.place = (part) => {
    const above = part.parentElement;
    return above ? `${place(above)}/${[...above.children].indexOf(part)}` : "";
  };
  // A choice of the filter is drawn by what follows it.
  window.drawn = (part) => part.type === "radio" ? part.nextElementSibling : part;
  window.ring = (part) => {
    const style = getComputedStyle(drawn(part));
    return `${style.outlineStyle} ${style.outlineWidth} ${style.outlineColor} ${style.boxShadow}`;
  };
  const all = document.querySelectorAll("a[href], button, input, select, summary, textarea, [tabindex='0']");
  const usable = [...all].filter((part) => !part.disabled && part.type !== "hidden"
    && part.checkVisibility({ visibilityProperty: true })
    && !(part.type === "radio" && !part.checked) && !part.matches(".row[tabindex='-1']"));
  window.rings = new Map(usable.map((part) => [place(part), ring(part)]));
  return usable.map((part) => [place(part), part.outerHTML.slice(0, 120)]);
}"""
# Its place, and whether something of two sides of its outline at least is drawn where nothing cuts it off.
FOCUSED = """() => {
  const part = document.activeElement;
  if (part === document.body) return null;
  const style = getComputedStyle(drawn(part)), box = drawn(part).getBoundingClientRect();
  const far = parseFloat(style.outlineOffset) + parseFloat(style.outlineWidth) / 2;
  const clips = [new DOMRect(0, 0, innerWidth, innerHeight)];
  for (let above = drawn(part).parentElement; above; above = above.parentElement)
    if (getComputedStyle(above).overflow !== "visible") clips.push(above.getBoundingClientRect());
  const within = (at, low, high) => at >= low && at <= high;
  const seen = ([x, y]) => clips.every((clip) => within(x, clip.left, clip.right) && within(y, clip.top, clip.bottom));
  const along = [0.1, 0.3, 0.5, 0.7, 0.9], at = (low, size) => along.map((share) => low + share * size);
  const sides = [
    ...[box.left - far, box.right + far].map((x) => at(box.top, box.height).map((y) => [x, y])),
    ...[box.top - far, box.bottom + far].map((y) => at(box.left, box.width).map((x) => [x, y])),
  ];
  return [place(part), ring(part) !== rings.get(place(part)) && sides.filter((side) => side.some(seen)).length >= 2];
}"""


@as_("root")
def test_tab_reaches_every_control_shows_where_it_is_and_leaves_it(world: Any, page: Any) -> None:
    hit = page.get_attribute("#rows li", "data-id")
    paths = ["/hits", f"/hits/{hit}", "/queries", "/search", "/map", "/fleet", "/password", "/nowhere"]
    paths += ["/admin", "/admin/devices", "/admin/audit", "/admin/quarantine", "/login"]
    faults = []
    for path in paths:
        page.goto(path)
        if path == "/map":
            page.wait_for_selector("#places button")
        controls = dict(page.evaluate(CONTROLS))
        order: list[str] = []
        left = False
        for _ in range(8 * len(controls)):  # a field of a time has several stops
            page.keyboard.press("Tab")
            found = page.evaluate(FOCUSED)
            if found is None:  # out of the page
                left = True
                continue
            at, visible = found
            if at in order and (left or at != order[-1]):  # once round
                break
            left = False
            if at not in order:
                order.append(at)
                if not visible:
                    faults.append(f"{path}: no visible focus on {controls.get(at, at)}")
        else:
            faults.append(f"{path}: Tab stays at {controls.get(order[-1], order[-1])}")
        if path not in ("/login", "/password") and order[0] != next(
            iter(controls)
        ):  # they put it into a field
            faults.append(f"{path}: the first Tab goes to {controls[order[0]]}")
        faults += [f"{path}: Tab does not reach {html}" for at, html in controls.items() if at not in order]
    assert not faults, "\n".join(faults)
