"""The command line: exit status, messages, and what `tagclip bundle` prints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import click
import pytest

from tagclip.runtime import cli
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_write import write_bundle
from tagclip.runtime.errors import TagclipError


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Give `tagclip` a command `boom` that raises `error`."""

    def boom() -> None:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "boom", f"{__name__}_boom:boom")
    module = type(sys)(f"{__name__}_boom")
    module.boom = click.command(boom)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TagclipError("the clip is empty; name another"), "error: the clip is empty; name another\n"),
        (KeyboardInterrupt(), "interrupted\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "torch is not installed; this command needs: pip install 'tagclip[train]'\n",
        ),
        (
            ModuleNotFoundError("No module named 'onnx.helper'", name="onnx.helper"),
            "onnx is not installed; this command needs: pip install 'tagclip[export]'\n",
        ),
        (OSError(28, "No space left on device", "out.json"), "error: out.json: No space left on device\n"),
    ],
)
def test_failures_are_one_line_and_status_1(
    run: Callable, monkeypatch: pytest.MonkeyPatch, error: BaseException, message: str
) -> None:
    fail_with(monkeypatch, error)
    status, out, err = run("boom")
    assert (status, out, err.lstrip("\n")) == (1, "", message)


@pytest.mark.parametrize(
    "error", [ImportError("no such name", name="tagclip.runtime.views"), ZeroDivisionError()]
)
def test_our_own_mistakes_are_not_hidden(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fail_with(monkeypatch, error)
    with pytest.raises(type(error)):
        cli.main(["boom"])


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("bundle", "nonsense"), ("bundle", "inspect", "--nonsense"), ("--nonsense",)]
)
def test_wrong_usage_is_status_2(run: Callable, arguments: tuple[str, ...]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "") and "Error: No such" in err


def test_version(run: Callable) -> None:
    assert run("--version") == (0, f"tagclip, version {metadata.version('tagclip')}\n", "")


def test_a_reader_that_leaves_is_no_failure_to_talk_about(tiny_bundle: Bundle) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "tagclip.runtime", "bundle", "inspect", str(tiny_bundle.path)]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


def test_inspect_prints_what_the_bundle_holds(run: Callable, tiny_bundle: Bundle) -> None:
    status, out, err = run("bundle", "inspect", tiny_bundle.path)
    assert (status, err) == (0, "")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["encoder"] == ["encoder", "id", tiny_bundle.encoder_id]
    assert lines["crops"] == ["crops", "32", "x", "16", "px,", "RGB"]
    size_mb = (tiny_bundle.path / "text.onnx").stat().st_size / 1e6
    assert lines["image-ground"][1:3] == ["fp32", "96"]
    assert lines["retrieval"][1:] == ["r1", "r5", "r10", "map", "minp", "queries", "gallery"]
    assert lines["aerial"] == ["aerial", "50", "75", "100", "60.5", "40.25", "8", "4"]
    assert lines["made_by:"] == ["made_by:", '"tests"']
    assert f"{size_mb:.2f}  text.onnx" in out


def test_inspect_json(run: Callable, tiny_bundle: Bundle) -> None:
    status, out, _ = run("bundle", "inspect", tiny_bundle.path, "--json")
    facts = json.loads(out)
    assert status == 0 and facts["path"] == str(tiny_bundle.path)
    assert facts["towers"]["text"]["bytes"] == (tiny_bundle.path / "text.onnx").stat().st_size
    assert facts["retrieval"]["ground"]["map"] == 60.5
    assert facts["signature"] is None and facts["encoder_id"] == tiny_bundle.encoder_id


def test_inspect_without_a_report_and_with_hostile_provenance(
    run: Callable, tiny_parts: dict, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "b", **(tiny_parts | {"extra_files": {}, "provenance": {"a\x1b[2J": "\x07"}}))
    status, out, _ = run("bundle", "inspect", tmp_path / "b")
    assert status == 0 and "retrieval" not in out
    assert "\x1b" not in out and "\x07" not in out and "\\u001b[2J" in out


@pytest.mark.parametrize(
    "report", ['{"retrieval": 3}', '{"retrieval": {"all": [1], "sky": {"r1": 1}}}', "{}"]
)
def test_inspect_with_another_kind_of_report(
    run: Callable, tiny_parts: dict, tmp_path: Path, report: str
) -> None:
    write_bundle(tmp_path / "b", **(tiny_parts | {"extra_files": {"report.json": report.encode()}}))
    status, out, _ = run("bundle", "inspect", tmp_path / "b")
    assert status == 0 and "retrieval" not in out


def test_verify(run: Callable, tiny_bundle: Bundle) -> None:
    status, out, err = run("bundle", "verify", tiny_bundle.path)
    assert (status, err) == (0, "") and "7 files have the SHA-256 they should" in out
    status, out, _ = run("bundle", "verify", tiny_bundle.path, "--json")
    result = json.loads(out)
    assert status == 0 and result["encoder_id"] == tiny_bundle.encoder_id
    assert set(result["min_cosine"]) == {"image-aerial", "image-ground", "text"}


def probe_of(parts: dict, **change: object) -> bytes:
    import io

    import numpy as np

    with np.load(io.BytesIO(parts["extra_files"]["probe.npz"])) as arrays:
        probe = {name: arrays[name] for name in arrays.files} | change
    data = io.BytesIO()
    np.savez(data, **{name: value for name, value in probe.items() if value is not None})
    return data.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda vectors: {"vectors_ground": vectors[::-1]},
            "image-ground: cosine to the expected vectors is",
        ),
        (
            lambda vectors: {"vectors_ground": vectors * float("nan")},
            "image-ground: expected vectors of length 1",
        ),
        (
            lambda vectors: {"vectors_ground": vectors[:, :3]},
            "expected vectors of shape (3, 16), found (3, 3)",
        ),
        (lambda vectors: {"vectors_ground": vectors[:2]}, "vectors_ground has 2 rows, crops 3"),
        (lambda vectors: {"vectors_aerial": None}, "vectors_aerial: expected a non-empty array"),
        (lambda vectors: {"texts": vectors}, "texts: expected a non-empty array of kind 'U'"),
        (lambda vectors: {"crops": vectors}, "crops: expected a non-empty array of kind 'u'"),
    ],
)
def test_verify_refuses_a_probe_that_does_not_come_out(
    run: Callable, tiny_parts: dict, tmp_path: Path, change: Callable, message: str
) -> None:
    import io

    import numpy as np

    vectors = np.load(io.BytesIO(tiny_parts["extra_files"]["probe.npz"]))["vectors_ground"]
    extra = {"probe.npz": probe_of(tiny_parts, **change(vectors))}
    write_bundle(tmp_path / "b", **(tiny_parts | {"extra_files": extra}))
    status, out, err = run("bundle", "verify", tmp_path / "b")
    assert (status, out) == (1, "") and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_verify_refuses_pickles_and_rubbish(run: Callable, tiny_parts: dict, tmp_path: Path) -> None:
    import numpy as np

    pickled = probe_of(tiny_parts, texts=np.array(["red", None], dtype=object))
    truncated = tiny_parts["extra_files"]["probe.npz"][:-30]
    for index, extra in enumerate(
        [{}, {"probe.npz": pickled}, {"probe.npz": truncated}, {"probe.npz": b"no"}]
    ):
        write_bundle(tmp_path / str(index), **(tiny_parts | {"extra_files": extra}))
        status, _, err = run("bundle", "verify", tmp_path / str(index))
        assert status == 1 and "probe.npz" in err and "Traceback" not in err


def test_verify_of_an_altered_bundle(run: Callable, tiny_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle.path, tmp_path / "b")
    with open(tmp_path / "b" / "text.onnx", "ab") as file:
        file.write(b"\0")
    for command in ("verify", "inspect"):
        status, out, err = run("bundle", command, tmp_path / "b")
        assert (status, out) == (1, "") and "text.onnx was truncated or altered" in err
