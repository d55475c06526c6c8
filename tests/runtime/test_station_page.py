"""The operator's page from the server's side: who is shown what, that nothing foreign gets in, what waits for news."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for _package in ("argon2", "cryptography", "jinja2", "onnxruntime", "starlette", "uvicorn"):
    pytest.importorskip(_package)

from beside import load

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.ids import uuid7
from tagclip.runtime.station import page_fleet, page_text
from tagclip.runtime.station.page_news import REMEMBERED, News
from tagclip.runtime.station.page_routes import PAGES, PARTS
from tagclip.runtime.station.page_shell import STATIC, version
from tagclip.runtime.station.page_tiles import Tiles

worlds = load("page_world")
NASTY = "<script>alert(1)</script>\"'{{ 7 * 7 }}"


class Browser:
    """Asks with the cookie of a user; `ask` gives (status, headers, text)."""

    def __init__(self, world: Any, port: int) -> None:
        self.connection = world.connect(port)
        self.cookie = self.csrf = ""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, str]:
        sent = {"Content-Type": "application/json", "X-CSRF-Token": self.csrf, **headers}
        if self.cookie:
            sent["Cookie"] = self.cookie
        self.connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read().decode("utf-8", "replace")

    def page(self, path: str) -> str:
        status, headers, text = self.ask("GET", path)
        assert status == 200 and headers["content-type"] == "text/html; charset=utf-8", (
            path,
            status,
            text[:300],
        )
        return text

    def log_in(self, name: str, password: str) -> None:
        status, headers, text = self.ask("POST", "/api/v1/login", {"name": name, "password": password})
        assert status == 200, text
        self.cookie, self.csrf = headers["set-cookie"].partition(";")[0], json.loads(text)["csrf"]


@pytest.fixture(scope="module")
def world(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with worlds.opened(tmp_path_factory.mktemp("page"), tiny_bundle.path) as world:
        yield world


@pytest.fixture(scope="module")
def known(world: Any) -> dict[str, str]:
    """What paths name: a hit, and what else a page is about."""
    token = world.enrol("d1")
    query = world.query("a person in red", reason=NASTY)
    first = world.hit("d1", query, NASTY, camera=NASTY, place=None)
    near = world.hit("d1", query, "near", camera=NASTY, best_s=first["best_s"] + 2)
    elsewhere = world.hit("d1", query, "elsewhere", camera="other")
    world.take("d1", first, near, elsewhere, depth=3, oldest_s=12.0, temperature_c=71.0, bundle=NASTY)
    return {
        "id": first["id"],
        "near": near["id"],
        "elsewhere": elsewhere["id"],
        "query": query,
        "token": token,
    }


@pytest.fixture(scope="module")
def people(world: Any, known: dict[str, str]) -> Iterator[dict[str, Browser]]:
    with world.served() as port:
        found = {name: Browser(world, port) for name in ("nobody", "root", "olga", "rita")}
        for name in ("root", "olga", "rita"):
            found[name].log_in(name, worlds.PASSWORD)
        yield found
        for browser in found.values():
            browser.connection.close()


ALL = {"root", "olga", "rita"}
# Written by hand, not made out of the code: path -> who may.
MAY: dict[str, set[str]] = {
    "/": ALL,
    "/password": ALL,
    "/hits": ALL,
    "/hits/{id}": ALL,
    "/queries": ALL,
    "/search": ALL,
    "/map": ALL,
    "/fleet": ALL,
    "/admin": {"root"},
    "/admin/devices": {"root"},
    "/admin/audit": {"root"},
    "/admin/quarantine": {"root"},
}
MAY_PARTS: dict[str, set[str]] = {
    "/hits/rows": ALL,
    "/hits/live": ALL,
    "/hits/{id}/pane": ALL,
    "/map/places": ALL,
    "/map/tiles/{zoom}/{column}/{row}": ALL,
    "/fleet/rows": ALL,
}


def filled(path: str, known: dict[str, str]) -> str:
    return re.sub(r"\{(zoom|column|row)\}", "0", path.replace("{id}", known["id"]))


def test_the_tables_have_every_route() -> None:
    assert {(route.method, route.path) for route in PAGES} == {("GET", path) for path in (*MAY, "/login")}
    assert {(route.method, route.path) for route in PARTS} == {
        ("GET", path) for path in (*MAY_PARTS, "/static/{version}/{name}")
    }


@pytest.mark.parametrize("who", ["nobody", "rita", "olga", "root"])
def test_everybody_gets_the_pages_that_the_tables_say(
    people: dict[str, Browser], known: dict[str, str], who: str
) -> None:
    browser = people[who]
    for path, may in MAY.items():
        status, headers, text = browser.ask("GET", filled(path, known))
        if who == "nobody":
            assert status == 303 and headers["location"].startswith("/login"), path
        elif who not in may:
            assert status == 403 and "may not do this" in text and "<h1>Not for you" in text, path
        elif path == "/":
            assert (status, headers["location"]) == (303, "/hits")
        else:
            assert status == 200 and "</html>" in text, path
    for path, may in MAY_PARTS.items():
        status, headers, text = browser.ask("GET", filled(path, known))
        expected = 401 if who == "nobody" else 404 if "tiles" in path else 200
        assert status == expected and who in may | {"nobody"}, path
    assert browser.ask("GET", "/login")[0] == 200


SEARCHES = ('id="add"', "data-remove")
DECIDES = ("data-decide=",)
ADMINISTERS = ('href="/admin"', "data-delete")


@pytest.mark.parametrize(
    ("who", "shown", "hidden"),
    [
        ("olga", SEARCHES, (*DECIDES, *ADMINISTERS)),
        ("rita", DECIDES, (*SEARCHES, *ADMINISTERS)),
        ("root", (*SEARCHES, *DECIDES, *ADMINISTERS), ()),
    ],
)
def test_no_control_is_shown_that_would_be_refused(
    people: dict[str, Browser],
    known: dict[str, str],
    who: str,
    shown: tuple[str, ...],
    hidden: tuple[str, ...],
) -> None:
    paths = ("/hits", "/hits/{id}", "/hits/{id}/pane", "/queries", "/search", "/map", "/fleet")
    text = "".join(people[who].ask("GET", filled(path, known))[2] for path in paths)
    assert all(control in text for control in shown)
    assert not any(control in text for control in hidden)


def test_whoever_has_a_one_time_password_chooses_another_one_first(
    world: Any, people: dict[str, Browser]
) -> None:
    one_time = world.station.users.add("newcomer", "reviewer", "test")
    browser = Browser(world, people["root"].connection.port)
    browser.log_in("newcomer", one_time)
    status, headers, _ = browser.ask("GET", "/hits")
    assert (status, headers["location"]) == (303, "/password")
    text = browser.page("/password")
    assert "One-time password" in text and "<nav" not in text
    browser.connection.close()


def test_pages_run_nothing_that_was_typed_or_comes_from_elsewhere(
    people: dict[str, Browser], known: dict[str, str]
) -> None:
    seen = ""
    for path in (*MAY, "/login", "/nowhere"):
        if path == "/":
            continue
        _, headers, text = people["root"].ask("GET", filled(path, known))
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy, (
            path
        )
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
        for attributes, inside in re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL):
            assert re.search(r' src="/static/[0-9a-f]{12}/[a-z]+\.js"', attributes) and not inside, path
        assert not re.search(r"<style|<[^>]+ (style|on[a-z]+)=|javascript:", text), path
        assert not re.search(r"(src|href|action)=\"(?!/|#)", text), path
        seen += text
    assert "&lt;script&gt;alert(1)" in seen and "{{ 7 * 7 }}" in seen and "<script>alert" not in seen
    for file in STATIC.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, no address
        assert not re.search(r"""https?:|url\(|@import|from "(?!\./)|eval\(|new Function""", text), file


def test_static_files_are_kept_by_their_version_alone(people: dict[str, Browser]) -> None:
    nobody = people["nobody"]
    status, headers, _ = nobody.ask("GET", f"/static/{version()}/page.css")
    assert (status, headers["content-type"]) == (200, "text/css; charset=utf-8") or headers[
        "content-type"
    ] == "text/css"
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    assert nobody.ask("GET", "/static/000000000000/page.css")[1]["cache-control"] == "no-store"
    for name in ("nothing.js", "..%2fbase.html", "%2e%2e", "page.css%00"):
        assert nobody.ask("GET", f"/static/{version()}/{name}")[0] == 404, name


def test_the_whole_page_is_small(people: dict[str, Browser], known: dict[str, str]) -> None:
    files = sum(file.stat().st_size for file in STATIC.iterdir())
    pages = max(len(people["root"].ask("GET", filled(path, known))[2]) for path in MAY)
    assert files + pages < 300_000


def test_a_hit_is_shown_with_what_was_near(people: dict[str, Browser], known: dict[str, str]) -> None:
    text = people["rita"].page(f"/hits/{known['id']}")
    assert f"/hits/{known['near']}" in text and known["elsewhere"] not in text
    status, _, text = people["rita"].ask("GET", f"/hits/{uuid7()}")
    assert status == 404 and "There is no such hit" in text


def test_rows_follow_the_filter(people: dict[str, Browser], known: dict[str, str]) -> None:
    rita = people["rita"]

    def rows(query: str) -> Any:
        return json.loads(rita.ask("GET", f"/hits/rows?{query}")[2])

    assert (
        rows("review=all&device=d1")["rows"].count("<li ") == 3 and rows("device=other")["rows"].strip() == ""
    )
    assert rows(f"query={known['query']}")["counts"] == {"unreviewed": 3}
    assert rows("review=confirmed")["after"] is None
    assert rita.ask("GET", "/hits/rows?review=maybe")[0] == rita.ask("GET", "/hits/rows?after=x")[0] == 400
    assert rita.ask("GET", "/hits?review=maybe")[2].count("<h1>That did not work") == 1


def test_who_waits_is_told_of_hits_and_decisions_at_once(
    world: Any, people: dict[str, Browser], known: dict[str, str]
) -> None:
    rita, device = people["rita"], Browser(world, people["rita"].connection.port)
    watching = Browser(world, rita.connection.port)
    watching.cookie = people["olga"].cookie
    number = json.loads(rita.ask("GET", "/hits/live?number=0")[2])["number"]
    told: list[tuple[float, Any]] = []

    def wait(since: int) -> threading.Thread:
        def ask() -> None:
            text = watching.ask("GET", f"/hits/live?number={since}&wait_s=20")[2]
            told.append((time.monotonic(), json.loads(text)))

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.1)
        return thread

    thread = wait(number)
    hit = world.hit("d1", known["query"], "somebody new")
    begun_s = time.monotonic()
    body = world.batch("d1", hit)
    assert (
        device.ask("POST", "/api/v1/device/messages", body, Authorization=f"Bearer {known['token']}")[0]
        == 200
    )
    thread.join()
    at_s, news = told.pop()
    assert [(row["id"], row["fits"]) for row in news["hits"]] == [(hit["id"], 1)] and at_s - begun_s < 10
    assert "somebody new" in news["hits"][0]["row"] and news["counts"]["unreviewed"] == 4

    thread = wait(news["number"])
    assert rita.ask("POST", f"/api/v1/hits/{hit['id']}/review", {"review": "confirmed"})[0] == 200
    thread.join()
    (decided,) = told.pop()[1]["hits"]
    assert (decided["id"], decided["fits"]) == (hit["id"], 0) and 'data-review="confirmed"' in decided["row"]
    assert json.loads(rita.ask("GET", "/hits/live?number=1")[2])["stale"]  # of an earlier start
    for browser in (device, watching):
        browser.connection.close()


def test_news_remember_what_fits_and_say_when_it_does_not() -> None:
    news = News()
    first = news.number
    assert news.since(first) == [] and news.since(first - 1) is None and news.since(first + 1) is None
    news.tell(["a", "b", "a"])
    news.tell(["a"])
    assert news.since(first) == ["a", "b"] and news.since(first + 2) == ["a"] and news.since(first + 3) == []
    news.tell([])
    assert news.number == first + 3
    news.tell(str(n) for n in range(REMEMBERED))
    assert news.since(first) is None and len(news.since(first + 3) or []) == REMEMBERED


PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def write_tiles(path: Path, form: str = "png", zoom: int = 2, tile: object = PNG) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE metadata(name TEXT, value TEXT);"
        "CREATE TABLE tiles(zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB);"
    )
    connection.execute("INSERT INTO metadata VALUES('format', ?)", (form,))
    # Column 1, and row 0 from the south, which is row 3 from the north.
    connection.execute("INSERT INTO tiles VALUES(?, 1, 0, ?)", (zoom, tile))
    connection.commit()
    connection.close()
    return path


def test_the_users_own_tiles(world: Any, people: dict[str, Browser], tmp_path: Path) -> None:
    path = write_tiles(tmp_path / "own map?.mbtiles")
    before = path.read_bytes()
    tiles = Tiles(path)
    assert (
        tiles.tile(2, 1, 3) == ("image/png", PNG)
        and tiles.tile(2, 1, 0) is None
        and tiles.tile(99, 0, 0) is None
    )
    assert (tiles.min_zoom, tiles.max_zoom, tiles.corners) == (2, 2, (0.25, 0.0, 0.5, 0.25))
    world.station.tiles = tiles
    status, headers, _ = people["olga"].ask("GET", "/map/tiles/2/1/3")
    assert (status, headers["content-type"]) == (200, "image/png") and 'data-max-zoom="2"' in people[
        "olga"
    ].page("/map")
    assert people["olga"].ask("GET", "/map/tiles/2/1/-3")[0] == 404
    assert people["nobody"].ask("GET", "/map/tiles/2/1/3")[0] == 401
    world.station.tiles = None
    tiles.close()
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.write_bytes(b"no database " * 100), "is no MBTiles file"),
        (lambda path: path.write_bytes(b""), "is no MBTiles file"),
        (lambda path: write_tiles(path, form="pbf"), "expected raster tiles"),
        (lambda path: write_tiles(path, zoom=40), "zooms of 0 to 22"),
        (lambda path: write_tiles(path, zoom="x"), "zooms of 0 to 22"),  # type: ignore[arg-type]
    ],
    ids=["absent", "garbage", "empty", "vector", "deep", "text"],
)
def test_no_other_file_is_taken_for_tiles(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "map.mbtiles")
    with pytest.raises(ConfigError, match=said):
        Tiles(tmp_path / "map.mbtiles")


@pytest.mark.parametrize(
    "tile", [b"<svg onload=alert(1)>", "text", None, 7], ids=["svg", "text", "null", "number"]
)
def test_what_is_no_picture_is_no_tile(tmp_path: Path, tile: object) -> None:
    tiles = Tiles(write_tiles(tmp_path / "map.mbtiles", tile=tile))
    with pytest.raises(ConfigError, match="no picture"):
        tiles.tile(2, 1, 3)
    tiles.close()


@pytest.mark.parametrize(
    ("function", "value", "said"),
    [
        (page_text.per_hour, 3.2, "3.2 false alarms an hour"),
        (page_text.per_hour, 1.0, "1 false alarm an hour"),
        (page_text.per_hour, 0.2, "1 false alarm in 5 h"),
        (page_text.per_hour, 0.01, "1 false alarm in 4.2 days"),
        (page_text.per_hour, 0.0, "practically no false alarms"),
        (page_text.chance, 0.0001, "1 of 10,000 people by chance"),
        (page_text.chance, 0.0, "by chance practically never"),
        (page_text.chance, 1.0, "as likely by chance"),
        (page_text.span, 65, "65 s"),
        (page_text.span, 3600 * 3, "3 h"),
        (page_text.span, -5, "0 s"),
        (page_text.size, 999, "999 bytes"),
        (page_text.size, 1_540_000, "1.5 MB"),
        (page_text.place, None, "place unknown"),
        (page_text.utc, 0.0, "1970-01-01 00:00:00 UTC"),
    ],
)
def test_numbers_in_words(function: Any, value: Any, said: str) -> None:
    assert function(value) == said


@pytest.mark.parametrize(
    ("seen", "status", "link", "clock"),
    [
        (None, None, "never reported", None),
        (995.0, {"now_s": 994.0}, "in reach", None),
        (800.0, {"now_s": 5.0}, "silent", "its clock is wrong"),
        (-9000.0, {"now_s": "soon", "depth": "many"}, "out of reach", None),
    ],
    ids=["new", "good", "silent", "gone"],
)
def test_a_device_in_words(seen: float | None, status: Any, link: str, clock: str | None) -> None:
    device = {
        "name": "d",
        "seen_s": seen,
        "queries_revision": 3,
        "version": "1",
        "encoder_id": None,
        "status": status,
        "bundle": {"digest": "a" * 64, "ordered": "b" * 64, "state": "fetching", "percent": 40.0},
    }
    told = page_fleet.told(device, 4, 1000.0)
    assert told["link"][1] == link and (told["clock"] or (0, None))[1] == clock
    assert told["queries"] == ("warn", "set 3 of 4") and told["depth"] is None
    assert told["bundle"] == ("warn", f"{'a' * 12} another is ordered: fetching, 40 %")
