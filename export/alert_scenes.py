"""Rendered scenes with one query a person: who is told of, how many others are, and why somebody was missed."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.alerts import TYPICAL, Alerts, Promise, StandingQuery, standing
from tagclip.runtime.association import iou
from tagclip.runtime.background import Background
from tagclip.runtime.boxes import Detections
from tagclip.runtime.bundle import open_bundle
from tagclip.runtime.encoder import AUTO, ImageEncoder, TextEncoder
from tagclip.runtime.health import Health
from tagclip.runtime.hit import Hit
from tagclip.runtime.judge import Judge
from tagclip.runtime.source import Frame, VideoSource
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_track import StoredTrack
from tagclip.runtime.views import VIEWS
from tagclip.runtime.watch import Camera, Watcher
from tagclip.train.progress import Tick
from tagclip.train.track_scores import Finder, simulated

# A caption may leave out what is seen first, as a witness may; the longer one is that of somebody who tells more.
CAPTIONS: dict[str, Callable[[list[str]], str]] = {
    "first": lambda captions: captions[0],
    "longest": lambda captions: max(captions, key=len),
}
SAME_IOU = 0.4
LEAST_HEIGHT_PX, LEAST_VISIBLE, LEAST_S = 24, 0.5, 2.0  # who is asked for


@dataclass(frozen=True)
class Look:
    """One judgement of one track.

    Attributes:
        who: whose box the track's best one is; None for nobody's.
        crops: how many pictures counted.
        height_px: of the best one's box.
        chances: (Q,) of a false alarm, of each query.
    """

    track: uuid.UUID
    who: int | None
    crops: int
    height_px: float
    chances: NDArray[np.float64]


@dataclass(frozen=True)
class Played:
    """What came of one scene.

    Attributes:
        caption: which of each person's captions is the query, a name of CAPTIONS.
        people: (identity, caption) of the queries, in their order.
        asked: identities that were in view long and large enough; of each the seconds.
        looks: in order of time.
    """

    scene: str
    caption: str
    people: Sequence[tuple[int, str]]
    asked: dict[int, float]
    looks: Sequence[Look]

    def chances(self) -> tuple[list[int | None], NDArray[np.float64]]:
        """Of each track whom it shows, by its last look, and (T, Q) the least chance of any look."""
        of_track: dict[uuid.UUID, list[Look]] = defaultdict(list)
        for look in self.looks:
            of_track[look.track].append(look)
        least = [np.min([look.chances for look in looks], 0) for looks in of_track.values()]
        return [looks[-1].who for looks in of_track.values()], np.array(least).reshape(-1, len(self.people))

    def counts(self, rate: float) -> dict[str, Any]:
        """At `rate` false alarms in 1,000 people: "people" asked for, "recall", percent of them; "wrong" hits, and
        "false_alarms" of a query among 1,000 tracks."""
        who, least = self.chances()
        over = least <= rate / 1000
        right = {
            whom
            for k, (whom, _) in enumerate(self.people)
            for t, row in enumerate(over)
            if row[k] and who[t] == whom
        }
        wrong = sum(
            int(row[k])
            for k, (whom, _) in enumerate(self.people)
            for t, row in enumerate(over)
            if who[t] != whom
        )
        return {
            "scene": self.scene,
            "caption": self.caption,
            "promised": rate,
            "people": len(self.asked),
            "recall": round(100 * len(right & self.asked.keys()) / max(len(self.asked), 1), 1),
            "tracks": len(who),
            "wrong": wrong,
            "false_alarms": round(1000 * wrong / max(len(who) * len(self.people), 1), 2),
        }

    def missed(self, rate: float) -> list[dict[str, Any]]:
        """Of everybody who was asked for and not told of at `rate`: the seconds in view, and of the best of their own
        tracks the height, the pictures, the chance in 1,000 and its rank among all tracks; None where no track was."""
        who, least = self.chances()
        rows = []
        for k, (whom, caption) in enumerate(self.people):
            own = [t for t, one in enumerate(who) if one == whom]
            best = min((float(least[t, k]) for t in own), default=None)
            if whom not in self.asked or (best is not None and best <= rate / 1000):
                continue
            looks = [look for look in self.looks if look.who == whom]
            rows.append(
                {
                    "scene": self.scene,
                    "by": self.caption,
                    "who": whom,
                    "seen_s": round(self.asked[whom], 1),
                    "height_px": round(max(look.height_px for look in looks)) if looks else None,
                    "crops": max(look.crops for look in looks) if looks else None,
                    "in_1000": None if best is None else round(1000 * best, 2),
                    "rank": None if best is None else int((least[:, k] < best).sum()) + 1,
                    "caption": caption,
                }
            )
        return rows


def play(video: Path, background: Background, view: str, tick: Tick) -> list[Played]:
    """Play a scene of `tagclip synth scene`; boxes are the truth's, made worse (`track_scores.simulated`).

    Returns:
        what came of it by each of CAPTIONS.
    """
    truth = json.loads(video.with_suffix(".json").read_text())
    bundle = open_bundle(None)
    source = VideoSource(video)
    size_px = (source.width_px, source.height_px)
    boxes = {frame["frame"]: frame["people"] for frame in truth["frames"]}
    wanted = {
        name: [(person["id"], choose(person["captions"])) for person in truth["people"]]
        for name, choose in CAPTIONS.items()
    }
    text = TextEncoder(bundle)
    texts = [caption for people in wanted.values() for _, caption in people]
    asked = standing(texts, text, background, Promise(1.0))
    alerts = _Noting(asked, background, text.embed(TYPICAL), size_px, boxes)
    encoders = {name: ImageEncoder(bundle, name) for name in (*VIEWS, AUTO)}
    health = Health(camera="scene", detector="simulated", provider="cpu", encoder_id=bundle.encoder_id)
    with tempfile.TemporaryDirectory() as place, TrackStore(Path(place) / "s.db") as store:
        watcher = Watcher(
            Camera("scene", view, 0.0, size_px), _Simulated(simulated(truth, 0)), lambda name: encoders[name],
            bundle.encoder_id, store, False, health, alerts,
        )  # fmt: skip
        for frame in source:
            watcher.see(frame)
            tick(video.name, frame.index + 1, source.frame_count, "")
        watcher.end()
    seen: dict[int, int] = defaultdict(int)
    for people in boxes.values():
        for person in people:
            seen[person["id"]] += (
                person["box_xywh_px"][3] >= LEAST_HEIGHT_PX and person["visible"] >= LEAST_VISIBLE
            )
    long = {who: count / truth["fps"] for who, count in seen.items() if count >= LEAST_S * truth["fps"]}
    played, count = [], len(truth["people"])
    for number, (name, named) in enumerate(wanted.items()):
        own = slice(number * count, (number + 1) * count)
        looks = [replace(look, chances=look.chances[own]) for look in alerts.looks]
        played.append(Played(video.name, name, named, long, looks))
    return played


class _Noting(Alerts):
    """Notes every judgement, whatever it comes to; `boxes` are the truth's by frame."""

    def __init__(
        self,
        queries: Sequence[StandingQuery],
        background: Background,
        typical: NDArray[np.float32],
        frame_px: tuple[int, int],
        boxes: dict[int, list[dict[str, Any]]],
    ) -> None:
        super().__init__(queries, background, typical, frame_px)
        self._noted = Judge(np.stack([query.vector for query in queries]), background, typical)
        self._boxes = boxes
        self.looks: list[Look] = []

    def judge(self, track: StoredTrack, crops: int, *, last: bool) -> list[Hit]:
        _, chances = self._noted.judge(track.view, track.vector, crops)
        who = _who(track, self._boxes.get(track.frame, []))
        self.looks.append(Look(track.id, who, crops, track.box_xywh_px[3], chances))
        return []


@dataclass(frozen=True)
class _Simulated:
    finder: Finder

    def detect(self, frame: Frame) -> Detections:
        return self.finder(frame)


def _who(track: StoredTrack, people: list[dict[str, Any]]) -> int | None:
    """Whose box the track's is."""
    if not people:
        return None
    own = np.array([track.box_xywh_px], np.float32)
    overlap = iou(own, np.array([person["box_xywh_px"] for person in people], np.float32))[0]
    return int(people[int(overlap.argmax())]["id"]) if overlap.max() >= SAME_IOU else None
