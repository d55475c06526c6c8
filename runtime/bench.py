"""From a frame to the decision about everybody in it: how long each stage takes, and all of them together.

A frame is looked at as `tagclip run` does it, by the same detector, tracker, keeper of crops, encoder and store. Only
what it asks for differs: every box of every frame is cut out and embedded, the most that a frame can ask for, where the
device embeds each of the few crops that it keeps of a person once.

| stage | what is in it |
|---|---|
| decode | the next frame out of the file |
| detect | the detector, on the whole frame |
| track | boxes to tracks, crops kept, every person cut out |
| embed | crops to the encoder's size, the encoder |
| match | every person against every standing query |
| store | the frame's people as JPEG and vector on the disk, in one transaction; every `STORE_EVERY` frames |

Camera to alert is from the frame's being there, decoded, to the end of `match`: detect, track, embed and match on one
clock, with whatever lies between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.background import UNKNOWN, Background, People
from tagclip.runtime.bench_encoders import OURS
from tagclip.runtime.bench_scene import Scene, Shown
from tagclip.runtime.boxes import Detections, Detector
from tagclip.runtime.crops import CropKeeper, cut
from tagclip.runtime.detectors import drop_still
from tagclip.runtime.ids import uuid7
from tagclip.runtime.judge import Judge
from tagclip.runtime.search import Encodes
from tagclip.runtime.sheet import image_bytes
from tagclip.runtime.source import Image
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import StoredTrack
from tagclip.runtime.tracker import Tracker
from tagclip.runtime.watch import JPEG_QUALITY, MOST_OBSERVATIONS

STAGES = ("decode", "detect", "track", "embed", "match", "store")
LATENCY = "latency"  # camera to alert, beside the stages
WARM_UP_FRAMES = 10  # of each pass, that do not count: tracks begin, buffers are made
STORE_EVERY = 10  # frames
BACKGROUND_PEOPLE = 4000
CROPS = 5  # of each person, for the judge
LOOK_EVERY_NS = 1_000_000_000  # at the machine

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Work:
    """What is timed.

    Attributes:
        detector: makes one for a pass, new where it learns the scene.
        encoder: of the crops.
        judge: of the standing queries.
        store: takes people in; None leaves the stage out.
        look: tells how the machine is; called between frames, about once a second.
        name: of the encoder.
    """

    detector: Callable[[], Detector]
    encoder: Encodes
    judge: Judge
    store: TrackStore | None = None
    look: Callable[[], dict[str, Any]] = dict
    name: str = OURS


@dataclass
class Pass:
    """The times of one number of people in one round.

    Attributes:
        people: how many are in each frame; None for as many as the detector finds.
        encoder: its name.
        boxes: (frames,) people of each frame that counts.
        times_ns: stage, or `LATENCY`, -> a time for each frame that counts; `store` has fewer.
        looks: what `Work.look` told.
    """

    round: int
    people: int | None
    encoder: str = OURS
    boxes: list[int] = field(default_factory=list)
    times_ns: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in (*STAGES, LATENCY)})
    looks: list[dict[str, Any]] = field(default_factory=list)


def match(vectors: Floats, judge: Judge) -> NDArray[np.float64]:
    """Of each of the people (N, D) and each query the chance of a false alarm, (N, Q)."""
    chances = [judge.judge(UNKNOWN, vector, CROPS)[1] for vector in vectors]
    return np.stack(chances) if chances else np.empty((0, judge.queries))


def standing_queries(count: int, dim: int) -> Judge:
    """`count` random queries on a random background: what is compared does not change how long it takes."""
    rng = np.random.default_rng(0)

    def rows(number: int) -> Floats:
        found = rng.standard_normal((number, dim), np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    queries = rows(count)
    people = People(rows(BACKGROUND_PEOPLE), rows(BACKGROUND_PEOPLE))
    judge = Judge(queries, Background("", "random", {UNKNOWN: people}), queries)
    judge.of(UNKNOWN)  # is made ready before anybody comes
    return judge


def measure(
    scene: Scene,
    work: Work,
    people: Sequence[int | None],
    frames: int,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Pass]:
    """Every number of people in turn, and all of that `rounds` times.

    Args:
        people: how many each frame has; None for what the detector finds.
        frames: that count, of each pass; `WARM_UP_FRAMES` go before.
        progress: called after every pass with passes done and their number.

    Raises:
        SourceError, EngineError: as the video, the detector and the encoder do.
        StoreError: the store cannot be written.
    """
    passes: list[Pass] = []
    for number in range(rounds):
        for count in people:
            one = Pass(number, count, work.name)
            watch(scene.play(count, WARM_UP_FRAMES + frames), work, one)
            passes.append(one)
            progress(len(passes), rounds * len(people))
    return passes


def watch(shown: Iterable[Shown], work: Work, one: Pass) -> None:
    """Look at frames, and put the times of those that count into `one`. Raises: as `measure`."""
    detector = work.detector()
    tracker = Tracker(camera_moves=not drop_still(detector), most=MOST_OBSERVATIONS)
    keeper, looked_ns = CropKeeper(), 0
    for entry in shown:
        times, found, crops, vectors = _see(entry, detector, tracker, keeper, work)
        if entry.frame.index < WARM_UP_FRAMES:
            continue
        if not entry.opened:
            times["decode"] = entry.decode_ns
        if work.store is not None and entry.frame.index % STORE_EVERY == 0 and crops:
            times["store"] = _store(entry, found, crops, vectors, work.store)
        for name, value in times.items():
            one.times_ns[name].append(value)
        one.boxes.append(len(crops))
        if time.perf_counter_ns() - looked_ns >= LOOK_EVERY_NS:
            one.looks.append(work.look())
            looked_ns = time.perf_counter_ns()


def _see(
    shown: Shown, detector: Detector, tracker: Tracker, keeper: CropKeeper, work: Work
) -> tuple[dict[str, int], Detections, list[Image], Floats]:
    """One frame to its decision; also who was in it."""
    frame, clock = shown.frame, time.perf_counter_ns
    there = clock()
    found = detector.detect(frame).usable()
    found = found if shown.people is None else shown.people
    detected = clock()
    keeper.offer(frame, found, tracker.update(frame, found))
    crops = [image for image in (cut(frame.image, box) for box in found.boxes_xywh_px) if image is not None]
    for track in tracker.ended():
        keeper.forget(track.id)
    tracked = clock()
    vectors = work.encoder.embed(crops)
    embedded = clock()
    match(vectors, work.judge)
    decided = clock()
    times = {
        "detect": detected - there,
        "track": tracked - detected,
        "embed": embedded - tracked,
        "match": decided - embedded,
        LATENCY: decided - there,
    }
    return times, found, crops, vectors


def _store(shown: Shown, found: Detections, crops: list[Image], vectors: Floats, store: TrackStore) -> int:
    begun = time.perf_counter_ns()
    at_s = time.time()
    rows = [
        (
            StoredTrack(
                id=uuid7(),
                camera="bench",
                view="unknown",
                start_s=at_s,
                end_s=at_s,
                best_s=at_s,
                frame=shown.frame.index,
                box_xywh_px=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                encoder_id="bench",
                vector=vector,
            ),
            image_bytes(crop, ".jpg", JPEG_QUALITY),
        )
        for box, crop, vector in zip(found.boxes_xywh_px, crops, vectors, strict=False)
    ]
    store.add(rows)
    return time.perf_counter_ns() - begun
