"""`tagclip bench`: how long it takes from a frame to an alert, on this machine, with this very bundle."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import click


def _people(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d{0,2}(,[1-9]\d{0,2})*", text):
        raise click.BadParameter(f"expected numbers from 1 to 999 such as 1,5,10,20, found {text!r}")
    return tuple(dict.fromkeys(int(number) for number in text.split(",")))


def _size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if not found or min(int(found[1]), int(found[2])) < 32:
        raise click.BadParameter(f"expected WIDTHxHEIGHT in pixels such as 768x576, found {text!r}")
    return int(found[1]), int(found[2])


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option(
    "--engine",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="cpu, cuda, ort-tensorrt, openvino, tensorrt, tensorrt-rtx; auto says which it took.",
)
@click.option(
    "--view",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "aerial", "ground"]),
    help="As for `tagclip run`; auto runs the encoders of both views where the bundle has two.",
)
@click.option(
    "--detector",
    default="motion",
    show_default=True,
    metavar="motion|person|FILE.onnx",
    help="As for `tagclip run`; it works on every frame.",
)
@click.option(
    "--people",
    default="1,5,10,20",
    show_default=True,
    callback=_people,
    help="How many people are in every frame, one pass each.",
)
@click.option("--size", "size_px", callback=_size, metavar="WxH", help="Scale frames, before they are timed.")
@click.option("--frames", default=60, show_default=True, type=click.IntRange(1, 100_000), help="Of a pass.")
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1, 1000), help="Of all passes, in turn."
)
@click.option("--queries", default=20, show_default=True, type=click.IntRange(1, 100_000), help="That stand.")
@click.option(
    "--against",
    multiple=True,
    type=click.Choice(["open_clip", "onnxruntime", "openvino"]),
    help="Time an encoder of open_clip beside ours, alone and in every frame: eager in PyTorch, or exported. Several "
    "may be named.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Annotations: accuracy of this engine on their test split.",
)
@click.option("--out", type=click.Path(path_type=Path), help="File for all raw times, *.json.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, without the raw times.")
def bench(bundle: Path | None, source: Path | None, out: Path | None, as_json: bool, **given: Any) -> None:
    """Time BUNDLE from a frame of SOURCE, a video file, to the decision about everybody in it.

    Without them, the bundle and the clip that ship; a single file is SOURCE. First the video as it is, then with
    exactly --people people in every frame, each of whom is embedded anew in every frame: the most a frame can ask for.

    python -m tagclip.runtime.bench_page makes a page of the files that --out writes.
    """
    from tagclip.runtime.bench_run import Settings, benchmark
    from tagclip.runtime.bench_scene import EXAMPLE
    from tagclip.runtime.errors import OutputError
    from tagclip.runtime.files import write_atomic
    from tagclip.runtime.terminal import Progress

    if source is None and bundle is not None and bundle.is_file():
        bundle, source = None, bundle
    if out is not None and (out.suffix != ".json" or out.is_dir()):
        raise OutputError(f"{out}: expected a file named *.json; rename it")
    shown, doing = Progress("timing", "passes"), "passes"

    def progress(noun: str, done: int, total: int) -> None:
        nonlocal shown, doing
        if noun != doing:
            shown.end()
            shown, doing = Progress("embedding" if noun == "pictures" else "timing", noun), noun
        shown.update(done, total)

    try:
        raw = benchmark(Settings(bundle=bundle, source=source or EXAMPLE, **given), _command(), progress)
    finally:
        shown.end()
    if out is not None:
        write_atomic(out, json.dumps(raw, separators=(",", ":")).encode() + b"\n")
    if as_json:
        told = {name: value for name, value in raw.items() if name not in ("passes", "encoders")}
        click.echo(json.dumps(told, indent=2))
        return
    from tagclip.runtime.bench_report import as_text

    click.echo(as_text(raw))


def _command() -> list[str]:
    """How this was called, to be repeated; the name of the program without its folder."""
    return ["tagclip", *map(shlex.quote, sys.argv[1:])]
