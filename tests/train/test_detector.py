"""The detector's pictures, targets, loss, training, scores, and its graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from fixtures.person_net import person_net

from tagclip.runtime.boxes import Detections
from tagclip.runtime.errors import DataError, OutputError
from tagclip.runtime.source import Frame
from tagclip.train.detector.fit import fit
from tagclip.train.detector.model import STRIDE_PX, Peaks
from tagclip.train.detector.pictures import SIDE_PX, Still, read_stills, varied
from tagclip.train.detector.score import SCENE_STEP, looks_at_scene, looks_at_stills, score
from tagclip.train.detector.targets import loss_of, stacked, target_of
from tagclip.train.track_scores import truth_of

WHITE = 250


def boxes_of(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def toy(folder: Path, count: int = 8) -> Path:
    """Stills of white upright blocks on grey, which are the people."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(1)
    rows = []
    for number in range(count):
        image = np.full((240, 320, 3), 90, np.uint8)
        people = []
        for k in range(2):
            x, y, h = (
                20 + 150 * k + int(rng.integers(60)),
                int(rng.integers(10, 120)),
                int(rng.integers(60, 100)),
            )
            image[y : y + h, x : x + h // 3] = WHITE
            people.append({"box_xywh_px": [x, y, h // 3, h], "visible": 1.0, "posture": "standing"})
        cv2.imwrite(str(folder / "images" / f"{number:06d}.jpg"), image)
        rows.append({"file": f"{number:06d}.jpg", "people": people})
    (folder / "stills.json").write_text(json.dumps({"stills": rows}))
    return folder


def test_a_target_points_at_the_middle() -> None:
    target = target_of(boxes_of((40, 20, 60, 80)), np.array([True]), (160, 96))
    row, column = np.unravel_index(target.heat.argmax(), target.heat.shape)
    assert (column, row) == (50 // STRIDE_PX, 50 // STRIDE_PX) and target.heat.max() == 1
    answering = target.weight > 0
    assert answering[row, column] and 3 <= answering.sum() <= 40
    assert (target.box[:, answering] == np.array([[40], [20], [60], [80]])).all() and target.counts.all()


def test_of_two_boxes_the_smaller_has_the_shared_cell() -> None:
    target = target_of(boxes_of((0, 0, 100, 200), (40, 80, 60, 120)), np.array([True, True]), (160, 208))
    assert (target.box[:, 100 // STRIDE_PX, 50 // STRIDE_PX] == (40, 80, 60, 120)).all()
    assert target.heat.max() == 1


def test_who_hardly_shows_is_not_asked_for() -> None:
    target = target_of(boxes_of((40, 20, 60, 80)), np.array([False]), (160, 96))
    assert target.heat.max() == 0 and target.weight.max() == 0
    assert not target.counts[5:20, 10:15].any() and target.counts.sum() == target.counts.size - 15 * 5


def test_the_loss_by_hand() -> None:
    """Of one person that is said with 0.8, on a map that says 0.1 elsewhere; the box half as wide as it should be."""
    box = boxes_of((8, 8, 16, 24))
    target = target_of(box, np.array([True]), (32, 32))
    said = np.where(target.heat == 1, 0.8, 0.1)
    logits = torch.logit(torch.tensor(said))[None, None].float()
    rows, columns = np.nonzero(target.weight)
    sides = torch.zeros(1, 4, 8, 8)
    for y, x in zip(rows, columns, strict=True):
        middle = np.array([x + 0.5, y + 0.5]) * STRIDE_PX
        near = [
            middle[0] - 8,
            middle[1] - 8,
            12 - middle[0],
            24 - middle[1],
        ]  # the right side at 12, not at 16
        sides[0, :, y, x] = torch.tensor(near)
    found, boxes = loss_of(logits, sides, stacked([target]))
    quiet = -np.log(0.9) * 0.1**2 * (1 - target.heat[target.heat < 1]) ** 4
    assert found.item() == pytest.approx(-np.log(0.8) * 0.2**2 + quiet.sum(), rel=1e-4)
    assert boxes.item() == pytest.approx(
        2.0 * (1 - 0.5), rel=1e-3
    )  # GIoU of a half inside the whole is IoU, 0.5


def test_nobody_gives_a_loss() -> None:
    target = target_of(boxes_of(), np.empty(0, np.bool_), (32, 32))
    found, boxes = loss_of(torch.zeros(1, 1, 8, 8), torch.ones(1, 4, 8, 8), stacked([target]))
    assert found.item() == pytest.approx(64 * np.log(2) * 0.25, rel=1e-4) and boxes.item() == 0


@pytest.mark.parametrize("seed", range(12))
def test_a_varied_picture_keeps_its_boxes(seed: int, tmp_path: Path) -> None:
    """Where the block is white in the picture, there is its box, whatever was done to it."""
    image = np.zeros((336, 448, 3), np.uint8)
    image[100:200, 150:200] = 255
    still = Still(tmp_path, boxes_of((150, 100, 200, 200)), np.ones(1, np.float32))
    rng = np.random.default_rng(seed)
    made, target = varied(image, still, rng)
    assert made.shape == (SIDE_PX, SIDE_PX, 3) and made.dtype == np.uint8
    answering = target.weight > 0
    if not answering.any():
        pytest.skip("nobody in this part")
    left, top, right, bottom = target.box[:, answering][:, 0]
    grey = made.mean(-1)
    inside = grey[round(top) + 3 : round(bottom) - 3, round(left) + 3 : round(right) - 3]
    assert inside.size and np.median(inside) > 120
    for strip in (grey[round(top) : round(bottom), max(round(left) - 12, 0) : max(round(left) - 5, 0)],):
        if strip.size:
            assert np.median(strip) < np.median(inside)


def test_training_learns(tmp_path: Path) -> None:
    first = fit([toy(tmp_path / "toy")], tmp_path / "one", epochs=1, batch=3, lr=2e-3)
    last = fit([tmp_path / "toy"], tmp_path / "more", epochs=4, batch=3, lr=2e-3, workers=0)
    assert last["found"] < 0.8 * first["found"] and last["boxes"] < first["boxes"]
    assert {path.name for path in (tmp_path / "more").iterdir()} == {"model.safetensors", "metrics.json"}


@pytest.mark.parametrize("change", ["none", "text", "keys"])
def test_a_folder_without_stills(tmp_path: Path, change: str) -> None:
    folder = toy(tmp_path / "toy")
    path = folder / "stills.json"
    if change == "none":
        path.unlink()
    elif change == "text":
        path.write_text("not JSON")
    else:
        path.write_text('{"stills": [{"file": 3}]}')
    with pytest.raises(DataError, match="tagclip synth stills"):
        read_stills(folder)


class Told:
    """Says for each still what it is told to."""

    def __init__(self, answers: list[np.ndarray], scores: list[float]) -> None:
        self.answers, self.scores = answers, scores

    def detect(self, frame: Frame) -> Detections:
        boxes = self.answers[frame.index].copy()
        boxes[:, 2:] -= boxes[:, :2]
        return Detections(boxes, np.full(len(boxes), self.scores[frame.index], np.float32))


def test_scores(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    stills = read_stills(toy(tmp_path / "toy"))[0]
    right = [still.boxes for still in stills]
    everybody = score(Told(right, [0.9] * len(right)), looks_at_stills(stills))
    assert everybody["all"]["ap50"] == everybody["24 and more"]["ap50"] == pytest.approx(1)
    assert everybody["8 to 16"]["people"] == 0 and everybody["24 and more"]["people"] == 2 * len(stills)
    one_of_two = score(Told([boxes[:1] for boxes in right], [0.9] * len(right)), looks_at_stills(stills))
    assert one_of_two["all"]["recall"] == pytest.approx(0.5)
    assert one_of_two["all"]["ap50"] == pytest.approx(0.5, abs=0.01)  # precision 1 up to a recall of a half
    nobody = score(Told([boxes[:0] for boxes in right], [0.9] * len(right)), looks_at_stills(stills))
    assert nobody["all"]["ap50"] == nobody["all"]["recall"] == 0


def test_who_hardly_shows_costs_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    stills = read_stills(toy(tmp_path / "toy"))[0]
    hidden = [Still(still.path, still.boxes, np.array([1.0, 0.1], np.float32)) for still in stills]
    for answers in ([still.boxes for still in stills], [still.boxes[:1] for still in stills]):
        assert score(Told(answers, [0.9] * len(stills)), looks_at_stills(hidden))["all"][
            "ap50"
        ] == pytest.approx(1)


def test_a_scene_is_scored_by_its_truth() -> None:
    """The boxes are those of the same frame: who tells them is right, who tells those of the look before is not."""
    video = Path(__file__).parents[2] / "runtime" / "data" / "example.mp4"
    truth = truth_of(video)
    for frame in truth["frames"]:
        for person in frame["people"]:
            person["visible"] = 1.0  # this one was rendered when that was not told
    looks = list(looks_at_scene(video, truth))
    assert len(looks) == -(-len(truth["frames"]) // SCENE_STEP) and looks[0].image.shape[2] == 3
    right = [look.boxes for look in looks]
    told = score(Told(right, [0.9] * len(right)), looks)
    assert told["24 and more"]["ap50"] == pytest.approx(1) and told["24 and more"]["people"] > 100
    late = score(Told(right[:1] + right[:-1], [0.9] * len(right)), looks)
    assert late["24 and more"]["ap50"] < 0.7


@pytest.mark.usefixtures("exported_once")
def test_the_graph_is_the_network(tmp_path: Path) -> None:
    """At any size; and the runtime reads from it what stands on the map."""
    pytest.importorskip("onnxscript")
    ort = pytest.importorskip("onnxruntime")
    from tagclip.export.detector import export_detector
    from tagclip.runtime.onnx_detector import OnnxDetector
    from tagclip.train.checkpoint import write_tensors

    net = person_net()
    write_tensors(tmp_path / "run" / "model.safetensors", net.state_dict())
    assert export_detector(tmp_path / "run", tmp_path / "person.onnx", "Apache-2.0") < 5e-3
    session = ort.InferenceSession(tmp_path / "person.onnx", providers=["CPUExecutionProvider"])
    frame = np.random.default_rng(2).integers(0, 256, (1, 128, 224, 3), dtype=np.uint8)
    heat, sides = session.run(None, {"frames": frame})
    with torch.no_grad():
        wanted, wanted_sides = Peaks(net)(torch.from_numpy(frame))
    tops = (heat > 0.3) & (wanted.numpy() > 0.3)
    assert tops.sum() >= 5 and np.abs(heat - wanted.numpy())[tops].max() < 5e-3
    assert np.abs(sides / wanted_sides.numpy() - 1).max() < 0.05
    found = OnnxDetector(tmp_path / "person.onnx", (224, 128)).detect(Frame(0, 0.0, frame[0]))
    assert len(found.scores) and found.scores.max() == pytest.approx(heat.max(), abs=1e-4)
    with pytest.raises(OutputError, match="exist"):
        export_detector(tmp_path / "run", tmp_path / "person.onnx", "Apache-2.0")


def test_stills_are_the_same_whoever_makes_them(tmp_path: Path) -> None:
    pytest.importorskip("anny")
    from tagclip.train.synth.stills import SIZE_PX, write_stills

    counts: list[dict[str, Any]] = []
    for workers in (1, 2):
        counts.append(write_stills(tmp_path / str(workers), 5, seed=4, workers=workers))
    first, second = tmp_path / "1", tmp_path / "2"
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*.*"))
    assert names == sorted(str(path.relative_to(second)) for path in second.rglob("*.*")) and len(names) == 6
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    rows = json.loads((first / "stills.json").read_text())["stills"]
    people = [person for row in rows for person in row["people"]]
    assert counts[0] == counts[1] == {"stills": 5, "people": len(people)} and len(people) >= 5
    for person in people:
        x, y, w, h = person["box_xywh_px"]
        assert 0 <= x < x + w <= SIZE_PX[0] + 0.1 and 0 <= y < y + h <= SIZE_PX[1] + 0.1
        assert 0 <= person["visible"] <= 1
    with pytest.raises(OutputError):
        write_stills(first, 5)
