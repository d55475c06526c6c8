"""Hits for the eye: the contact sheet of them, and the video again with their boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.annotate import Mark, write_marked
from tagclip.runtime.errors import HitError
from tagclip.runtime.hit import Hit
from tagclip.runtime.sheet import Card, draw_sheet, image_bytes
from tagclip.runtime.source import VideoSource, decode_image
from tagclip.runtime.store import TrackStore
from tagclip.runtime.when import show_when

MOST_CARDS = 150  # 50 rows: a JPEG may be 65,535 pixels high, and a sheet is for one look
SHOWN_S = 1.0  # of the video, around the picture of a hit


@dataclass(frozen=True)
class Sheet:
    """The contact sheet as a file.

    Attributes:
        data: PNG or JPEG.
        drawn: hits on it.
        left_out: hits beyond MOST_CARDS.
        without_picture: of those drawn: the store has their track no longer.
    """

    data: bytes
    drawn: int
    left_out: int
    without_picture: int


@dataclass(frozen=True)
class Drawn:
    """How many hits the video shows, and of how many it ends before their second."""

    drawn: int
    left_out: int


def ranked(hits: Iterable[Hit]) -> list[Hit]:
    """The least likely by chance first; scores of different queries and views do not compare, p-values do."""
    return sorted(hits, key=lambda hit: (hit.p_value, -hit.score, hit.start_s))


def draw_hits(hits: Sequence[Hit], store: TrackStore, suffix: str) -> Sheet:
    """The contact sheet of hits, `ranked` already, with their pictures out of the store.

    Args:
        suffix: ".png" or ".jpg".

    Raises:
        StoreError: the store is damaged.
    """
    queries = {hit.query for hit in hits}
    shown = hits[:MOST_CARDS]
    cards, missing = [], 0
    for rank, hit in enumerate(shown, 1):
        jpeg = store.thumbnail_of(hit.track_id)
        image = None if jpeg is None else decode_image(jpeg)
        missing += image is None
        lines = [*lines_of(hit), *(["no picture in the store"] if image is None else [])]
        if len(queries) > 1:
            lines.append(hit.query)
        cards.append(Card(rank, hit.score, lines, [] if image is None else [image]))
    heading = next(iter(queries)) if len(queries) == 1 else f"Hits of {len(queries)} queries"
    left_out = len(hits) - len(shown)
    beyond = f", {left_out:,} more left out" if left_out else ""
    subtitle = f"{len(shown)} hits, the least likely by chance first{beyond}"
    return Sheet(image_bytes(draw_sheet(heading, subtitle, cards), suffix), len(shown), left_out, missing)


def lines_of(hit: Hit) -> list[str]:
    """What the sheet says of a hit beside rank and score: review, false alarms, local time with zone, camera, place."""
    rate = hit.false_alarms_per_hour
    said = f"by chance: p {hit.p_value:.2g}" if rate is None else f"{rate:.3g} false alarms an hour"
    place = hit.place
    where = (
        f"{place.latitude_deg:.5f},{place.longitude_deg:.5f} +-{place.error_m:.0f} m"
        if place
        else "place unknown"
    )
    return [hit.review, said, show_when(hit.best_s), f"{hit.camera[:60]}, {hit.view}", where]


def draw_video(
    hits: Sequence[Hit], source: VideoSource, path: Path, progress: Callable[[int, int], None] | None = None
) -> Drawn:
    """The video again: for the second around its picture each hit has its box, with rank, score and query.

    Args:
        hits: `ranked` already, all of the camera whose footage `source` is.

    Raises:
        HitError: they are not of this video: another camera's too, or frames of another size.
        OutputError: the file cannot be written.
    """
    check_video(hits, source)
    marks: dict[int, list[Mark]] = {}
    for rank, hit in enumerate(hits, 1):
        mark = Mark(hit.box_xywh_px, rank, f"{hit.score:.2f}  {hit.query}")
        for frame in shown_frames(hit, source.fps):
            marks.setdefault(frame, []).append(mark)
    frames = write_marked(source, marks, path, progress)
    beyond = beyond_end(hits, source.fps, frames)
    return Drawn(len(hits) - beyond, beyond)


def shown_frames(hit: Hit, fps: float) -> range:
    """The frames in which a hit has its box."""
    half = round(SHOWN_S * fps / 2)
    return range(max(hit.frame - half, 0), hit.frame + half + 1)


def beyond_end(hits: Iterable[Hit], fps: float, frames: int) -> int:
    """How many hits a video of so many frames shows in none of them."""
    return sum(shown_frames(hit, fps).start >= frames for hit in hits)


def check_video(hits: Sequence[Hit], source: VideoSource) -> None:
    """Whether hits can be of this video; to ask before long work.

    Raises:
        HitError: they are of several cameras, or of frames of another size: boxes would be drawn around nobody.
    """
    cameras = sorted({hit.camera for hit in hits})
    if len(cameras) > 1:
        raise HitError(
            f"hits of {len(cameras)} cameras ({', '.join(map(repr, cameras[:5]))}), a video is of one; name it"
        )
    size = (source.width_px, source.height_px)
    if wrong := next((hit for hit in hits if hit.frame_px != size), None):
        found, own = ("x".join(map(str, px)) for px in (wrong.frame_px, size))
        raise HitError(
            f"hits of frames of {found}, {source.path} has {own}: name the video that they were found in"
        )
