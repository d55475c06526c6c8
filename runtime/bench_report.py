"""What the raw times of a benchmark come to: percentiles, frames a second, ratios; and the same for reading."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tagclip.runtime.bench import LATENCY, STAGES
from tagclip.runtime.bench_encoders import OURS
from tagclip.runtime.bench_machine import mean_watts
from tagclip.runtime.terminal import aligned

FORMAT = "tagclip-bench 2"  # of a raw file
PERCENTILES = (50, 95, 99)
FOUND = "as found"  # people: as many as the detector finds
BUSY_PART = 0.5  # of the cores, by the load before the benchmark
UNEVEN = 0.15  # how far rounds may lie apart

Raw = Mapping[str, Any]


def summary(raw: Raw) -> dict[str, Any]:
    """The numbers that stand in tables, from the raw times alone.

    Returns:
        "pipeline": for each encoder and number of people {"encoder", "people", "frames", "boxes" (mean of a frame),
        "latency_ms" and "stages_ms" {stage: ...} (each {"p50", "p95", "p99"}, None without a time), "fps", "uneven"
        (how far the rounds' medians lie apart, relative to the middle one), "watts" {rail: mean}};
        "encoders": for each batch {"batch", "ms" and "images_per_s" {name: median}, "ratio" {name: how many times ours
        takes}, "ratios" {name: of each round}};
        "hottest_c", "mhz" [least, most] (None where unknown); "warnings".
    """
    passes: Sequence[Raw] = raw["passes"]
    pipeline = []
    for encoder, people in dict.fromkeys((one["encoder"], one["people"]) for one in passes):
        same = [one for one in passes if (one["encoder"], one["people"]) == (encoder, people)]
        pipeline.append({"encoder": encoder} | _pipeline(people, same))
    looks = [look for one in passes for look in one["looks"]]
    mhz = [value for look in looks for value in look.get("mhz", [])]
    heat = [value for look in looks for value in look.get("temperature_c", {}).values()]
    found = {
        "pipeline": pipeline,
        "encoders": [_encoders(row) for row in raw["encoders"]],
        "hottest_c": max(heat, default=None),
        "mhz": [min(mhz), max(mhz)] if mhz else None,
    }
    return found | {"warnings": _warnings(raw, found, looks)}


def _pipeline(people: int | None, passes: Sequence[Raw]) -> dict[str, Any]:
    times: dict[str, list[int]] = {
        name: [ns for one in passes for ns in one["times_ns"][name]] for name in (*STAGES, LATENCY)
    }
    boxes = [count for one in passes for count in one["boxes"]]
    # Without anybody in the frame there is nothing to be alerted of.
    alerts = [ns for ns, count in zip(times[LATENCY], boxes, strict=True) if count]
    middles = [statistics.median(one["times_ns"][LATENCY]) for one in passes if one["times_ns"][LATENCY]]
    # Keeping people comes once in many frames, after the alert.
    busy_ns = sum(statistics.fmean(times[name]) for name in STAGES if name != "store" and times[name])
    watts: dict[str, list[float]] = {}
    for one in passes:
        for rail, value in mean_watts(one["looks"]).items():
            watts.setdefault(rail, []).append(value)
    return {
        "people": people,
        "frames": len(boxes),
        "boxes": statistics.fmean(boxes) if boxes else 0.0,
        "latency_ms": _percentiles(alerts),
        "stages_ms": {name: _percentiles(times[name]) for name in STAGES},
        "fps": 1e9 / busy_ns if busy_ns else None,
        "uneven": (max(middles) - min(middles)) / statistics.median(middles) if middles else None,
        "watts": {rail: statistics.fmean(values) for rail, values in watts.items()},
    }


def _percentiles(times_ns: Sequence[int]) -> dict[str, float] | None:
    if not times_ns:
        return None
    values = np.percentile(np.array(times_ns) / 1e6, PERCENTILES)
    return {f"p{p}": float(value) for p, value in zip(PERCENTILES, values, strict=True)}


def _encoders(row: Raw) -> dict[str, Any]:
    of_round = {
        name: [statistics.median(times) for times in rounds] for name, rounds in row["times_ns"].items()
    }
    middle = {name: statistics.median(times) for name, times in of_round.items()}
    ratios = {
        name: [theirs / ours for theirs, ours in zip(times, of_round[OURS], strict=True)]
        for name, times in of_round.items()
        if name != OURS
    }
    return {
        "batch": row["batch"],
        "ms": {name: ns / 1e6 for name, ns in middle.items()},
        "images_per_s": {name: row["batch"] * 1e9 / ns for name, ns in middle.items()},
        "ratio": {name: statistics.median(values) for name, values in ratios.items()},
        "ratios": ratios,
    }


def _warnings(raw: Raw, found: Raw, looks: Sequence[Raw]) -> list[str]:
    """Why the numbers may be worse, or less certain, than this machine's best."""
    machine, warnings = raw["machine"], []
    if machine["load"] > BUSY_PART * machine["cores"]:
        warnings.append(
            f"the machine was busy before the benchmark began (load {machine['load']:g} on "
            f"{machine['cores']} cores): times are too long; run it again on an idle one"
        )
    slowed = sorted({name for look in looks for name in look.get("throttled") or ()})
    if slowed:
        warnings.append(f"the machine slowed itself down meanwhile: {', '.join(slowed)}")
    uneven = [row for row in found["pipeline"] if row["encoder"] == OURS and (row["uneven"] or 0.0) > UNEVEN]
    if uneven:
        worst = max(uneven, key=lambda row: row["uneven"])
        warnings.append(
            f"rounds lie apart by up to {worst['uneven']:.0%} ({people_text(worst['people'])}): the machine did other "
            "work, or changed its clock"
        )
    return warnings


def people_text(people: int | None) -> str:
    """Such as "5 people"; "as found" for None."""
    return FOUND if people is None else f"{people} {'person' if people == 1 else 'people'}"


def as_text(raw: Raw) -> str:
    """The benchmark for reading on a terminal, 100 columns wide."""
    found, artefact, machine = raw["summary"], raw["artefact"], raw["machine"]
    mhz = found["mhz"]
    clocks = f", {mhz[0]:.0f} to {mhz[1]:.0f} MHz" if mhz else ""
    heat = f", {found['hottest_c']:.0f} C at most" if found["hottest_c"] is not None else ""
    settings = raw["settings"]
    lines = [
        f"{artefact['name']} ({artefact['encoder_id']}) on {artefact['engine']}, view {settings['view']}",
        f"{machine['cpu'] or machine['board'] or 'unknown processor'}, {machine['cores']} cores{clocks}{heat}",
        f"{settings['source']}, {settings['size_px'][0]}x{settings['size_px'][1]}, {settings['detector']}, "
        f"{settings['queries']} queries, {settings['rounds']} rounds of {settings['frames']} frames",
        "",
        "camera to alert, ms",
    ]
    rows = [("encoder", "people", "p50", "p95", "p99", *(f"{name} p50" for name in STAGES), "frames/s")]
    for row in found["pipeline"]:
        latency, stages = row["latency_ms"], row["stages_ms"]
        people = FOUND if row["people"] is None else str(row["people"])
        cells = [number(latency and latency[f"p{p}"]) for p in PERCENTILES]
        cells += [number(stages[name] and stages[name]["p50"]) for name in STAGES]
        rows.append((row["encoder"], people, *cells, number(row["fps"])))
    lines.append(aligned(rows, {0, 1}))
    lines += ["", "encoder, images/s"]
    names = list(found["encoders"][0]["ms"]) if found["encoders"] else []
    head = ("batch", *names, *(f"{name} takes" for name in names if name != OURS))
    lines.append(
        aligned(
            [
                head,
                *(
                    (
                        str(row["batch"]),
                        *(number(row["images_per_s"][name]) for name in names),
                        *(f"{row['ratio'][name]:.2f} x" for name in names if name != OURS),
                    )
                    for row in found["encoders"]
                ),
            ],
            {0},
        )
    )
    memory = raw["memory"]
    cosines = raw["self_test"]
    worst = min(cosines, key=lambda name: cosines[name])
    lines += [
        "",
        f"memory     {memory['peak_bytes'] / 1e6:.0f} MB at most, {memory['before_bytes'] / 1e6:.0f} MB before",
        f"self-test  worst cosine {cosines[worst]:.6f} ({worst})",
        *accuracy_lines(raw["accuracy"]),
        *(f"warning: {warning}" for warning in found["warnings"]),
    ]
    return "\n".join(lines)


def accuracy_lines(accuracy: Raw | None) -> list[str]:
    """A line for each gallery of the accuracy in a raw file."""
    if accuracy is None:
        return ["accuracy   not measured; --data DIR measures it on the test split of annotations"]
    return [
        f"accuracy   {gallery}: R@1 {row['r1']:.2f} %, mAP {row['map']:.2f} % ({row['queries']} queries, "
        f"{row['gallery']} pictures, embedded by {how})"
        for how, rows in accuracy["embedded"].items()
        for gallery, row in rows.items()
    ]


def number(value: float | None) -> str:
    """Three or four digits; "-" for None."""
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"
