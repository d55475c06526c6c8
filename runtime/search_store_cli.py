"""`tagclip search TEXT STORE`: the part of the command that asks a device's store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tagclip.runtime.search_store import StoredHit
    from tagclip.runtime.vector_scan import Where


def parse_where(after: str | None, before: str | None, cameras: tuple[str, ...], near: str | None) -> Where:
    """The options of the same names. Raises: QueryError, one of them cannot be read."""
    from tagclip.runtime.vector_scan import Where, parse_near
    from tagclip.runtime.when import parse_when

    now_s = time.time()
    return Where(
        after_s=parse_when(after, now_s) if after else None,
        before_s=parse_when(before, now_s) if before else None,
        cameras=frozenset(cameras) if cameras else None,
        near=parse_near(near) if near else None,
    )


def search_stored(
    query: str,
    path: Path,
    where: Where,
    bundle: Path | None,
    top: int,
    out: Path | None,
    as_json: bool,
    engine: str = "cpu",
    picture_keys: tuple[Path, ...] = (),
) -> None:
    """Search the store at `path`; print what was found, and write it to the folder `out`.

    Args:
        engine: of the text encoder, as `Engines` takes it; "auto" says which it took.
        picture_keys: files of the keys of its pictures, which only `out` needs.
    """
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.encoder import TextEncoder
    from tagclip.runtime.engines import AUTO
    from tagclip.runtime.picture_key import read_picture_keys
    from tagclip.runtime.search_store import search_store
    from tagclip.runtime.store import TrackStore

    opened = open_bundle(bundle)
    text = TextEncoder(opened, engine=engine)
    if engine == AUTO:
        click.echo(f"the encoder runs on {text.engine.name}", err=True)
    with TrackStore(path, read_only=True, keys=read_picture_keys(picture_keys)) as store:
        dim, pictures = opened.manifest.embedding_dim, out is not None
        found = search_store(store, query, text, opened.encoder_id, dim, top, where, pictures=pictures)
    names = [f"crops/{hit.rank:02d}.jpg" for hit in found.hits]
    result = {
        "query": query,
        "encoder_id": opened.encoder_id,
        "view": "auto",
        "results": [
            hit.to_json(None if out is None else str(out / name))
            for hit, name in zip(found.hits, names, strict=True)
        ],
    }
    lines = json.dumps(result, ensure_ascii=False, indent=2)
    compared = f"{found.compared:,} of {found.stored:,} stored tracks compared"
    if out is not None:
        _write(out, query, f"{compared}, encoder {opened.encoder_id[:12]}", found.hits, names, lines)
    click.echo(lines if as_json else _table(found.hits))
    click.echo(compared, err=True)
    if out is not None:
        click.echo(f"written: {out}", err=True)


def _table(hits: list[StoredHit]) -> str:
    from tagclip.runtime.terminal import aligned
    from tagclip.runtime.when import show_span, show_when

    if not hits:
        return "nobody found"
    rows = [("rank", "score", "camera", "first seen", "for", "place", "track")]
    for hit in hits:
        track, place = hit.track, hit.track.place
        where = (
            f"{place.latitude_deg:.5f},{place.longitude_deg:.5f} ± {place.error_m:.0f} m" if place else "-"
        )
        span = show_span(track.end_s - track.start_s)
        rows.append(
            (
                str(hit.rank),
                f"{hit.score:.3f}",
                track.camera,
                show_when(track.start_s),
                span,
                where,
                str(track.id),
            )
        )
    return aligned(rows, left={2, 3, 5, 6})


def _write(out: Path, query: str, subtitle: str, hits: list[StoredHit], names: list[str], lines: str) -> None:
    """The folder of results: sheet, crops, JSON."""
    from tagclip.runtime.files import folder_atomic
    from tagclip.runtime.reindex import decoded
    from tagclip.runtime.sheet import Card, draw_sheet, image_bytes
    from tagclip.runtime.when import show_when

    cards = []
    with folder_atomic(out) as work:
        (work / "crops").mkdir()
        for hit, name in zip(hits, names, strict=True):
            (work / name).write_bytes(hit.thumbnail)
            seen = [f"{hit.track.camera}, {hit.track.view}", show_when(hit.track.best_s)]
            cards.append(Card(hit.rank, hit.score, seen, [decoded(hit.thumbnail, f"track {hit.track.id}")]))
        (work / "sheet.png").write_bytes(image_bytes(draw_sheet(query, subtitle, cards), ".png"))
        (work / "results.json").write_text(lines + "\n", encoding="utf-8")
