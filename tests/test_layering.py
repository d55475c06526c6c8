"""The direction of dependencies: export -> train, calibration, runtime; train, calibration -> runtime."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# part -> the parts of ours that it may import
MAY_IMPORT = {
    "runtime": {"runtime"},
    "calibration": {"calibration", "runtime"},
    "train": {"train", "runtime"},
    "export": {"export", "train", "calibration", "runtime"},
}

# What a device or a calibration run never has.
MAKERS = {"torch", "onnx", "onnxscript", "open_clip", "anny", "warp", "sentence_transformers", "matplotlib"}

# At the top of a module; engines, tokenizers and everything else are imported where they are used.
TOP_LEVEL = {"runtime": {"numpy", "cv2"}, "calibration": {"numpy", "cv2"}}


def sources(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


ALL = [(part, path) for part in MAY_IMPORT for path in sources(part)]
IDS = [str(path.relative_to(ROOT)) for _, path in ALL]
each_module = pytest.mark.parametrize(("part", "path"), ALL, ids=IDS)


def imports(tree: ast.AST, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """(module, line) of each import; `top_level` leaves out functions and `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), node.lineno
        elif top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        elif top_level and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        else:
            yield from imports(node, top_level=top_level)


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def is_cli(path: Path) -> bool:
    return path.name == "cli.py" or path.name.endswith("_cli.py")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("tagclip", *(parts[:-1] if parts[-1] == "__init__" else parts)))


@each_module
def test_imports_point_the_right_way(part: str, path: Path) -> None:
    for name, line in imports(parse(path)):
        top, _, rest = name.partition(".")
        assert top, f"{path}:{line}: relative import; write `from tagclip.{part}...`"
        assert top not in MAY_IMPORT, (
            f"{path}:{line}: `{name}` works by accident of sys.path; import tagclip.{name}"
        )
        if top == "tagclip":
            target = rest.partition(".")[0]
            assert target in MAY_IMPORT[part], f"{path}:{line}: {part} must not import {name}"


@each_module
def test_device_parts_import_no_makers_library(part: str, path: Path) -> None:
    """Not even inside a function."""
    if part in TOP_LEVEL:
        found = {name.partition(".")[0] for name, _ in imports(parse(path))} & MAKERS
        assert not found, f"{path}: {part} must not import {sorted(found)}"


@each_module
def test_top_level_imports_are_light(part: str, path: Path) -> None:
    allowed = {"click"} if is_cli(path) else TOP_LEVEL.get(part, None)
    if allowed is None:
        return
    for name, line in imports(parse(path), top_level=True):
        top = name.partition(".")[0]
        # A command may take options from another, which is as light.
        ours = top == "tagclip" and (not is_cli(path) or name.endswith("_cli"))
        assert top in sys.stdlib_module_names or top in allowed or ours, (
            f"{path}:{line}: import {name} where it is used; at the top only {sorted(allowed)}"
        )


def test_device_parts_import_without_the_makers_libraries() -> None:
    """For real, in a process where those libraries do not exist, nor any engine or tokenizer."""
    modules = [
        module_name(path) for part in TOP_LEVEL for path in sources(part) if path.name != "__main__.py"
    ]
    code = f"""
import importlib, sys
for name in {sorted(MAKERS | {"onnxruntime", "tensorrt", "tokenizers"})}:
    sys.modules[name] = None
for name in {modules}:
    importlib.import_module(name)
bare = set({sorted(MAY_IMPORT)}) & set(sys.modules)
assert not bare, f"imported by a bare name: {{bare}}"
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_this_test_can_fail() -> None:
    tree = ast.parse("def f():\n    import torch\nif TYPE_CHECKING:\n    import onnx\nfrom . import x\n")
    assert [name for name, _ in imports(tree)] == ["torch", "onnx", "."]
    assert [name for name, _ in imports(tree, top_level=True)] == ["."]
