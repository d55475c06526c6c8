"""What looking back costs the frames: camera to alert while new queries are put to everybody in the store, and not.

    python -m tagclip.runtime.retro_bench FOLDER --tracks 100000 --queries 20

Frames follow one another without a pause, as a file plays, with exactly so many people in each, all of whom are
embedded anew: the search takes from a device that has no time to spare. Round by round the same frames are timed once
without a search, and then for as long as one takes.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.runtime.alerts import TYPICAL, Promise, StandingQuery, standing
from tagclip.runtime.background import Background, read_background
from tagclip.runtime.bench import LATENCY, WARM_UP_FRAMES, Pass, Work, standing_queries, watch
from tagclip.runtime.bench_scene import EXAMPLE, Scene, Shown
from tagclip.runtime.boxes import Detections, Detector
from tagclip.runtime.bundle import open_bundle
from tagclip.runtime.encoder import AUTO, ImageEncoder, TextEncoder
from tagclip.runtime.engines import Engines
from tagclip.runtime.files import check_target
from tagclip.runtime.health import Health
from tagclip.runtime.hit import Hit
from tagclip.runtime.ids import uuid7
from tagclip.runtime.motion import MotionDetector
from tagclip.runtime.retro import Past, Retro
from tagclip.runtime.source import Frame, VideoSource
from tagclip.runtime.store import Retention, TrackStore
from tagclip.runtime.store_track import StoredTrack

AT_ONCE = 1000  # tracks of one transaction
NOISE = 0.3  # of a person's vector, so that they are like people of the background and not the same
HOURS = 24.0  # over which they are spread
MOST_FRAMES = 100_000
PERCENTILES = (50, 95, 99, 100)
CAMERA, VIEW = "bench", "aerial"


def measure(
    folder: Path,
    tracks: int,
    queries: int,
    people: int,
    frames: int,
    rounds: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Fill a store in `folder`, which must be new and is removed; time frames of the clip that ships.

    Args:
        people: in every frame.
        frames: without a search, of each round.

    Returns:
        {"tracks", "queries", "people", "search_s": of each round, "hits": of each round, and of "quiet" and
        "searching": "frames" and "ms" {"p50", "p95", "p99", "p100"} from camera to alert}.

    Raises:
        OutputError, StoreError: the folder cannot be used.
    """
    bundle = open_bundle(None)
    background, engines = read_background(bundle, None), Engines(bundle)
    text = TextEncoder(bundle, engine=engines)
    asked, typical = standing(TYPICAL[:queries], text, background, Promise(1.0)), text.embed(TYPICAL)
    scene = Scene(VideoSource(EXAMPLE))
    encoder = ImageEncoder(bundle, AUTO, engine=engines)
    encoder.check()
    samples = scene.sample(20)
    work = Work(
        lambda: MotionDetector(*scene.size_px, samples),
        encoder,
        standing_queries(queries, encoder.embedding_dim),
    )
    check_target(folder)
    folder.mkdir(parents=True, exist_ok=True)
    quiet: list[int] = []
    searching: list[int] = []
    searches: list[tuple[float, int]] = []
    try:
        with TrackStore(folder / "bench.db", Retention(max_bytes=1 << 42)) as store:
            _fill(store, tracks, background, lambda done: progress("tracks", done, tracks))
            for number in range(rounds):
                one = Pass(number, people)
                watch(scene.play(people, WARM_UP_FRAMES + frames), work, one)
                quiet += one.times_ns[LATENCY]
                past = Past(store.path, folder / f"{number}.jsonl", CAMERA, scene.size_px, HOURS + 1)
                store.path.with_name(f"{store.path.name}.searched.json").unlink(missing_ok=True)
                look = _Search(Retro(past, background, typical, _health(bundle.encoder_id)), asked, store)
                one = Pass(number, people)
                watch(look.until_done(scene.play(people, MOST_FRAMES)), look.beside(work), one)
                searching += one.times_ns[LATENCY]
                searches.append((look.close(), look.hits))
                progress("rounds", number + 1, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "tracks": tracks,
        "queries": queries,
        "people": people,
        "search_s": [round(spent_s, 2) for spent_s, _ in searches],
        "hits": [hits for _, hits in searches],
        "quiet": _told(quiet),
        "searching": _told(searching),
    }


class _Search:
    """One search beside frames: it begins when those that do not count are over, and they end with it."""

    def __init__(self, retro: Retro, asked: list[StandingQuery], store: TrackStore) -> None:
        self._retro, self._asked, self._store = retro, asked, store
        self._began_s = 0.0
        self.hits = 0

    def until_done(self, shown: Iterator[Shown]) -> Iterator[Shown]:
        for entry in shown:
            if entry.frame.index == WARM_UP_FRAMES:
                self._began_s = time.perf_counter()
                self._retro.arm(self._asked, self._store.last_key(), frozenset(), 100.0)
            elif entry.frame.index > WARM_UP_FRAMES and self._retro.idle():
                return
            yield entry

    def beside(self, work: Work) -> Work:
        """The same, with what the loop over the frames does for the search before each frame."""

        def detector() -> Detector:
            return _Taking(work.detector(), lambda: self._retro.take(self._tell))

        return dataclasses.replace(work, detector=detector)

    def close(self) -> float:
        """Seconds that the search took."""
        spent_s = time.perf_counter() - self._began_s
        self._retro.close(self._tell, self._store.last_key, 0.0)
        return spent_s

    def _tell(self, hit: Hit, jpeg: bytes) -> None:
        self.hits += 1


@dataclasses.dataclass(frozen=True)
class _Taking:
    """A detector before whose work a hit that was found is told."""

    detector: Detector
    take: Callable[[], object]

    def detect(self, frame: Frame) -> Detections:
        self.take()
        return self.detector.detect(frame)


def _fill(store: TrackStore, tracks: int, background: Background, progress: Callable[[int], None]) -> None:
    """People like those of the background, spread over the last HOURS."""
    rng, known = np.random.default_rng(0), background.of(VIEW).many
    now_s = time.time()
    for start in range(0, tracks, AT_ONCE):
        count = min(AT_ONCE, tracks - start)
        noise = NOISE * rng.standard_normal((count, known.shape[1])) / np.sqrt(known.shape[1])
        vectors = known[rng.integers(len(known), size=count)] + noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = []
        for k, vector in zip(itertools.count(start), vectors, strict=False):
            at_s = now_s - HOURS * 3600 * (1 - k / tracks)
            rows.append((_track(uuid7(int(at_s * 1000)), at_s, background.encoder_id, vector), bytes(200)))
        store.add(rows)
        progress(start + count)


def _track(name: uuid.UUID, at_s: float, encoder_id: str, vector: np.ndarray) -> StoredTrack:
    return StoredTrack(name, CAMERA, VIEW, at_s, at_s + 5, at_s, 0, (0, 0, 9, 9), encoder_id, vector)


def _health(encoder_id: str) -> Health:
    return Health(camera=CAMERA, detector="motion", provider="cpu", encoder_id=encoder_id)


def _told(times_ns: list[int]) -> dict[str, Any]:
    values = (
        np.percentile(np.array(times_ns) / 1e6, PERCENTILES)
        if times_ns
        else np.full(len(PERCENTILES), np.nan)
    )
    return {
        "frames": len(times_ns),
        "ms": {f"p{p}": round(float(value), 1) for p, value in zip(PERCENTILES, values, strict=True)},
    }


def main() -> None:
    """The command line."""
    import json

    import click

    from tagclip.runtime.cli import run
    from tagclip.runtime.terminal import Progress

    @click.command()
    @click.argument("folder", type=click.Path(path_type=Path))
    @click.option("--tracks", type=click.IntRange(1, 5_000_000), default=100_000, show_default=True)
    @click.option("--queries", type=click.IntRange(1, len(TYPICAL)), default=20, show_default=True)
    @click.option(
        "--people", type=click.IntRange(1, 100), default=5, show_default=True, help="In every frame."
    )
    @click.option(
        "--frames", type=click.IntRange(1), default=200, show_default=True, help="Without a search."
    )
    @click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
    def command(folder: Path, **given: int) -> None:
        """Time frames while queries are put to everybody in a made-up store in FOLDER, new, and removed."""
        shown = {
            noun: Progress("filling" if noun == "tracks" else "timing", noun) for noun in ("tracks", "rounds")
        }
        found = measure(folder, progress=lambda noun, done, total: shown[noun].update(done, total), **given)
        for one in shown.values():
            one.end()
        click.echo(json.dumps(found, indent=2))

    run(command, "python -m tagclip.runtime.retro_bench")


if __name__ == "__main__":
    main()
