"""The README's tree names every module once, its links lead somewhere, and its commands exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What users read: every link and every command in it is tried.
PAGES = [
    "README.md",
    *(
        f"docs/{page}.md"
        for page in (
            "ablation",
            "admin-guide",
            "alerts",
            "api",
            "benchmarks",
            "card/card",
            "model",
            "data",
            "detectors",
            "engines",
            "export",
            "evaluation",
            "field-guide",
            "format",
            "jetson",
            "link",
            "operations",
            "out",
            "page",
            "reliability",
            "responsible-use",
            "store",
            "threat-model",
            "tracking",
            "training",
        )
    ),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARTS = ("runtime", "train", "export", "calibration")


def tree() -> list[tuple[str, str]]:
    """(path, phrase) of each line of the tree, folders with their closing slash."""
    block = README.partition("## Files\n```\n")[2].partition("```")[0]
    found, stack = [], [""] * 4
    for line in block.splitlines():
        name, _, phrase = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        stack[depth] = name
        found.append(("".join(stack[:depth]) + name, phrase.strip()))
    return found


def test_tree_has_every_module_with_a_phrase() -> None:
    modules = {
        path.relative_to(ROOT).as_posix()
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }
    named = [path for path, _ in tree() if path.endswith(".py")]
    assert sorted(named) == sorted(modules)
    assert all(phrase for _, phrase in tree())
    assert all((ROOT / path).exists() for path, _ in tree())


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


GROUPS = ("synth", "data", "bundle", "store", "alerts", "detector", "query")


def commands() -> list[list[str]]:
    """Every `tagclip COMMAND [SUBCOMMAND]` and its options that an indented line of the README or docs shows."""
    found = []
    for page in PAGES:
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            if line.startswith("    tagclip "):
                words = (
                    re.sub(r'"[^"]*"', "TEXT", line.partition("#")[0])
                    .replace("[", "")
                    .replace("]", "")
                    .split()
                )
                grouped = words[1] in GROUPS or words[1:3] == ["station", "annotations"]
                name = words[1:3] if grouped else words[1:2]
                found.append([*name, *(word for word in words if word.startswith("--"))])
    return found


def test_commands_and_options_exist(run: Callable[..., tuple[int, str, str]]) -> None:
    assert len(commands()) > 8
    for command in commands():
        name = [word for word in command if not word.startswith("--")]
        status, page, _ = run(*name, "--help")
        assert status == 0, command
        for option in command[len(name) :]:
            assert option in page, command


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)\b", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
