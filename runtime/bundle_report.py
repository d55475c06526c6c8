"""The retrieval numbers that a bundle brings along in report.json."""

from __future__ import annotations

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.fields import parse_object

METRICS = ("r1", "r5", "r10", "map", "minp", "queries", "gallery")
GALLERIES = ("all", "aerial", "ground")


def retrieval(bundle: Bundle) -> dict[str, dict[str, float]]:
    """Gallery -> metric -> value (percent, or a count); empty where the report has none.

    Raises:
        BundleManifestError: report.json is not one JSON object.
        BundleIntegrityError: it changed after the bundle was opened.
    """
    if not bundle.has("report.json"):
        return {}
    found = parse_object(bundle.read_file("report.json"), "report.json").get("retrieval")
    rows = found.items() if isinstance(found, dict) else ()
    return {
        view: {key: row[key] for key in METRICS if isinstance(row.get(key), (int, float))}
        for view, row in rows
        if view in GALLERIES and isinstance(row, dict)
    }
