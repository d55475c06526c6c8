"""The truth of a scene in the form of the MOTChallenge, which trackers are scored by (TrackEval, py-motmetrics)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tagclip.runtime.errors import one_line

PEDESTRIAN = 1  # class of MOT16 to MOT20


def gt_text(frames: list[dict[str, Any]]) -> str:
    """Lines of gt.txt, by frame and then identity: `frame,id,left,top,width,height,1,1,visibility`.

    Frames count from 1. Pixels count from 0 as in the JSON, so that a tracker's boxes need no shift.

    Args:
        frames: `frames` of a scene's truth.
    """
    return "".join(
        f"{frame['frame'] + 1},{person['id']},"
        + ",".join(f"{value:g}" for value in person["box_xywh_px"])
        + f",1,{PEDESTRIAN},{person['visible']:g}\n"
        for frame in frames
        for person in frame["people"]
    )


def seqinfo_text(name: str, truth: dict[str, Any]) -> str:
    """seqinfo.ini of a sequence: `name` is the folder's, `truth` a scene's."""
    return (
        f"[Sequence]\nname={one_line(name)}\nimDir=img1\nframeRate={truth['fps']}\nseqLength={len(truth['frames'])}\n"
        f"imWidth={truth['width_px']}\nimHeight={truth['height_px']}\nimExt=.jpg\n"
    )


def write_mot(folder: Path, name: str, truth: dict[str, Any]) -> None:
    """Fill the empty `folder` with gt/gt.txt and seqinfo.ini of a scene's truth; `name` is what it will be called."""
    (folder / "gt").mkdir()
    (folder / "gt" / "gt.txt").write_text(gt_text(truth["frames"]), encoding="ascii")
    (folder / "seqinfo.ini").write_text(seqinfo_text(name, truth), encoding="utf-8")
