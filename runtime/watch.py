"""The device at work: it detects, follows, embeds, keeps whom it saw in its store, and says who fits a query."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tagclip.runtime.alerts import Alerts
from tagclip.runtime.boxes import Detector
from tagclip.runtime.crops import Crop, CropKeeper
from tagclip.runtime.ground import place_of, view_of
from tagclip.runtime.health import Health
from tagclip.runtime.hit import Hit
from tagclip.runtime.ids import uuid7
from tagclip.runtime.search import Encodes, long_enough, mean_vector, moves
from tagclip.runtime.sheet import image_bytes
from tagclip.runtime.source import Frame
from tagclip.runtime.store import TrackStore
from tagclip.runtime.store_crops import HitCrop
from tagclip.runtime.store_guard import StoreGuard
from tagclip.runtime.store_track import Place, StoredTrack
from tagclip.runtime.sync_track import ToldTrack, told
from tagclip.runtime.target import Track
from tagclip.runtime.telemetry import Poses
from tagclip.runtime.tracker import Tracker

# With queries, whoever is in view is looked at when they have been seen for so long, and whenever they are kept.
LOOK_AT_S = (0.5, 1.0, 2.0, 4.0)
LOOKS_A_FRAME = 4  # people; the others wait for the next frame
KEEP_EVERY_S = 10.0  # whoever is still in view is kept as often, so that a query finds them at once
JPEG_QUALITY = 90
MOST_OBSERVATIONS = 1000  # of a track

_Row = tuple[Track, StoredTrack, bytes, list[Crop]]  # with its picture, and all that count


@dataclass(frozen=True)
class Camera:
    """What is known of the camera.

    Attributes:
        name: under which its tracks are kept.
        view: "aerial" or "ground"; "auto" for what the telemetry tells of each person, if it does.
        start_s: Unix time, UTC, of the footage's time 0.
        size_px: width and height of its frames.
        place: where the camera stands, for want of the people's own places.
        telemetry: where it was and looked.
    """

    name: str
    view: str
    start_s: float
    size_px: tuple[int, int]
    place: Place | None = None
    telemetry: Poses | None = None

    def seen(self, crop: Crop) -> tuple[str, Place | None]:
        """View ("auto" when unknown) and place of somebody, by the time and box of one crop."""
        if self.telemetry is None:
            return self.view, self.place
        pose = self.telemetry.at(crop.time_s)
        view = view_of(pose, crop.box_xywh_px, self.size_px) if self.view == "auto" else None
        return view or self.view, place_of(pose, crop.box_xywh_px, self.size_px) or self.place


class Watcher:
    """Give it the frames in order, then call `end`.

    Args:
        encoder: gives what embeds crops of a view, "aerial", "ground" or "auto"; asked whenever people are kept.
        drop_still: leave out what never moves; right for motion, wrong for other detectors.
        health: is told what was done, and how long it took.
        alerts: standing queries; None for none.
        tell: is given each hit with its picture (JPEG), after the person is in the store.
        tell_tracks: is given people who were put into the store, and whether they are gone.
    """

    def __init__(
        self,
        camera: Camera,
        detector: Detector,
        encoder: Callable[[str], Encodes],
        encoder_id: str,
        store: TrackStore,
        drop_still: bool,
        health: Health,
        alerts: Alerts | None = None,
        tell: Callable[[Hit, bytes], None] = lambda hit, jpeg: None,
        tell_tracks: Callable[[Sequence[ToldTrack], bool], None] = lambda tracks, over: None,
    ) -> None:
        self._alerts, self._tell, self._tell_tracks = alerts, tell, tell_tracks
        self._looks: dict[int, int] = {}  # of tracks in view: how many of LOOK_AT_S are over
        self._camera, self._detector, self._encoder_of = camera, detector, encoder
        self._encoder_id, self._store, self._drop_still = encoder_id, StoreGuard(store, health), drop_still
        self._counts, self._times = health.counts, health.times
        self._tracker = Tracker(camera_moves=not drop_still, most=MOST_OBSERVATIONS)
        self._keeper = CropKeeper()
        self._ids: dict[int, uuid.UUID] = {}  # of tracks that have been embedded
        self._kept_s = 0.0

    @property
    def start_s(self) -> float:
        """Unix time of the footage's time 0; set it when the clock was set."""
        return self._camera.start_s

    @start_s.setter
    def start_s(self, start_s: float) -> None:
        self._camera = replace(self._camera, start_s=start_s)

    @property
    def people(self) -> int:
        """How many it has kept."""
        return self._counts.people

    @property
    def lost(self) -> int:
        """How many it could not keep, because there was no room for too long."""
        return self._store.lost

    def see(self, frame: Frame) -> None:
        """One frame.

        Raises:
            StoreError: the store is damaged. Where it is full, people wait for room, and health says so.
            EngineError: the encoder fails.
        """
        begun_s = time.perf_counter()
        found = self._detector.detect(frame).usable()
        detected_s = time.perf_counter()
        matches = self._tracker.update(frame, found)
        self._keeper.offer(frame, found, matches)
        self._times["track"].add(time.perf_counter() - detected_s)
        self._times["detect"].add(detected_s - begun_s)
        self._counts.detections += len(found.scores)
        # Numbered from 1 on, and each is matched when it begins.
        self._counts.tracks = max([self._counts.tracks, *(match.track_id for match in matches)])
        ended = self._tracker.ended()
        if frame.time_s - self._kept_s >= KEEP_EVERY_S:
            self._kept_s = frame.time_s
            self._keep(ended, last=True)
            self._keep(self._tracker.live())
        elif ended:
            self._keep(ended, last=True)
        self._forget(ended)
        if self._alerts is not None:
            self._look(self._due())
        self._store.look()

    def pause(self) -> None:
        """No frame comes for so long that nobody can be followed over it. Raises: as `see`."""
        self._tracker.finish()
        last = self._tracker.ended()
        self._keep(last, last=True)
        self._forget(last)

    def end(self) -> None:
        """The footage is over. Raises: as `see`; StoreFullError, some could not be kept."""
        self.pause()
        self._store.finish()

    def _due(self) -> list[Track]:
        """Who is to be looked at now; who has waited longest first."""
        due = []
        for track in self._tracker.live():
            looks = self._looks.get(track.id, 0)
            if looks < len(LOOK_AT_S) and track.end_s - track.start_s >= LOOK_AT_S[looks]:
                due.append(track)
        return sorted(due, key=lambda track: self._looks.get(track.id, 0))[:LOOKS_A_FRAME]

    def _look(self, tracks: list[Track]) -> None:
        """Judge people who are in view; only those with news are kept now."""
        for track in tracks:
            self._looks[track.id] = self._looks.get(track.id, 0) + 1
        rows = self._rows(tracks)
        if rows:
            self._judge(rows, last=False, keep=True)

    def _keep(self, tracks: list[Track], last: bool = False) -> None:
        """Embed the tracks' crops and put them into the store, together."""
        rows = self._rows(tracks)
        if not rows:
            return
        begun_s = time.perf_counter()
        self._store.add([(stored, jpeg) for _, stored, jpeg, _ in rows])
        self._told(rows, last)
        self._times["store"].add(time.perf_counter() - begun_s)
        if self._alerts is not None:
            self._judge(rows, last=last, keep=False)

    def _judge(self, rows: list[_Row], *, last: bool, keep: bool) -> None:
        assert self._alerts is not None
        begun_s = time.perf_counter()
        news = []
        for row in rows:
            _, stored, jpeg, crops = row
            hits = self._alerts.judge(stored, len(crops), last=last)
            if hits and keep:
                self._store.add([(stored, jpeg)])
                self._told([row], False)
            if hits:
                self._store.keep_crops([hit.id for hit in hits], stored.id, _counted(crops))
            news += [(hit, jpeg) for hit in hits]
        self._times["match"].add(time.perf_counter() - begun_s)
        for hit, jpeg in news:
            self._tell(hit, jpeg)

    def _told(self, rows: list[_Row], over: bool) -> None:
        self._tell_tracks(
            [told(stored, self._camera.size_px, len(crops)) for _, stored, _, crops in rows], over
        )

    def _rows(self, tracks: list[Track]) -> list[_Row]:
        """Those who are worth keeping, embedded."""
        shown = [(track, self._keeper.crops(track.id)) for track in tracks]
        shown = [
            (t, crops) for t, crops in shown if long_enough(t, crops) and (moves(t) or not self._drop_still)
        ]
        if not shown:
            return []
        best = [max(crops, key=lambda crop: crop.quality) for _, crops in shown]
        seen = [self._camera.seen(crop) for crop in best]
        vectors: dict[int, np.ndarray] = {}
        begun_s = time.perf_counter()
        for view in sorted({view for view, _ in seen}):
            of_view = [k for k, (own, _) in enumerate(seen) if own == view]
            vectors |= self._embedded(view, {k: shown[k][1] for k in of_view})
        self._times["embed"].add(time.perf_counter() - begun_s)
        rows = []
        for k, (track, crops) in enumerate(shown):
            stored = self._stored(track, best[k], *seen[k], vectors[k])
            self._ids[track.id] = stored.id
            rows.append((track, stored, image_bytes(best[k].image, ".jpg", JPEG_QUALITY), crops))
        return rows

    def _embedded(self, view: str, crops: dict[int, list[Crop]]) -> dict[int, np.ndarray]:
        """The mean vectors of several people's crops, by the same keys; those not embedded before in one go."""
        new = [crop for own in crops.values() for crop in own if view not in crop.vectors]
        if new:
            found = self._encoder_of(view).embed([crop.image for crop in new])
            for crop, vector in zip(new, found, strict=True):
                crop.vectors[view] = vector.copy()  # a view would hold the vectors of all of them
        return {k: mean_vector(np.stack([c.vectors[view] for c in own]), own) for k, own in crops.items()}

    def _stored(
        self, track: Track, best: Crop, view: str, place: Place | None, vector: np.ndarray
    ) -> StoredTrack:
        camera = self._camera
        start_s = camera.start_s + track.start_s
        return StoredTrack(
            id=self._ids.get(track.id) or uuid7(int(start_s * 1000)),
            camera=camera.name,
            view=view if view != "auto" else "unknown",
            start_s=start_s,
            end_s=camera.start_s + track.end_s,
            best_s=camera.start_s + best.time_s,
            frame=best.frame,
            box_xywh_px=best.box_xywh_px,
            encoder_id=self._encoder_id,
            vector=vector,
            place=place,
        )

    def _forget(self, tracks: list[Track]) -> None:
        for track in tracks:
            self._keeper.forget(track.id)
            name = self._ids.pop(track.id, None)
            if self._alerts is not None and name is not None:
                self._alerts.forget(name)
            self._looks.pop(track.id, None)


def _counted(crops: list[Crop]) -> list[HitCrop]:
    """What `mean_vector` made a vector of, with its weights."""
    whole = sum(crop.quality for crop in crops)
    return [
        HitCrop(crop.frame, crop.quality / whole, image_bytes(crop.image, ".jpg", JPEG_QUALITY))
        for crop in crops
    ]
