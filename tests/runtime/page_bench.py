"""How quick the operator's page is here: `python tests/runtime/page_bench.py --hits 10000 --devices 50`.

Times are those of the browser: from the start of a navigation to its first contentful paint, from a filter's choice to
the painted rows, from a hit's being handed in over TLS to its row on the page. Browser and station share the processor.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import page_chromium as browsers
import page_world as worlds

from tagclip.runtime.station.server import Server

PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
FILTER = """([name, value]) => new Promise((done) => {
  const one = document.querySelector(`[name=${name}][value="${value}"]`);
  const field = one || document.querySelector(`select[name=${name}]`);
  const rows = document.getElementById("rows"), begun = performance.now();
  new MutationObserver((_, watching) => {
    watching.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
  }).observe(rows, { childList: true });
  if (field.type === "radio") field.checked = true; else field.value = value;
  field.dispatchEvent(new Event("change", { bubbles: true }));
})"""


def measure(hits: int, devices: int, times: int) -> dict[str, list[float]]:
    """Times in milliseconds: "paint", "filter", "hit"."""
    found: dict[str, list[float]] = {"paint": [], "filter": [], "hit": []}
    with tempfile.TemporaryDirectory() as folder:
        world = worlds.World(Path(folder) / "data")
        query = world.fill(hits, devices)[0]
        token = world.enrol("late")
        with (
            Server(world.station, ("127.0.0.1", 0)) as server,
            browsers.chromium() as browser,
            browsers.visit(browser, server.port) as page,
        ):
            world.listen(server.port)
            browsers.log_in(page, "root", worlds.PASSWORD)
            for _ in range(times):
                page.goto("/hits?review=all", wait_until="load")
                browsers.until(page, PAINT)
                found["paint"].append(page.evaluate(PAINT))
            choices = [("device", "drone-2"), ("device", ""), ("review", "confirmed"), ("review", "all")]
            choices += [("query", query), ("query", "")]
            for n in range(times):
                found["filter"].append(page.evaluate(FILTER, choices[n % len(choices)]))
                page.wait_for_timeout(300)
            page.goto("/hits")
            page.wait_for_timeout(1000)
            found["hit"] = _hits(world, page, server.port, token, query, times)
        world.station.close()
    return found


def _hits(world: Any, page: Any, port: int, token: str, query: str, times: int) -> list[float]:
    context = ssl.create_default_context(cafile=str(world.station.identity.ca))
    device = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
    found = []
    for _ in range(times):
        hit = world.hit("late", query, worlds.TEXTS[0])
        body = json.dumps(world.batch("late", hit))
        begun_s = time.monotonic()
        device.request("POST", "/api/v1/device/messages", body, {"Authorization": f"Bearer {token}"})
        device.getresponse().read()
        page.wait_for_selector(f"li[data-id='{hit['id']}']")
        found.append(1000 * (time.monotonic() - begun_s))
        time.sleep(0.3)
    device.close()
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time the operator's page in headless Chromium.")
    parser.add_argument("--hits", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--times", type=int, default=20)
    asked = parser.parse_args()
    for name, times in measure(asked.hits, asked.devices, asked.times).items():
        print(
            f"{name}: {len(times)} times, p50 {np.percentile(times, 50):.0f} ms, p95 {np.percentile(times, 95):.0f} ms"
        )


if __name__ == "__main__":
    main()
