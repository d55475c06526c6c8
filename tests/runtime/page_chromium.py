"""Debian's Chromium, headless, on a station's page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 120.0  # with a machine that has much else to do
SIZE = {"width": 1180, "height": 740}

# Every line that the page says at its bottom, for they go by themselves, and a busy machine would miss them.
SAID = """window.said = [];
document.addEventListener("DOMContentLoaded", () => new MutationObserver((changes) => {
  for (const change of changes) for (const line of change.addedNodes) said.push(line.textContent);
}).observe(document.getElementById("toasts"), { childList: true }));"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright; it never goes to the network but for what a test opens."""
    from playwright.sync_api import sync_playwright

    # Without the sandbox, which does not work for root; what it opens is our own page alone.
    flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Any, port: int, **options: Any) -> Iterator[Any]:
    """A page of its own at the station on `port`; an error of a script is one of the test."""
    context = browser.new_context(
        # The authority of a test's station is nobody else's.
        **{"ignore_https_errors": True, "viewport": SIZE, "base_url": f"https://127.0.0.1:{port}", **options}
    )
    page, errors = context.new_page(), []
    page.set_default_timeout(1000 * PATIENCE_S)
    page.add_init_script(SAID)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert not errors, errors


def until(page: Any, expression: str) -> None:
    """Wait until an expression is true; playwright's own way evaluates text in the page, which its policy forbids."""
    end_s = time.monotonic() + PATIENCE_S
    while not page.evaluate(expression):
        assert time.monotonic() < end_s, expression
        page.wait_for_timeout(50)


def said(page: Any, text: str) -> None:
    """Wait until the page has said `text` at its bottom."""
    until(page, f"said.some((line) => line.includes('{text}'))")


def log_in(page: Any, name: str, password: str) -> None:
    """As a person does it, with the keyboard."""
    page.goto("/login")
    until(page, "document.activeElement.id === 'name'")
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    page.wait_for_url("**/hits")
