"""How quick the operator's page is here: `python tests/runtime/page_bench.py --hits 10000 --devices 50`.

Times are those of the browser: from the start of a navigation to its first contentful paint, from a filter's choice to
the painted rows, from a hit's being handed in over TLS to its row on the page. Browser and station share the processor.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import page_chromium as browsers
import page_world as worlds

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
    with tempfile.TemporaryDirectory() as folder, worlds.opened(Path(folder)) as world:
        query = world.fill(hits, devices)[0]
        with (
            world.served() as port,
            browsers.chromium() as browser,
            browsers.visit(browser, port) as page,
        ):
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
            found["hit"] = _hits(worlds.Device(world, port, "late"), page, query, times)
    return found


def _hits(device: worlds.Device, page: Any, query: str, times: int) -> list[float]:
    found = []
    for _ in range(times):
        hit = device.world.hit(device.name, query, worlds.TEXTS[0])
        begun_s = time.monotonic()
        device.report(hit)
        page.wait_for_selector(f"li[data-id='{hit['id']}']")
        found.append(1000 * (time.monotonic() - begun_s))
        time.sleep(0.3)
    device.connection.close()
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
