"""Do alerts keep their promise? On people that the calibration never saw, query by query, view by view, group by group.

    tagclip synth crops data/others --identities 3000 --seed 10
    python -m tagclip.export.alert_scores promise data/others
    tagclip synth scene hover.mp4 --people 20 --seconds 100 --altitude 8 --pitch 35 --size 640x480 --hover --seed 101
    python -m tagclip.export.alert_scores scenes hover.mp4

A false alarm is anybody but the one person whom the query was written of, look-alikes included.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from tagclip.calibration.collect import ANNOTATIONS, of_folder, read_listed
from tagclip.export.alert_scenes import play
from tagclip.runtime.alerts import TYPICAL, Promise, standing
from tagclip.runtime.background import Background, People, read_background
from tagclip.runtime.bundle import open_bundle
from tagclip.runtime.cli import run
from tagclip.runtime.encoder import AUTO, ImageEncoder, TextEncoder
from tagclip.runtime.judge import Yardstick, yardsticks
from tagclip.runtime.terminal import aligned
from tagclip.runtime.views import VIEWS
from tagclip.train.datasets.layout import find_layouts, read_rows
from tagclip.train.progress import bar

QUERIES = 200
RATES = (10.0, 3.0, 1.0)  # false alarms in 1,000 people
RECALL_AT = 1e-3
HEIGHTS_PX = (40, 80, 120)
# Queries that are no description of somebody, or hardly one.
ODD = (
    "red",
    "person",
    "gravel and fog",
    "ing the of ly",
    "a bald man with long blond hair in a red green jacket",
    "a woman in a red jacket and blue jeans -backpack",
    "a man in a black coat. he wears grey trousers and brown shoes. he carries a large white bag in his left hand.",
)
SKIN = (
    (0.35, "dark"),
    (0.6, "medium"),
    (9.0, "light"),
)  # relative luminance of the drawn colour, below which

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Person:
    """One person of an annotated folder, from one view, as the background's rows are ordered.

    Attributes:
        row: the first picture's annotation.
        height_px: of the pictures, on average.
    """

    identity: int
    row: dict[str, Any]
    height_px: float


def people_of(folder: Path) -> dict[str, list[Person]]:
    """By view, in the order of `of_folder`'s rows.

    Raises:
        DataError: a picture cannot be read.
    """
    found: dict[str, dict[int, list[dict[str, Any]]]] = {view: defaultdict(list) for view in VIEWS}
    for name in ANNOTATIONS:
        path = folder / name
        for row in json.loads(path.read_text(encoding="utf-8")) if path.exists() else []:
            found[VIEWS[row["cam_id"]]][row["id"]].append(row)
    return {
        view: [
            Person(
                who,
                rows[0],
                float(np.mean([read_listed(folder / "images" / row["file_path"]).shape[0] for row in rows])),
            )
            for who, rows in people.items()
        ]
        for view, people in found.items()
    }


def queries_of(folder: Path) -> list[tuple[int, str]]:
    """(identity, caption) of up to QUERIES people, one each, of the splits whose captions say nearly all."""
    found: dict[int, str] = {}
    for layout in find_layouts(folder, None):
        for split in ("test", "val"):
            for _, row in read_rows(layout, split):
                found.setdefault(row["id"], row["captions"][0])
    return list(found.items())[:QUERIES]


def promise(
    people: dict[str, list[Person]],
    own: Background,
    asked: list[tuple[int, str]],
    vectors: NDArray[np.float32],
    sticks: dict[str, list[Yardstick]],
) -> list[dict[str, Any]]:
    """For each view and rate: what was promised, what came, and in how many queries within a factor of 2.

    Args:
        people: by view, in the order of the rows of `own`, their vectors.
        asked: identity and caption of each query; `vectors` (Q, D) are the captions'.
        sticks: by view, one of each query.
    """
    rng = np.random.default_rng(0)
    table = []
    for view in VIEWS:
        chances = _chances(sticks[view], vectors, own.of(view))
        meant = np.array([[person.identity == who for person in people[view]] for who, _ in asked])
        for rate in RATES:
            counts = ((chances <= rate / 1000) & ~meant).sum(1)
            expected = rate / 1000 * (~meant).sum(1)
            ratio = counts / expected
            luck = rng.poisson(expected, (2000, len(expected))) / expected
            within = (ratio >= 0.5) & (ratio <= 2)
            table.append(
                {
                    "view": view,
                    "promised": rate,
                    "came": round(1000 * float(counts.sum() / (~meant).sum()), 3),
                    "within_2": round(100 * float(within.mean()), 1),
                    "over_2": round(100 * float((ratio > 2).mean()), 1),
                    "within_2_by_chance": round(100 * float(((luck >= 0.5) & (luck <= 2)).mean()), 1),
                    "recall": round(100 * float((chances <= rate / 1000)[meant].mean()), 1),
                }
            )
    return table


def odd(
    own: Background, vectors: NDArray[np.float32], sticks: dict[str, list[Yardstick]]
) -> list[dict[str, Any]]:
    """What ODD queries raise among 1,000 people, in whom everybody is a false alarm; arguments of `promise`."""
    table = []
    chances = {view: _chances(sticks[view], vectors, own.of(view)) for view in VIEWS}
    for k, text in enumerate(ODD):
        row: dict[str, Any] = {"query": text}
        for view in VIEWS:
            for rate in (10.0, 1.0):
                row[f"{view}, {rate:g}"] = round(1000 * float((chances[view][k] <= rate / 1000).mean()), 2)
        table.append(row)
    return table


def groups(
    people: dict[str, list[Person]],
    own: Background,
    asked: list[tuple[int, str]],
    vectors: NDArray[np.float32],
    sticks: dict[str, list[Yardstick]],
) -> list[dict[str, Any]]:
    """Recall and false alarms at RECALL_AT by what is known of the people who were drawn; arguments of `promise`."""
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    alarms: dict[tuple[str, str], list[float]] = defaultdict(list)
    for view in VIEWS:
        chances = _chances(sticks[view], vectors, own.of(view))
        for k, person in enumerate(people[view]):
            others = np.array([who != person.identity for who, _ in asked])
            for group in _groups(view, person):
                alarms[group].append(1000 * float((chances[others, k] <= RECALL_AT).mean()))
                hits[group] += (chances[~others, k] <= RECALL_AT).tolist()
    return [
        {
            "group": kind,
            "value": value,
            "people": len(alarms[kind, value]),
            "asked": len(hits[kind, value]),
            "recall": round(100 * float(np.mean(hits[kind, value])), 1) if hits[kind, value] else None,
            "false_alarms": round(float(np.mean(alarms[kind, value])), 2),
        }
        for kind, value in sorted(alarms)
    ]


def _chances(sticks: list[Yardstick], vectors: NDArray[np.float32], own: People) -> Floats:
    """(Q, N): of each query and person the least chance of a false alarm of two looks: one picture, and several."""
    one, many = (vectors @ own.one.T).astype(np.float64), (vectors @ own.many.T).astype(np.float64)
    return np.stack(
        [
            np.minimum(stick.p_values(first, False), stick.p_values(later, True))
            for stick, first, later in zip(sticks, one, many, strict=True)
        ]
    )


def _groups(view: str, person: Person) -> list[tuple[str, str]]:
    attributes = person.row["attributes"]
    elevation = person.row["elevation_deg"]
    low = 20 * int(min(max(elevation, 0.0), 89.0) // 20)
    tall = next((limit for limit in HEIGHTS_PX if person.height_px < limit), None)
    light = float(np.array(attributes["skin_rgb"]) @ (0.2126, 0.7152, 0.0722)) / 255
    return [
        ("view", view),
        ("elevation", "under 0" if elevation < 0 else f"{low:02d} to {min(low + 20, 90)}"),
        ("height, pixels", f"under {tall:3d}" if tall else f"{HEIGHTS_PX[-1]} and more"),
        ("skin", next(name for limit, name in SKIN if light < limit)),
        ("build", str(attributes["build"])),
        ("age", str(attributes["age"])),
    ]


def _shown(rows: list[dict[str, Any]]) -> str:
    table = [tuple(rows[0])] + [tuple("-" if v is None else str(v) for v in row.values()) for row in rows]
    return aligned([tuple(name.replace("_", " ") for name in table[0]), *table[1:]], {0, 1})


@click.group()
def main() -> None:
    """Measure alerts."""


@main.command("promise")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path))
@click.option("--background", type=click.Path(path_type=Path), help="Default: the bundle's own.")
@click.option("--json", "as_json", is_flag=True)
def promise_command(folder: Path, bundle: Path | None, background: Path | None, as_json: bool) -> None:
    """On the people of the annotated FOLDER, whom neither training nor calibration saw."""
    opened = open_bundle(bundle)
    stick_of = read_background(opened, background)
    with bar() as tick:
        encoders = {name: ImageEncoder(opened, name) for name in (*VIEWS, AUTO)}
        own = of_folder(
            folder, lambda name: encoders[name], opened.encoder_id, lambda a, b: tick("embed", a, b, "")
        )
    asked = queries_of(folder)
    encoder = TextEncoder(opened)
    typical = encoder.embed(TYPICAL)

    def ready(texts: list[str]) -> tuple[NDArray[np.float32], dict[str, list[Yardstick]]]:
        vectors = np.stack([query.vector for query in standing(texts, encoder, stick_of, Promise(1.0))])
        return vectors, {view: yardsticks(vectors, stick_of.of(view), typical) for view in VIEWS}

    vectors, sticks = ready([text for _, text in asked])
    people = people_of(folder)
    told = {
        "promise": promise(people, own, asked, vectors, sticks),
        "odd": odd(own, *ready(list(ODD))),
        "groups": groups(people, own, asked, vectors, sticks),
    }
    click.echo(json.dumps(told) if as_json else "\n\n".join(_shown(rows) for rows in told.values()))


@main.command("scenes")
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--background", type=click.Path(path_type=Path), help="Default: the bundle's own.")
@click.option("--view", type=click.Choice(["aerial", "ground", "auto"]), default="aerial", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def scenes_command(videos: tuple[Path, ...], background: Path | None, view: str, as_json: bool) -> None:
    """On rendered VIDEOS of `tagclip synth scene`; who is missed at the lowest rate is listed."""
    stick_of = read_background(open_bundle(None), background)
    with bar() as tick:
        played = [one for video in videos for one in play(video, stick_of, view, tick)]
    told = {
        "scenes": [one.counts(rate) for one in played for rate in RATES],
        "missed": [row for one in played for row in one.missed(min(RATES))],
    }
    click.echo(json.dumps(told) if as_json else "\n\n".join(_shown(rows) for rows in told.values() if rows))


if __name__ == "__main__":
    run(main, "python -m tagclip.export.alert_scores")
