"""A page of numbers from the raw files of `tagclip bench --out`, and from nothing else.

python -m tagclip.runtime.bench_page RAW.json... --out docs/benchmarks.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from tagclip.runtime.bench import STAGES
from tagclip.runtime.bench_encoders import OURS
from tagclip.runtime.bench_report import FORMAT, FOUND, PERCENTILES, number, summary
from tagclip.runtime.errors import SourceError, one_line

MOST_RUNS = len(ascii_uppercase)
INTRO = """# Benchmarks
Written by `python -m tagclip.runtime.bench_page` from the raw files of `tagclip bench --out`; do not edit it, run it
again (the commands are at the end). Every number is of one machine at one time: compare within a run, and take the
ratios.

* **Camera to alert** is the time from a frame's being there, decoded, until everybody in it was compared with every
  standing query. In "as found" the detector's boxes count, in the other rows exactly so many people are pasted into
  each frame; the detector works on it all the same. Every person of every frame is embedded anew, the most that a
  frame can ask for: the device embeds only the few crops that it keeps.
* **Stages**: decode the next frame, detect, track (boxes to tracks, crops cut and kept), embed, match, store (the
  frame's people as pictures and vectors on the disk, after the alert and only every few frames). Frames a second: all
  stages but store, one after the other, as the device works. With a rival's encoder in the place of ours everything
  else is the same, its frames are fewer, and nobody is stored.
* **Encoders** run on the same crops in turn, round by round, each with its own preprocessing, open_clip's with one
  thread or with one a core, whichever is faster. Ratios are the median over rounds. open_clip's have random weights,
  which change no time.
* What goes before and does not count: the first frames of each pass, and a whole round of the encoders.
"""

Raw = Mapping[str, Any]


def read_raw(path: Path) -> Raw:
    """One raw file, its summary made again from its times.

    Raises:
        SourceError: it cannot be read, or is none.
    """
    try:
        raw = json.loads(path.read_bytes())
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        return raw | {"summary": summary(raw)}
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; expected a file of `tagclip bench --out`") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        said = one_line(f"{type(error).__name__}: {error}")
        raise SourceError(
            f"{path} is no raw file of `tagclip bench --out` ({said}); write it again"
        ) from error


def page(raws: Sequence[Raw]) -> str:
    """The page in Markdown; the runs are called A, B, C in the order of `raws`, at most `MOST_RUNS`."""
    runs = dict(zip(ascii_uppercase, raws, strict=False))
    parts = [INTRO, _runs(runs), _alerts(runs), _stages(runs), _encoders(runs), _accuracy(runs), _notes(runs)]
    return "\n".join(parts)


def _runs(runs: Mapping[str, Raw]) -> str:
    rows = []
    for key, raw in runs.items():
        artefact, machine, settings = raw["artefact"], raw["machine"], raw["settings"]
        memory = machine["memory_bytes"]
        packages = machine["packages"]
        engine = next(
            (f", {name} {packages[name]}" for name in packages if name.startswith("onnxruntime")), ""
        )
        mhz, governor = raw["summary"]["mhz"], machine["governor"]
        rows.append(
            (
                key,
                f"{artefact['name']} `{artefact['encoder_id']}`, {_precisions(artefact)}",
                f"{artefact['engine']}{engine}",
                settings["view"],
                f"{settings['detector']}, {settings['size_px'][0]}x{settings['size_px'][1]}",
                f"{machine['board'] or machine['cpu'] or 'unknown'}, "
                + f"{machine['cores']} of {machine['cores_of_machine']} cores"
                + (f", {memory / 2**30:.0f} GiB" if memory else "")
                + (f", {mhz[0]:.0f} to {mhz[1]:.0f} MHz" if mhz else "")
                + (f", governor {governor}" if governor else "")
                + (f", mode {machine['power_mode']}" if machine["power_mode"] else ""),
                f"{machine['os']}, Linux {machine['kernel']}, Python {machine['python']}",
                raw["begun"][:10],
                _revision(raw["revision"]),
            )
        )
    head = ("run", "bundle", "engine", "view", "detector, frames", "machine", "system", "date", "revision")
    return "## What was run\n" + _table(head, rows)


def _alerts(runs: Mapping[str, Raw]) -> str:
    rows = []
    for key, raw in runs.items():
        for row in raw["summary"]["pipeline"]:
            latency, watts = row["latency_ms"], row["watts"]
            rows.append(
                (
                    key,
                    _encoder(raw, row),
                    _people(row),
                    *(number(latency and latency[f"p{p}"]) for p in PERCENTILES),
                    number(row["fps"]),
                    str(row["frames"]),
                    f"{raw['memory']['peak_bytes'] / 1e6:.0f}" if row["encoder"] == OURS else "-",
                    ", ".join(f"{rail} {value:.1f}" for rail, value in watts.items()) or "not shown",
                )
            )
    head = (
        "run",
        "encoder",
        "people in a frame",
        "p50",
        "p95",
        "p99",
        "frames/s",
        "frames timed",
        "memory, MB",
        "watts",
    )
    return "## Camera to alert, ms\n" + _table(head, rows)


def _stages(runs: Mapping[str, Raw]) -> str:
    rows = []
    for key, raw in runs.items():
        for row in raw["summary"]["pipeline"]:
            cells = [
                f"{number(found['p50'])} ({number(found['p95'])})" if found else "-"
                for found in (row["stages_ms"][name] for name in STAGES)
            ]
            rows.append((key, _encoder(raw, row), _people(row), *cells))
    return "## Stages, ms: p50 (p95)\n" + _table(("run", "encoder", "people in a frame", *STAGES), rows)


def _encoders(runs: Mapping[str, Raw]) -> str:
    rows = []
    for key, raw in runs.items():
        artefact = raw["artefact"]
        for row in raw["summary"]["encoders"]:
            for name, ms in row["ms"].items():
                facts = raw["rivals"].get(name)
                ratios = row["ratios"].get(name)
                rows.append(
                    (
                        key,
                        f"ours: {artefact['name']}, {_precisions(artefact)}, view {raw['settings']['view']}"
                        if facts is None
                        else f"{facts['model']}, {facts['precision']}",
                        f"{artefact['engine']}" if facts is None else facts["engine"],
                        str(row["batch"]),
                        number(ms),
                        number(row["images_per_s"][name]),
                        "1"
                        if name == OURS or ratios is None
                        else f"{row['ratio'][name]:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    )
                )
    head = ("run", "encoder", "engine", "crops", "ms", "images/s", "times ours (rounds)")
    return "## Encoders on the same crops\n" + _table(head, rows)


def _accuracy(runs: Mapping[str, Raw]) -> str:
    rows = []
    for key, raw in runs.items():
        cosine = f"{min(raw['self_test'].values()):.6f}"
        found = raw["accuracy"]
        for how, galleries in (found["embedded"] if found else {}).items():
            for gallery, row in galleries.items():
                counts = f"{row['queries']} / {row['gallery']}"
                data = f"{found['data']}, {found['split']}"
                rows.append(
                    (key, cosine, data, how, gallery, counts, f"{row['r1']:.2f}", f"{row['map']:.2f}")
                )
        if not found:
            rows.append((key, cosine, "not measured", "", "", "", "", ""))
    head = ("run", "worst cosine", "data", "embedded by", "gallery", "queries / pictures", "R@1, %", "mAP, %")
    text = (
        "Of the very engine that was timed. The cosine is the smallest between its vectors and those that the bundle "
        "was made with.\n\n"
    )
    return "## Accuracy\n" + text + _table(head, rows)


def _notes(runs: Mapping[str, Raw]) -> str:
    lines = [f"* {key}: {warning}" for key, raw in runs.items() for warning in raw["summary"]["warnings"]]
    notes = "## Take with care\n" + "\n".join(lines) + "\n\n" if lines else ""
    commands = "\n".join(f"    {' '.join(raw['command'])}" for raw in runs.values())
    return (
        f"{notes}## Again\n{commands}\n\n"
        "A raw file has every single time in nanoseconds, what the machine told between frames (clocks, temperatures, "
        "watts, throttling), and the SHA-256 of what ran. `python -m tagclip.runtime.bench_spread RAW.json...` tells "
        "whether several runs agree in their ratios.\n"
    )


def _revision(commit: str | None) -> str:
    return "released" if commit is None else commit[:12] + ("+" if commit.endswith("+") else "")


def _encoder(raw: Raw, row: Raw) -> str:
    if row["encoder"] == OURS:
        return OURS
    facts = raw["rivals"][row["encoder"]]
    return f"{facts['model'].partition(',')[0]}, {facts['engine']}"


def _people(row: Raw) -> str:
    return f"{FOUND} ({row['boxes']:.1f})" if row["people"] is None else str(row["people"])


def _precisions(artefact: Raw) -> str:
    return ", ".join(dict.fromkeys(tower["precision"] for tower in artefact["towers"].values()))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = (" | ".join(one_line(cell).replace("|", "\\|") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in cells)


def main() -> None:
    """The command line."""
    import click

    from tagclip.runtime.cli import run
    from tagclip.runtime.files import write_atomic

    @click.command()
    @click.argument("raw", nargs=-1, required=True, type=click.Path(path_type=Path))
    @click.option("--out", type=click.Path(path_type=Path), required=True, help="The page, *.md.")
    def command(raw: tuple[Path, ...], out: Path) -> None:
        """Write a page from the RAW files of `tagclip bench --out`."""
        if len(raw) > MOST_RUNS:
            raise click.UsageError(f"expected at most {MOST_RUNS} files, found {len(raw)}")
        write_atomic(out, page([read_raw(path) for path in raw]).encode())
        click.echo(f"{len(raw)} run{'' if len(raw) == 1 else 's'}: {out}")

    run(command, "python -m tagclip.runtime.bench_page")


if __name__ == "__main__":
    main()
