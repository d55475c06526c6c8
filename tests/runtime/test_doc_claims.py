"""Claims of the pages about safety name the tests that show them; those have to exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tagclip.runtime.bundle import open_bundle
from tagclip.runtime.query import check_query
from tagclip.runtime.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(("page", "least"), [("threat-model", 30), ("responsible-use", 4)])
def test_the_tests_that_a_page_names_exist(page: str, least: int) -> None:
    named = re.findall(r"`(test_\w+)::(\w+)`", (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"))
    assert len(named) >= least
    for module, name in named:
        (path,) = (ROOT / "tests").rglob(f"{module}.py")
        assert re.search(rf"(?m)^def test_{name}\(", path.read_text(encoding="utf-8")), (module, name)


@pytest.mark.parametrize("group", ["skin dark", "build slim", "child, young", "pictures under 40"])
def test_numbers_of_groups_are_those_that_were_measured(group: str) -> None:
    """docs/alerts.md has the measurement; the page about use repeats the share that is found."""
    rows = [
        re.findall(rf"(?m)^\| {group}[^|]*\| ([^|]+?) \|", (ROOT / "docs" / page).read_text(encoding="utf-8"))
        for page in ("alerts.md", "responsible-use.md")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 1


@pytest.mark.parametrize("word", ["muslim", "african", "disabled"])
def test_words_that_should_not_be_searched_for_are_not_refused(word: str) -> None:
    """What the pages admit: nothing but the log stands against such a query. If this changes, change the pages."""
    text = check_query(f"a {word} person")
    assert Tokenizer.from_bundle(open_bundle(None)).encode([word, text]).any()
