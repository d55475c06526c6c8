"""One benchmark from its options to its raw file: everything is opened, proves itself, is timed, and is described."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tagclip.runtime.bench import STORE_EVERY, WARM_UP_FRAMES, Pass, Work, measure, standing_queries
from tagclip.runtime.bench_accuracy import accuracy, read_pictures
from tagclip.runtime.bench_encoders import OURS, compare, load_rivals
from tagclip.runtime.bench_machine import Watch, describe_machine, git_revision, peak_bytes
from tagclip.runtime.bench_report import FORMAT, summary
from tagclip.runtime.bench_scene import EXAMPLE, HOW, Scene, people_pictures
from tagclip.runtime.boxes import Detector
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.bundle_manifest import SUMS
from tagclip.runtime.bundle_report import retrieval
from tagclip.runtime.detector_graph import engine_beside
from tagclip.runtime.detectors import SAMPLES, describe, graph_of
from tagclip.runtime.encoder import AUTO, ImageEncoder
from tagclip.runtime.engines import Engines
from tagclip.runtime.errors import SourceError
from tagclip.runtime.motion import MotionDetector
from tagclip.runtime.onnx_detector import OnnxDetector
from tagclip.runtime.source import VideoSource, open_source
from tagclip.runtime.store import Retention, TrackStore

# A rival of the size of a ViT needs a second and more for a frame of twenty people.
RIVAL_ROUNDS, RIVAL_FRAMES = 2, 10

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """The options of `tagclip bench`, checked.

    Attributes:
        bundle: None for the one that ships.
        source: a video file.
        detector: as `tagclip run --detector` takes it.
        size_px: frames are scaled to it; None leaves them.
        people: how many are pasted into each frame, one pass each; the video as it is goes first.
        frames, rounds: that count, as in `bench.measure`.
        queries: how many stand.
        against: names of RIVALS.
        data: folder of annotations that accuracy is measured on.
    """

    bundle: Path | None = None
    source: Path = EXAMPLE
    engine: str = "cpu"
    view: str = AUTO
    detector: str = "motion"
    size_px: tuple[int, int] | None = None
    people: tuple[int, ...] = (1, 5, 10, 20)
    frames: int = 60
    rounds: int = 5
    queries: int = 20
    against: tuple[str, ...] = ()
    data: Path | None = None


def benchmark(settings: Settings, command: list[str], progress: Progress) -> dict[str, Any]:
    """Everything in one run.

    Args:
        command: how to repeat it, for the report.
        progress: called with what is done, how much of it, and of how much.

    Returns:
        What stands in the raw file: "format", "command", "begun", "revision" (git's), "artefact", "machine",
        "settings", "self_test" {tower: worst cosine}, "passes" (`bench.Pass`), "encoders" (`compare`), "rivals" {name:
        facts}, "memory", "accuracy" (None: not measured) and "summary".

    Raises:
        BundleSelfTestError: the engine does not compute what the bundle was made with.
        TagclipError: whatever cannot be opened.
    """
    machine, before_bytes = describe_machine(), peak_bytes()
    pictures = None if settings.data is None else read_pictures(settings.data)  # faults before the work
    bundle = open_bundle(settings.bundle)
    engines = Engines(bundle, settings.engine)
    cosines = {tower: engines.check(tower) for tower in bundle.manifest.towers}
    scene = Scene(_video(settings.source), settings.size_px)
    detector, described = _detector(settings.detector, scene, engines.name)
    encoder = ImageEncoder(bundle, settings.view, engine=engines)
    judge = standing_queries(settings.queries, encoder.embedding_dim)
    begun = datetime.now(timezone.utc)
    with (
        tempfile.TemporaryDirectory(prefix="tagclip-bench-") as folder,
        TrackStore(Path(folder) / "bench.db", Retention(max_bytes=1 << 40)) as store,
    ):
        work = Work(detector, encoder, judge, store, Watch().look)
        passes = measure(
            scene,
            work,
            (None, *settings.people),
            settings.frames,
            settings.rounds,
            lambda done, total: progress("passes", done, total),
        )
    peak = peak_bytes()  # of what a device runs: rivals and accuracy come after
    rivals = load_rivals(settings.against)
    passes += _with_rivals(settings, scene, detector, rivals, progress)
    embeds = {OURS: encoder.embed} | {name: rival.embed for name, rival in rivals.items()}
    progress("encoders", 0, len(settings.people))
    encoders = compare(embeds, people_pictures(), settings.people, settings.rounds)
    raw: dict[str, Any] = {
        "format": FORMAT,
        "command": command,
        "begun": begun.isoformat(timespec="seconds"),
        "revision": git_revision(),
        "artefact": _artefact(bundle, engines),
        "machine": machine,
        "settings": {
            "source": settings.source.name,
            "size_px": list(scene.size_px),
            "fps": scene.fps,
            "view": settings.view,
            "detector": described,
            "people_are": HOW,
            "frames": settings.frames,
            "warm_up_frames": WARM_UP_FRAMES,
            "rounds": settings.rounds,
            "rival_frames": RIVAL_FRAMES,
            "rival_rounds": RIVAL_ROUNDS,
            "queries": settings.queries,
            "store_every": STORE_EVERY,
        },
        "self_test": cosines,
        "passes": [vars(one) for one in passes],
        "encoders": encoders,
        "rivals": {name: rival.facts for name, rival in rivals.items()},
        "memory": {"before_bytes": before_bytes, "peak_bytes": peak},
        "accuracy": None if pictures is None else _accuracy(settings, engines, pictures, progress),
    }
    return raw | {"summary": summary(raw)}


def _with_rivals(
    settings: Settings,
    scene: Scene,
    detector: Callable[[], Detector],
    rivals: dict[str, Any],
    progress: Progress,
) -> list[Pass]:
    """The same frames and stages with a rival's encoder in the place of ours; nobody is put into a store."""
    passes: list[Pass] = []
    for name, rival in rivals.items():
        judge = standing_queries(settings.queries, rival.dim)
        passes += measure(
            scene,
            Work(detector, rival, judge, name=name),
            settings.people,
            min(RIVAL_FRAMES, settings.frames),
            min(RIVAL_ROUNDS, settings.rounds),
            lambda done, total, name=name: progress(f"passes with {name}", done, total),  # type: ignore[misc]
        )
    return passes


def _video(path: Path) -> VideoSource:
    source = open_source(path)
    if not isinstance(source, VideoSource):
        raise SourceError(f"{path} holds pictures, expected a video file; a benchmark needs frames in order")
    return source


def _detector(name: str, scene: Scene, engine: str) -> tuple[Callable[[], Detector], str]:
    """What makes the detector of a pass, and what it is."""
    graph = graph_of(name)
    if graph is not None:  # it learns nothing, so one does for all
        network = OnnxDetector(graph, scene.size_px, engine=engine_beside(engine))
        return lambda: network, describe(network)
    samples = scene.sample(SAMPLES)
    return lambda: MotionDetector(*scene.size_px, samples), "motion"


def _artefact(bundle: Bundle, engines: Engines) -> dict[str, Any]:
    """What exactly was timed. The digest is that of SHA256SUMS, which has those of all files."""
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "encoder_id": bundle.encoder_id,
        "sha256": hashlib.sha256((bundle.path / SUMS).read_bytes()).hexdigest(),
        "engine": engines.name,
        "passed_over": engines.passed_over,
        "input_px": [manifest.preprocess.width_px, manifest.preprocess.height_px],
        "towers": {
            name: {
                "precision": tower.facts.precision,
                "parameters": tower.facts.parameters,
                "sha256": bundle.sha256[tower.file],
            }
            for name, tower in manifest.towers.items()
        },
        "retrieval_at_export": retrieval(bundle),
    }


def _accuracy(
    settings: Settings, engines: Engines, pictures: list[Any], progress: Progress
) -> dict[str, Any]:
    """By the encoder of each picture's view, as with telemetry, and in the way that was timed."""
    views = engines.bundle.manifest.views
    ways = {"the encoder of its view": "own"} | (
        {f"view {settings.view}": settings.view} if len(views) > 1 else {}
    )
    begun_s = time.monotonic()
    embedded = {
        how: accuracy(engines, pictures, view, lambda done, total: progress("pictures", done, total))
        for how, view in ways.items()
    }
    return {
        "data": None if settings.data is None else settings.data.resolve().name,
        "split": "test",
        "embedded": embedded,
        "spent_s": round(time.monotonic() - begun_s, 1),
    }
