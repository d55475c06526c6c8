"""People who are nobody's target, as a background: from annotated pictures, a video, or what a device has kept."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.background import LEAST_PEOPLE, SETS, UNKNOWN, Background, People
from tagclip.runtime.crops import Crop
from tagclip.runtime.encoder import AUTO
from tagclip.runtime.errors import BackgroundError, DataError
from tagclip.runtime.search import Encodes, find_people, mean_vector
from tagclip.runtime.source import Image, VideoSource, decode_image, read_image
from tagclip.runtime.store import TrackStore
from tagclip.runtime.views import VIEWS

ANNOTATIONS = ("train_reid.json", "val_reid.json", "test_reid.json")
AT_ONCE = 256  # pictures embedded together
HOUR_S = 3600.0

Floats = NDArray[np.float32]
Encoder = Callable[[str], Encodes]  # of a view, "auto" included
Tick = Callable[[int, int], None]


def of_folder(folder: Path, encoder: Encoder, encoder_id: str, tick: Tick) -> Background:
    """People of an annotated folder (docs/data.md) whose pictures are files; each person once a view.

    Args:
        encoder: gives the image encoder of "aerial", "ground" or "auto".

    Raises:
        DataError: no annotations, or a picture cannot be read.
        BackgroundError: too few people.
    """
    pictures: dict[str, dict[int, list[Path]]] = {view: defaultdict(list) for view in VIEWS}
    for path in (folder / name for name in ANNOTATIONS if (folder / name).exists()):
        try:
            for row in json.loads(path.read_text(encoding="utf-8")):
                pictures[VIEWS[row["cam_id"]]][int(row["id"])].append(folder / "images" / row["file_path"])
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(f"{path} is no annotations file of docs/data.md: {error!r}") from error
    total = 2 * sum(len(files) for people in pictures.values() for files in people.values())
    done = 0
    views: dict[str, People] = {}
    either: list[tuple[Floats, Floats]] = []
    for view in VIEWS:
        if not pictures[view]:
            continue
        for served in (view, AUTO):
            vectors = []
            for batch in _batches([file for files in pictures[view].values() for file in files]):
                vectors.append(encoder(served).embed([read_listed(file) for file in batch]))
                done += len(batch)
                tick(done, total)
            people = _people(np.concatenate(vectors), [len(files) for files in pictures[view].values()])
            if served == AUTO:
                either.append((people.one, people.many))
            else:
                views[view] = people
    if not views:
        raise DataError(
            f"{folder}: expected annotations such as {ANNOTATIONS[0]}, with pictures in files; found none"
        )
    views[UNKNOWN] = People(*(np.concatenate(rows) for rows in zip(*either, strict=True)))
    return _enough(Background(encoder_id, f"{folder.name}: pictures of {_told(views)}", views))


def of_video(
    video: VideoSource,
    find: Callable[[VideoSource], Iterator[list[Crop]]],
    view: str,
    encoder: Encoder,
    encoder_id: str,
) -> Background:
    """The people of a video in which nobody is looked for.

    Args:
        find: the people of the video, each by their crops.
        view: "aerial", "ground" or "auto", from which the device will look.

    Raises:
        BackgroundError: too few people.
    """
    one, many = [], []
    for crops in find(video):
        vectors = encoder(view).embed([crop.image for crop in crops])
        one.append(vectors[0])
        many.append(mean_vector(vectors, crops))
    if not one:
        raise BackgroundError(
            f"{video.path}: nobody was found in it; take other footage, or another --detector"
        )
    hours = max(video.frame_count / video.fps, 1.0) / HOUR_S
    name = UNKNOWN if view == AUTO else view
    people = {name: People(np.stack(one), np.stack(many))}
    source = f"{video.path.name}: {len(one)} people in {hours * 60:.1f} minutes"
    return _enough(Background(encoder_id, source, people, len(one) / hours))


def of_store(store: TrackStore, encoder: Encoder, encoder_id: str, tick: Tick) -> Background:
    """Everybody whom a device has kept, by the vectors it has and by one picture.

    Raises:
        BackgroundError: too few people, or another encoder made the vectors.
        StoreError: the store is damaged.
    """
    rows: dict[str, list[tuple[Floats, Floats]]] = defaultdict(list)
    times: list[float] = []
    keys = store.keys().tolist()
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        tracks, pictures = store.get(some), store.thumbnails(some)
        for view in SETS:
            own = [k for k in some if k in tracks and k in pictures and tracks[k].view == view]
            images = [(k, image) for k in own if (image := decode_image(pictures[k])) is not None]
            if not images:
                continue
            singles = encoder(AUTO if view == UNKNOWN else view).embed([image for _, image in images])
            for (k, _), single in zip(images, singles, strict=True):
                if tracks[k].encoder_id != encoder_id:
                    raise BackgroundError(
                        f"{store.path}: vectors of encoder {tracks[k].encoder_id}, the bundle's is {encoder_id}; embed "
                        "them again: tagclip store reindex"
                    )
                rows[view].append((single, np.asarray(tracks[k].vector, np.float32)))
                times.append(tracks[k].start_s)
        tick(min(start + AT_ONCE, len(keys)), len(keys))
    views = {
        view: People(*(np.stack(side) for side in zip(*found, strict=True))) for view, found in rows.items()
    }
    hours = (max(times) - min(times)) / HOUR_S if times else 0.0
    rate = len(times) / hours if hours > 0.1 else None
    return _enough(Background(encoder_id, f"{store.path.name}: {_told(views)}", views, rate))


def video_people(video: VideoSource, detector: object, drop_still: bool, tick: Tick) -> Iterator[list[Crop]]:
    """The crops of each person of a video, as a device keeps them."""
    found = find_people(video, detector, drop_still=drop_still, progress=tick)  # type: ignore[arg-type]
    return iter([found.crops[track.id] for track in found.tracks])


def _people(vectors: Floats, counts: list[int]) -> People:
    """One picture of each, in turn the first, second, ...; and the mean of all of them."""
    ends = np.cumsum(np.array(counts, np.int64))
    starts = ends - counts
    one = vectors[[start + k % count for k, (start, count) in enumerate(zip(starts, counts, strict=True))]]
    many = np.add.reduceat(vectors, starts, axis=0)
    return People(one, many / np.maximum(np.linalg.norm(many, axis=1, keepdims=True), 1e-12))


def _batches(files: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(files), AT_ONCE):
        yield files[start : start + AT_ONCE]


def read_listed(path: Path) -> Image:
    """A picture that annotations list, RGB uint8 (H, W, 3). Raises: DataError, it cannot be read."""
    image = read_image(path)
    if image is None:
        raise DataError(f"{path} is listed, and cannot be read as a picture")
    return image


def _enough(background: Background) -> Background:
    for view, people in background.views.items():
        if len(people.one) < LEAST_PEOPLE:
            raise BackgroundError(
                f"{background.source}: expected {LEAST_PEOPLE} people or more of view {view}, found {len(people.one)}; "
                "take more footage: rare events cannot be told from few"
            )
    return background


def _told(views: dict[str, People]) -> str:
    return (
        ", ".join(f"{len(people.one)} people {view}" for view, people in views.items() if view != UNKNOWN)
        or "nobody"
    )
