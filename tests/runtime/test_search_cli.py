"""`tagclip search` as a user meets it: output, exit status, messages, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tagclip.runtime import cli, detectors, search_cli
from tagclip.runtime.search import Encoders
from tagclip.runtime.terminal import clock

COATS = {"red": (210, 30, 30), "green": (30, 170, 60), "blue": (30, 60, 210)}
Run = Callable[..., tuple[int, str, str]]


class Colours:
    """Crops and words to unit vectors of colour: no bundle, and the right answer is known."""

    def embed(self, items: object, /) -> np.ndarray:
        rows = []
        for item in items:  # type: ignore[attr-defined]
            if isinstance(item, str):
                rows.append(next(coat for name, coat in COATS.items() if name in item))
            else:
                h, w = item.shape[:2]  # the coat
                rows.append(item[h // 4 : h // 2, w // 3 : 2 * w // 3].reshape(-1, 3).mean(0))
        vectors = np.array(rows, np.float32) - 110.0
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `tagclip search` in this process, with encoders of colour: (exit status, stdout, stderr)."""
    monkeypatch.setattr(
        search_cli, "_encoders", lambda bundle, view, engine: Encoders(Colours(), Colours(), "colours", view)
    )

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(["search", *(str(argument) for argument in arguments)])
        return exit_.value.code, *capsys.readouterr()  # type: ignore[return-value]

    return run


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six seconds: somebody in red and somebody in blue cross a textured square, each on an own row."""
    path = tmp_path / "clip.mp4"
    noise = np.random.default_rng(0).integers(85, 135, (60, 80, 1)).astype(np.uint8)
    ground = cv2.resize(cv2.cvtColor(noise, cv2.COLOR_GRAY2BGR), (320, 240))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    for index in range(60):
        image = ground.copy()
        for x, y, coat in ((20 + 4 * index, 30, "red"), (290 - 4 * index, 150, "blue")):
            cv2.circle(image, (x, y), 6, (130, 150, 190), -1)
            cv2.rectangle(image, (x - 10, y + 6), (x + 10, y + 32), COATS[coat][::-1], -1)
            cv2.rectangle(image, (x - 9, y + 32), (x + 9, y + 66), (45, 30, 30), -1)
        writer.write(image)
    writer.release()
    return path


def test_a_table_with_the_best_first(run: Run, clip: Path) -> None:
    code, out, err = run("somebody in red", clip)
    assert code == 0
    head, first, second = out.splitlines()
    assert head.split() == ["rank", "score", "track", "time", "frame", "box", "x,y,w,h"]
    rank, score, _, time, frame, box = first.split()
    assert (rank, time) == ("1", "0:00-0:05")
    assert float(score) > 0.8 > float(second.split()[1])
    x, y, w, h = map(int, box.split(","))
    assert abs(x + w / 2 - (20 + 4 * int(frame))) < 6 and abs(y - 24) < 8 and 60 < h < 90
    assert "2 people compared" in err


def test_json_is_all_that_stdout_holds(run: Run, clip: Path) -> None:
    code, out, _ = run("somebody in blue", clip, "--json", "--top", 1)
    assert code == 0
    data = json.loads(out)
    assert (data["query"], data["encoder_id"], data["view"]) == ("somebody in blue", "colours", "auto")
    (hit,) = data["results"]
    assert hit["best"]["crop"] is None and hit["best"]["box_xywh_px"][1] > 120


def test_out_holds_sheet_crops_video_and_json(run: Run, clip: Path, tmp_path: Path) -> None:
    out_dir = tmp_path / "found" / "here"
    code, out, err = run("somebody in red", clip, "--out", out_dir, "--json", "--view", "aerial")
    assert code == 0
    names = sorted(str(path.relative_to(out_dir)) for path in out_dir.rglob("*") if path.is_file())
    assert names == ["annotated.mp4", "crops/01.jpg", "crops/02.jpg", "results.json", "sheet.png"]
    assert json.loads((out_dir / "results.json").read_text()) == json.loads(out)
    crop = cv2.imread(json.loads(out)["results"][0]["best"]["crop"])
    assert crop[crop.shape[0] // 3, crop.shape[1] // 2, 2] > 150  # red
    assert cv2.imread(str(out_dir / "sheet.png")) is not None
    assert f"written: {out_dir}" in err
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["here"]


def test_boxes_replace_the_detector(run: Run, clip: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("".join(f"{i + 1},1,{10 + 4 * i},24,20,72\n" for i in range(60)))
    code, out, err = run("somebody in red", clip, "--boxes", boxes)
    assert code == 0 and len(out.splitlines()) == 2 and "1 person compared" in err
    assert run("somebody in red", clip, "--detector", "boxes", "--boxes", boxes)[1] == out


def test_folder_of_images(run: Run, tmp_path: Path) -> None:
    for name, coat in COATS.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((60, 24, 3), coat[::-1], np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no")
    out_dir = tmp_path.with_name("images-found")
    code, out, err = run("green", tmp_path, "--top", 1, "--out", out_dir)
    assert code == 0
    assert out.splitlines()[1].split() == ["1", "1.000", str(tmp_path / "green.png")]
    assert "3 images compared" in err and "warning: 1 image left out" in err
    assert sorted(path.name for path in out_dir.iterdir()) == ["crops", "results.json", "sheet.png"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["", "{clip}"], 1, "empty"),
        (["red", "{tmp}/gone.mp4"], 1, "no such file"),
        (["red", "{tmp}/notes.txt"], 1, "not a video"),
        (["red", "{tmp}/hollow"], 1, "holds no image"),
        (["red", "{clip}", "--boxes", "{tmp}/gone.txt"], 1, "gone.txt"),
        (["red", "{clip}", "--boxes", "{tmp}/notes.txt"], 1, "line 1"),
        (["red", "{clip}", "--out", "{tmp}"], 1, "not empty; remove it or choose another name"),
        (["red", "{clip}", "--out", "{clip}"], 1, "is a file"),
        (["red", "{clip}", "--detector", "boxes"], 2, "needs --boxes FILE"),
        (["red", "{clip}", "--detector", "motion", "--boxes", "x"], 2, "drop one"),
        (["red", "{tmp}/images", "--detector", "motion"], 2, "no --detector"),
        (["red", "{clip}", "--top", "0"], 2, "--top"),
        (["red", "{clip}", "--view", "sideways"], 2, "--view"),
        (["red"], 2, "SOURCE"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    run: Run, clip: Path, tmp_path: Path, arguments: list[str], status: int, says: str
) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((8, 4, 3), np.uint8))
    code, out, err = run(*(argument.format(clip=clip, tmp=tmp_path) for argument in arguments))
    assert code == status
    assert out == "" and says in err and "Traceback" not in err


def test_a_taken_output_is_refused_before_the_work(
    run: Run, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectors, "detector_of", lambda *args: pytest.fail("the work began"))
    assert run("red", clip, "--out", clip.parent)[0] == 1


def test_a_failure_leaves_nothing_behind(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagclip.runtime import annotate
    from tagclip.runtime.errors import OutputError

    def full(*args: object, **kwargs: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(annotate, "write_annotated", full)
    before = sorted(tmp_path.iterdir())
    code, out, err = run("red", clip, "--out", tmp_path / "found")
    assert (code, out) == (1, "") and "the disk is full" in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("time_s", "shown"), [(0.0, "0:00"), (61.9, "1:01"), (3725.0, "1:02:05")])
def test_clock(time_s: float, shown: str) -> None:
    assert clock(time_s) == shown
