"""What differs between two bundles, as JSON and as lines for a person."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.bundle_manifest import SIGNATURE
from tagclip.runtime.bundle_report import GALLERIES, METRICS, retrieval


def diff_bundles(a: Bundle, b: Bundle) -> dict[str, Any]:
    """Compare two opened bundles.

    Returns:
        `a`, `b`: path, name and encoder_id of each.
        `comparable`: whether vectors of the two may be compared, which is when their encoder ids are equal.
        `fields`: dotted name in bundle.json -> {"a", "b"}, those that differ, towers apart; absent is null.
        `towers`: name -> {"a", "b", "same_graph"}; of each its precision, parameters, bytes and sha256, null if it
            has none.
        `retrieval`: gallery -> metric -> {"a", "b", "difference"} (b minus a), null where a number is absent.
        `files`: names `added` (in b only), `removed` (in a only), `changed`; engines are not looked at.

    Raises:
        BundleManifestError: a report.json that is no JSON object.
    """
    facts = {"a": _fields(a), "b": _fields(b)}
    names = sorted({*facts["a"], *facts["b"]})
    return {
        "a": _who(a),
        "b": _who(b),
        "comparable": a.encoder_id == b.encoder_id,
        "fields": {
            name: {"a": facts["a"].get(name), "b": facts["b"].get(name)}
            for name in names
            if facts["a"].get(name) != facts["b"].get(name)
        },
        "towers": _towers(a, b),
        "retrieval": _retrieval(retrieval(a), retrieval(b)),
        "files": _files(_digests(a), _digests(b)),
    }


def describe(result: Mapping[str, Any]) -> list[str]:
    """The lines for a person."""
    lines = [f"{side}  {who['name']}  {who['encoder_id']}  ({who['path']})" for side, who in _sides(result)]
    lines.append(
        "same encoder id: vectors of the two may be compared"
        if result["comparable"]
        else "different encoder ids: vectors of one MUST NOT be compared with vectors of the other"
    )
    fields = {name: pair for name, pair in result["fields"].items() if name != "encoder_id"}
    if fields:
        lines += ["", "bundle.json"]
    for name, pair in fields.items():
        # json.dumps escapes control characters: provenance is free text and goes to a terminal.
        key = json.dumps(name)[1:-1]
        lines += [f"  {key}", *(f"    {side}  {json.dumps(pair[side])}" for side in ("a", "b"))]
    lines += ["", f"{'tower':<14}   {'precision':<11}{'parameters':>12}{'MB':>9}  SHA-256"]
    for name, pair in result["towers"].items():
        for side, tower in _sides(pair):
            if tower is None:
                lines.append(f"{name:<14}{side}  none")
                continue
            lines.append(
                f"{name:<14}{side}  {tower['precision']:<11}{tower['parameters']:>12,}{tower['bytes'] / 1e6:>9.2f}"
                f"  {tower['sha256'][:12]}{'  the same graph' if side == 'b' and pair['same_graph'] else ''}"
            )
    if result["retrieval"]:
        lines += ["", f"{'retrieval':<14}   " + "".join(f"{metric:>9}" for metric in METRICS)]
    for view, row in result["retrieval"].items():
        lines += [f"{view:<14}{side}  " + _cells(row, side, "9.5g") for side in ("a", "b")]
        lines.append(f"{view:<11}b - a  " + _cells(row, "difference", "+9.5g"))
    lines += ["", *(f"{kind:<8} {', '.join(names)}" for kind, names in result["files"].items() if names)]
    if not any(result["files"].values()):
        lines.append("all files are the same")
    return lines


def _sides(result: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [("a", result["a"]), ("b", result["b"])]


def _who(bundle: Bundle) -> dict[str, str]:
    return {"path": str(bundle.path), "name": bundle.manifest.name, "encoder_id": bundle.encoder_id}


def _fields(bundle: Bundle) -> dict[str, Any]:
    """bundle.json without its towers, nested objects as dotted names; an empty object stays one."""
    value = bundle.manifest.to_json()
    del value["towers"]
    flat: dict[str, Any] = {}
    # No recursion: provenance is somebody else's, as deep as they like.
    waiting: list[tuple[str, Any]] = list(value.items())
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, dict) and item:
            waiting += [(f"{name}.{key}", inner) for key, inner in item.items()]
        else:
            flat[name] = item
    return flat


def _towers(a: Bundle, b: Bundle) -> dict[str, Any]:
    sides = {"a": _graphs(a), "b": _graphs(b)}
    result = {}
    for name in sorted({*sides["a"], *sides["b"]}):
        one, other = sides["a"].get(name), sides["b"].get(name)
        same = one is not None and other is not None and one["sha256"] == other["sha256"]
        result[name] = {"a": one, "b": other, "same_graph": same}
    return result


def _graphs(bundle: Bundle) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "precision": tower.facts.precision,
            "parameters": tower.facts.parameters,
            "bytes": (bundle.path / tower.file).stat().st_size,
            "sha256": bundle.sha256[tower.file],
        }
        for name, tower in bundle.manifest.towers.items()
    }


def _digests(bundle: Bundle) -> dict[str, str]:
    """File name -> SHA-256, SIGNATURE too, which SHA256SUMS cannot list."""
    signature = bundle.path / SIGNATURE
    own = {SIGNATURE: hashlib.sha256(signature.read_bytes()).hexdigest()} if signature.is_file() else {}
    return {**bundle.sha256, **own}


def _files(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, list[str]]:
    return {
        "added": sorted(set(b) - set(a)),
        "removed": sorted(set(a) - set(b)),
        "changed": sorted(name for name in set(a) & set(b) if a[name] != b[name]),
    }


def _retrieval(a: dict[str, dict[str, float]], b: dict[str, dict[str, float]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for view in (view for view in GALLERIES if view in a or view in b):
        result[view] = {}
        for metric in METRICS:
            one, other = a.get(view, {}).get(metric), b.get(view, {}).get(metric)
            if one is not None or other is not None:
                change = None if one is None or other is None else round(other - one, 6)
                result[view][metric] = {"a": one, "b": other, "difference": change}
    return result


def _cells(row: Mapping[str, Mapping[str, float | None]], key: str, form: str) -> str:
    values = [row[metric][key] if metric in row else None for metric in METRICS]
    return "".join(f"{'-':>9}" if value is None else f"{value:>{form}}" for value in values)
