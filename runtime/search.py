"""Ranks the people of a video, or the images of a folder, by how well a description fits them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.boxes import Detector
from tagclip.runtime.crops import Crop, CropKeeper
from tagclip.runtime.source import FolderSource, Image, VideoSource
from tagclip.runtime.target import Track
from tagclip.runtime.tracker import Tracker

SHORTEST_S = 0.5  # who is seen for less is dropped: mostly flicker
STILL_HEIGHTS = 0.4  # what moves less than this part of its height, all its life, is a ghost
FOLDER_BATCH = 64

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with frames (or images) done and the announced total, 0 when unknown."""


class Encodes(Protocol):
    """What turns crops or texts into float32 (N, D) unit rows."""

    def embed(self, items: Sequence[Any], /) -> Floats:
        """Vectors of `items`, in their order."""


@dataclass(frozen=True)
class Encoders:
    """The two sides of a bundle, and what results say about them.

    Attributes:
        image: takes a list of RGB uint8 (h, w, 3).
        text: takes a list of str.
        encoder_id: of the bundle.
        view: "auto", "aerial" or "ground".
    """

    image: Encodes
    text: Encodes
    encoder_id: str
    view: str


@dataclass(frozen=True)
class Hit:
    """One result. A hit in a folder has a `path`, no track and no times.

    Attributes:
        rank: from 1, best first.
        score: cosine of the description and the person, in [-1, 1].
        crops: what was seen, best first; not empty for a video, empty for a folder.
    """

    rank: int
    score: float
    crops: list[Crop] = field(default_factory=list)
    track: Track | None = None
    path: Path | None = None

    def to_json(self, crop_path: str | None) -> dict[str, Any]:
        """The hit as `tagclip search --json` prints it."""
        best = self.crops[0] if self.crops else None
        return {
            "rank": self.rank,
            "score": round(self.score, 4),
            "track_id": self.track.id if self.track else None,
            "start_s": round(self.track.start_s, 3) if self.track else None,
            "end_s": round(self.track.end_s, 3) if self.track else None,
            "best": {
                "time_s": round(best.time_s, 3) if best else None,
                "frame": best.frame if best else None,
                "box_xywh_px": [round(value, 1) for value in best.box_xywh_px] if best else None,
                "crop": str(self.path) if self.path else crop_path,
            },
        }


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        hits: the best, ranked.
        searched: how many people (video) or images (folder) were compared.
        warnings: what the user should know: frames lost, images or tracks left out.
        tracks: all people of a video, also those that are no hit.
    """

    query: str
    encoder_id: str
    view: str
    hits: list[Hit]
    searched: int
    warnings: list[str]
    tracks: list[Track] = field(default_factory=list)

    def to_json(self, crop_paths: Sequence[str] | None = None) -> dict[str, Any]:
        """The object that `tagclip search --json` prints; `crop_paths` are the hits' files, if written."""
        paths: Sequence[str | None] = crop_paths or [None] * len(self.hits)
        return {
            "query": self.query,
            "encoder_id": self.encoder_id,
            "view": self.view,
            "results": [hit.to_json(path) for hit, path in zip(self.hits, paths, strict=True)],
        }


@dataclass(frozen=True)
class People:
    """Everybody seen in a video: tracks by id, each with its crops, and how many were left out and why."""

    tracks: list[Track]
    crops: dict[int, list[Crop]]
    warnings: list[str]


def find_people(
    source: VideoSource, detector: Detector, *, drop_still: bool, progress: Progress | None = None
) -> People:
    """Play a video once: detect, track, keep crops.

    Args:
        source: the video.
        detector: finds people in its frames.
        drop_still: leave out what never moves; right for motion, whose ghosts stand still, wrong for other
            detectors.
        progress: called after every frame.

    Raises:
        SourceError: the video breaks in a way that cannot be read past.
    """
    tracker, keeper = Tracker(camera_moves=not drop_still), CropKeeper()
    for frame in source:
        found = detector.detect(frame).usable()
        keeper.offer(frame, found, tracker.update(frame, found))
        if progress:
            progress(frame.index + 1, source.frame_count)
    tracks, crops = [], {}
    short = still = 0
    for track in tracker.finish():
        kept = keeper.crops(track.id)
        if not long_enough(track, kept):
            short += 1
        elif drop_still and not moves(track):
            still += 1
        else:
            tracks.append(track)
            crops[track.id] = kept
    warnings = list(source.warnings)
    if short:
        warnings.append(f"{_count(short, 'track')} left out: seen for less than {SHORTEST_S:g} s")
    if still:
        warnings.append(f"{_count(still, 'track')} left out: never moved, so likely a change of the scene")
    return People(tracks, crops, warnings)


def search_video(
    source: VideoSource,
    detector: Detector,
    query: str,
    encoders: Encoders,
    *,
    top: int,
    drop_still: bool,
    progress: Progress | None = None,
) -> SearchResult:
    """Rank the people of a video.

    A person's vector is the unit mean of the crops' vectors, weighted by their quality.

    Args:
        query: a checked description.
        top: how many hits to return at most.
        drop_still, progress: as in `find_people`.

    Raises:
        SourceError: as in `find_people`.
    """
    text = encoders.text.embed([query])[0]  # first: a description without a known word fails before the work
    people = find_people(source, detector, drop_still=drop_still, progress=progress)
    scored: list[tuple[float, Track, list[Crop]]] = []
    for track in people.tracks:
        crops = people.crops[track.id]
        vectors = encoders.image.embed([crop.image for crop in crops])
        quality = np.array([crop.quality for crop in crops], np.float32)
        score = float(mean_vector(vectors, crops) @ text)
        # Cosines may be negative: shifted, so that better is larger for quality and for fit alike.
        order = np.argsort(-quality * (1.0 + vectors @ text), kind="stable")
        scored.append((score, track, [crops[index] for index in order]))
    scored.sort(key=lambda entry: (-entry[0], entry[1].id))
    hits = [Hit(rank, score, crops, track) for rank, (score, track, crops) in enumerate(scored[:top], 1)]
    return SearchResult(
        query, encoders.encoder_id, encoders.view, hits, len(scored), people.warnings, people.tracks
    )


def search_folder(
    source: FolderSource, query: str, encoders: Encoders, *, top: int, progress: Progress | None = None
) -> SearchResult:
    """Rank the images of a folder, each a crop of one person.

    Raises:
        SourceError: not one image can be decoded.
    """
    text = encoders.text.embed([query])[0]
    paths: list[Path] = []
    scores: list[float] = []
    batch: list[Image] = []

    def embed_batch() -> None:
        if batch:
            scores.extend((encoders.image.embed(batch) @ text).tolist())
            batch.clear()
        if progress:
            progress(len(scores) + len(source.skipped), len(source.paths))

    for path, image in source:
        paths.append(path)
        batch.append(image)
        if len(batch) == FOLDER_BATCH:
            embed_batch()
    embed_batch()
    order = sorted(range(len(paths)), key=lambda index: (-scores[index], paths[index]))[:top]
    hits = [Hit(rank, scores[index], path=paths[index]) for rank, index in enumerate(order, 1)]
    warnings = []
    if source.skipped:
        skipped = _count(len(source.skipped), "image")
        warnings.append(f"{skipped} left out: cannot be decoded (the first is {source.skipped[0]})")
    return SearchResult(query, encoders.encoder_id, encoders.view, hits, len(paths), warnings)


def long_enough(track: Track, crops: Sequence[Crop]) -> bool:
    """Whether a track was seen for long enough, and shows anything, to be a person and not a flicker."""
    return track.end_s - track.start_s >= SHORTEST_S and bool(crops)


def mean_vector(vectors: Floats, crops: Sequence[Crop]) -> Floats:
    """A person's vector float32 (D,): the unit mean of the crops' vectors (N, D), weighted by their quality."""
    mean = np.array([crop.quality for crop in crops], np.float32) @ vectors
    unit: Floats = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return unit


def moves(track: Track) -> bool:
    """Whether a track ever went anywhere: what does not is a change of the scene."""
    boxes = np.array([seen.box_xywh_px for seen in track.observations if seen.observed])
    feet = np.stack([boxes[:, 0] + boxes[:, 2] / 2.0, boxes[:, 1] + boxes[:, 3]], 1)
    # Percentiles: one box that jumps does not make a ghost walk.
    low, high = np.percentile(feet, [5.0, 95.0], axis=0)
    return float(np.hypot(*(high - low))) > STILL_HEIGHTS * float(np.median(boxes[:, 3]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
