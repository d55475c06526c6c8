"""What finds people in a video, by the name that --detector has for it."""

from __future__ import annotations

from pathlib import Path

from tagclip.runtime.boxes import Detector, FileBoxes
from tagclip.runtime.detector_graph import engine_beside
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.live import LiveSource
from tagclip.runtime.motion import MotionDetector
from tagclip.runtime.onnx_detector import OnnxDetector
from tagclip.runtime.providers import CPU
from tagclip.runtime.source import VideoSource

SAMPLES = 25  # frames that show the empty scene

MOTION = "motion"
PERSON = "person"
SHIPPED = Path(__file__).parent / "data" / "person.onnx"


def graph_of(name: str) -> Path | None:
    """The graph that `--detector` names; None for motion, `SHIPPED` for person.

    Raises:
        ConfigError: no such name.
    """
    if name == MOTION:
        return None
    if name == PERSON:
        return SHIPPED
    if not name.endswith(".onnx"):
        raise ConfigError(
            f"--detector {name}: expected {MOTION} (what moves, before a camera that stands), {PERSON} (the network "
            "that ships) or a file named *.onnx"
        )
    return Path(name)


def detector_of(
    source: VideoSource | LiveSource, boxes: Path | None, graph: Path | None = None, engine: str = CPU
) -> Detector:
    """The file of boxes, or the ONNX graph, or without either motion.

    Args:
        engine: of the encoders; a graph runs on the same, see `engine_beside`.

    Raises:
        SourceError: the file of boxes cannot be read.
        ConfigError, EngineError, MissingExtraError: as `OnnxDetector`.
    """
    if boxes is not None:
        return FileBoxes(boxes)
    if graph is not None:
        return OnnxDetector(graph, (source.width_px, source.height_px), engine=engine_beside(engine))
    return MotionDetector(source.width_px, source.height_px, source.sample(SAMPLES))


def drop_still(detector: Detector) -> bool:
    """Whether what never moves is nobody: so with motion, whose ghosts stand still and whose camera does."""
    return isinstance(detector, MotionDetector)


def describe(detector: Detector) -> str:
    """What finds the people, for a log: "person.onnx (yolo) on cpu, 6 tiles and the whole of each frame"."""
    if not isinstance(detector, OnnxDetector):
        return "boxes" if isinstance(detector, FileBoxes) else "motion"
    looks = f"{len(detector.views) - 1} tiles and the whole" if len(detector.views) > 1 else "the whole"
    return f"{detector.graph.path.name} ({detector.contract.family}) on {detector.graph.engine}, {looks} of each frame"
