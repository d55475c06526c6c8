"""The benchmark measures what it says: a stage that is slowed shows up as that stage, people are as many as asked for,
and the numbers of its tables follow from its raw times."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tagclip.runtime import bench, bench_encoders, bench_run, cli
from tagclip.runtime.bench import (
    LATENCY,
    STAGES,
    STORE_EVERY,
    WARM_UP_FRAMES,
    Pass,
    Work,
    match,
    measure,
    standing_queries,
)
from tagclip.runtime.bench_accuracy import accuracy, read_pictures
from tagclip.runtime.bench_cli import bench as command
from tagclip.runtime.bench_encoders import OURS, compare, load_rivals
from tagclip.runtime.bench_machine import Watch, describe_machine, mean_watts
from tagclip.runtime.bench_page import page, read_raw
from tagclip.runtime.bench_report import summary
from tagclip.runtime.bench_scene import EXAMPLE, Scene
from tagclip.runtime.bench_spread import spread
from tagclip.runtime.boxes import Detections
from tagclip.runtime.bundle import Bundle
from tagclip.runtime.encoder import ImageEncoder
from tagclip.runtime.engines import Engines
from tagclip.runtime.errors import DataError, MissingExtraError, SourceError
from tagclip.runtime.source import VideoSource
from tagclip.runtime.store import TrackStore
from tagclip.runtime.tracker import Tracker

SIZE_PX = (192, 108)  # small frames: only what sleeps takes long
SLEEP_S = 0.03


class Nobody:
    """A detector that finds nobody."""

    def detect(self, frame: object) -> Detections:
        return Detections.none()


def asleep(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same, later."""

    def later(*given: Any, **named: Any) -> Any:
        time.sleep(SLEEP_S)
        return call(*given, **named)

    return later


@pytest.fixture(scope="module")
def work(tiny_bundle: Bundle) -> Work:
    judge = standing_queries(3, tiny_bundle.manifest.embedding_dim)
    return Work(Nobody, ImageEncoder(tiny_bundle, "aerial"), judge)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(VideoSource(EXAMPLE), SIZE_PX)


def times_ms(work: Work, scene: Scene, folder: Path) -> dict[str, list[float]]:
    """The times of every stage and the latency, with two people in a frame."""
    with TrackStore(folder / "store.db") as store:
        timed = Work(work.detector, work.encoder, work.judge, store)
        (one,) = measure(scene, timed, [2], 2 * STORE_EVERY, 1)
    return {name: [ns / 1e6 for ns in one.times_ns[name]] for name in (*STAGES, LATENCY)}


@pytest.fixture(scope="module")
def unslowed(work: Work, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    return times_ms(work, scene, tmp_path_factory.mktemp("unslowed"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_slowed_stage_shows_as_that_stage(
    stage: str,
    unslowed: dict[str, list[float]],
    work: Work,
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, name = {
        "decode": (scene, "_source"),
        "detect": (Nobody, "detect"),
        "track": (Tracker, "update"),
        "embed": (ImageEncoder, "embed"),
        "match": (bench, "match"),
        "store": (TrackStore, "add"),
    }[stage]
    slow = Slow(EXAMPLE) if stage == "decode" else asleep(getattr(owner, name))
    monkeypatch.setattr(owner, name, slow)
    found = times_ms(work, scene, tmp_path)
    assert statistics.median(found[stage]) >= 1000 * SLEEP_S
    # The shortest times, which other work on the machine cannot make much longer.
    rose = {name: min(found[name]) - min(unslowed[name]) for name in found}
    shown = {name for name, rise in rose.items() if rise > 500 * SLEEP_S}
    assert shown == {stage} | ({LATENCY} if stage not in ("decode", "store") else set())


class Slow(VideoSource):
    """A video that takes its time for each frame."""

    def __iter__(self) -> Any:
        for frame in super().__iter__():
            time.sleep(SLEEP_S)
            yield frame


class Counting:
    """An encoder that notes how many crops it was given at a time, and how large they were."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, ...]]] = []

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        self.batches.append([crop.shape for crop in crops])
        return np.tile(np.eye(1, 4, dtype=np.float32), (len(crops), 1))


@pytest.mark.parametrize("people", [1, 7, 20])
def test_every_frame_has_exactly_so_many_people(people: int, scene: Scene) -> None:
    encoder = Counting()
    work = Work(Nobody, encoder, standing_queries(2, 4))
    (one,) = measure(scene, work, [people], 5, 1)
    assert one.boxes == [people] * 5
    assert [len(batch) for batch in encoder.batches] == [people] * (5 + WARM_UP_FRAMES)
    assert all(len(times) == (0 if name == "store" else 5) for name, times in one.times_ns.items())


def test_people_are_pasted_where_the_boxes_say() -> None:
    """Each frame differs from the video's own inside of the boxes only, and there it shows a person of the clip."""
    scene, source = Scene(VideoSource(EXAMPLE)), VideoSource(EXAMPLE)
    for shown, own in zip(scene.play(5, 3), source, strict=False):
        assert shown.people is not None
        outside = np.ones(own.image.shape[:2], bool)
        for x, y, w, h in shown.people.boxes_xywh_px.astype(int):
            assert h == round(0.2 * own.image.shape[0])
            assert 0 <= x and x + w <= own.image.shape[1] and 0 <= y and y + h <= own.image.shape[0]
            assert (shown.frame.image[y : y + h, x : x + w] != own.image[y : y + h, x : x + w]).mean() > 0.5
            outside[y : y + h, x : x + w] = False
        np.testing.assert_array_equal(shown.frame.image[outside], own.image[outside])


def test_a_video_that_is_over_starts_again_and_time_goes_on(scene: Scene) -> None:
    count = VideoSource(EXAMPLE).frame_count
    shown = [(entry.frame.index, entry.frame.time_s, entry.opened) for entry in scene.play(None, count + 3)]
    assert [index for index, _, _ in shown] == list(range(count + 3))
    assert np.all(np.diff([time_s for _, time_s, _ in shown]) > 0)
    assert [index for index, _, opened in shown if opened] == [0, count]


def test_match_gives_everybody_a_chance() -> None:
    judge = standing_queries(4, 16)
    people = np.random.default_rng(3).standard_normal((5, 16)).astype(np.float32)
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    found = match(people, judge)
    assert found.shape == (5, 4) and ((found > 0) & (found <= 1)).all()
    for row, vector in zip(found, people, strict=True):
        assert row == pytest.approx(judge.judge("unknown", vector, 5)[1])
    assert match(people[:0], judge).shape == (0, 4)


def raw_of(passes: list[Pass], encoders: list[dict[str, Any]], load: float = 0.0) -> dict[str, Any]:
    return {
        "passes": [vars(one) for one in passes],
        "encoders": encoders,
        "machine": {"load": load, "cores": 2},
    }


def test_the_numbers_follow_from_the_times() -> None:
    ms = 1_000_000
    one, other = Pass(0, 5), Pass(1, 5)
    for k in range(1, 101):
        target = one if k % 2 else other
        target.boxes.append(5)
        target.times_ns[LATENCY].append(k * ms)
        for name, value in {"decode": 1, "detect": 2, "track": 3, "embed": 3, "match": 1}.items():
            target.times_ns[name].append(value * ms)
    one.boxes.append(0)  # nobody there, nothing to be alerted of
    one.times_ns[LATENCY].append(10_000 * ms)
    one.times_ns["store"].append(500 * ms)  # is no part of the rate
    rounds = {OURS: [[2, 1, 9], [4, 4, 4], [3, 3, 3]], "theirs": [[8, 8, 8], [8, 8, 8], [30, 30, 30]]}
    found = summary(raw_of([one, other], [{"batch": 5, "times_ns": rounds}]))
    (row,) = found["pipeline"]
    # Percentiles of 1..100 with linear interpolation: 1 + 99 p.
    assert row["latency_ms"] == pytest.approx({"p50": 50.5, "p95": 95.05, "p99": 99.01})
    assert row["fps"] == pytest.approx(100.0)
    assert row["stages_ms"]["store"]["p50"] == pytest.approx(500)
    assert row["frames"] == 101 and row["boxes"] == pytest.approx(500 / 101)
    (encoder,) = found["encoders"]
    assert encoder["ratios"]["theirs"] == [4, 2, 10]  # of the rounds' medians
    assert encoder["ratio"]["theirs"] == 4
    assert encoder["images_per_s"][OURS] == pytest.approx(5e9 / 3)


def test_a_busy_a_slowed_and_an_uneven_machine_are_said() -> None:
    one, other = Pass(0, 1), Pass(1, 1)
    for target, value in ((one, 1), (other, 2)):
        target.boxes.append(1)
        for name in target.times_ns:
            target.times_ns[name].append(value)
    assert len(summary(raw_of([one], []))["warnings"]) == 0
    one.looks.append({"throttled": ["cpufreq-cpu0"]})
    warnings = summary(raw_of([one, other], [], load=1.5))["warnings"]
    assert len(warnings) == 3
    assert "load 1.5 on 2 cores" in warnings[0]
    assert "cpufreq-cpu0" in warnings[1]
    assert "67%" in warnings[2]  # 1 and 2 around 1.5


def test_accuracy_of_the_engine_on_a_folder(tiny_bundle: Bundle, toy_data: Path) -> None:
    """The toy encoders rank colours, and every person has one of six: with 4 pictures each nothing is confused."""
    pictures = read_pictures(toy_data)
    ticks: list[tuple[int, int]] = []
    for view in ("own", "auto"):
        found = accuracy(Engines(tiny_bundle), pictures, view, lambda *tick: ticks.append(tick))
        assert found["all"] == {"r1": 100.0, "map": 100.0, "queries": 48, "gallery": 24}
        assert found["aerial"]["gallery"] == found["ground"]["gallery"] == 12
    assert ticks[-1] == (24, 24)
    wrong = [*pictures[1:], pictures[0]]  # every picture is somebody's, sometimes another's
    swapped = [
        type(one)(one.path, other.identity, one.view, other.captions)
        for one, other in zip(pictures, wrong, strict=True)
    ]
    assert accuracy(Engines(tiny_bundle), swapped, "own", lambda *tick: None)["all"]["map"] < 90


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "at least one"),
        ('[{"file_path": "a.jpg", "id": 1, "captions": ["x"]}, 3]', "row 1: expected"),
        ('[{"file_path": "../a.jpg", "id": 1, "captions": ["x"]}]', "row 0: file_path '../a.jpg' leaves"),
        ('[{"file_path": "a.jpg", "id": 1, "captions": []}]', "row 0: expected"),
    ],
)
def test_broken_annotations_are_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "test_reid.json").write_text(content)
    with pytest.raises(DataError, match=said):
        read_pictures(tmp_path)


def test_the_machine_is_read_from_the_kernel(tmp_path: Path) -> None:
    def put(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    put("proc/device-tree/model", "NVIDIA Jetson Orin Nano\0")
    put("proc/cpuinfo", "processor\t: 0\nCPU part\t: 0xd42")
    put("proc/meminfo", "MemTotal:  7800000 kB\nMemAvailable: 5000000 kB")
    for core, khz in enumerate((729600, 1510400)):
        put(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", str(khz))
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil")
    put("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "1510400")
    put("sys/class/thermal/thermal_zone0/type", "cpu-thermal")
    put("sys/class/thermal/thermal_zone0/temp", "51500")
    for name, text in {
        "name": "ina3221",
        "in1_label": "VDD_IN",
        "in1_input": "5000",
        "curr1_input": "1200",
    }.items():
        put(f"sys/class/hwmon/hwmon1/{name}", text)
    put("sys/class/powercap/intel-rapl:0/name", "package-0")
    put("sys/class/powercap/intel-rapl:0/energy_uj", "4000000")
    put("sys/class/powercap/intel-rapl:0:0/energy_uj", "1000000")  # a part of it
    told = describe_machine(tmp_path)
    assert (told["board"], told["cpu"]) == ("NVIDIA Jetson Orin Nano", "Arm, part 0xd42")
    assert (told["governor"], told["mhz_most"], told["memory_bytes"]) == ("schedutil", 1510.4, 7_987_200_000)
    look = Watch(tmp_path).look()
    assert look["mhz"] == [729.6, 1510.4]
    assert look["temperature_c"] == {"cpu-thermal": 51.5}
    assert look["power_w"] == {"VDD_IN": 6.0}
    assert look["energy_j"] == {"package-0 0": 4.0}


def test_watts_are_means_of_rails_and_differences_of_counters() -> None:
    looks = [
        {"at_s": 1.0, "power_w": {"VDD_IN": 6.0}, "energy_j": {"package-0 0": 100.0, "package-1 1": 900.0}},
        {"at_s": 3.0, "power_w": {"VDD_IN": 8.0}, "energy_j": {"package-0 0": 130.0, "package-1 1": 5.0}},
    ]
    assert mean_watts(looks) == {"VDD_IN": 7.0, "package-0 0": 15.0}  # the second counter began again
    assert mean_watts([]) == {}


def test_encoders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_encoders, "BLOCK_NS", 0)
    order: list[str] = []
    encoders = {name: (lambda crops, name=name: order.append(f"{name}{len(crops)}")) for name in ("a", "b")}
    (row,) = compare(encoders, [np.zeros((4, 4, 3), np.uint8)], [3], 2)
    assert {name: [len(times) for times in rounds] for name, rounds in row["times_ns"].items()} == {
        "a": [3, 3],
        "b": [3, 3],
    }
    # One call to warm up, and one round that does not count.
    assert order == (["a3"] * 4 + ["b3"] * 4) * 3
    monkeypatch.setattr(bench_encoders, "BLOCK_NS", 20_000_000)
    (row,) = compare({"a": lambda crops: time.sleep(0.002)}, [np.zeros((4, 4, 3), np.uint8)], [1], 1)
    (taken,) = row["times_ns"]["a"]
    assert 3 <= len(taken) <= 10 and sum(taken) >= 20_000_000


def test_a_rival_in_the_place_of_ours_is_told_apart(
    call: Callable[..., tuple[int, str, str]],
    tiny_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its stages stand beside ours, and its slower encoder shows in `embed` and in nothing else."""

    class Theirs:
        facts: ClassVar = {"model": "Toy, image encoder", "precision": "fp32", "engine": "Abacus 1"}
        dim = 12

        def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
            time.sleep(SLEEP_S)
            return np.tile(np.eye(1, self.dim, dtype=np.float32), (len(crops), 1))

    monkeypatch.setattr(bench_run, "load_rivals", lambda names: {name: Theirs() for name in names})
    monkeypatch.setattr(bench_encoders, "BLOCK_NS", 0)
    out = tmp_path / "raw.json"
    status, text, errors = call(tiny_bundle.path, EXAMPLE, *QUICK, "--against", "onnxruntime", "--out", out)
    assert status == 0, errors
    assert ["onnxruntime", "3"] in [line.split()[:2] for line in text.splitlines()]
    raw = read_raw(out)
    rows = {(row["encoder"], row["people"]): row for row in raw["summary"]["pipeline"]}
    assert list(rows) == [(OURS, None), (OURS, 1), (OURS, 3), ("onnxruntime", 1), ("onnxruntime", 3)]
    theirs = rows["onnxruntime", 3]
    assert theirs["frames"] == 2 * 3 and theirs["stages_ms"]["store"] is None
    assert theirs["stages_ms"]["embed"]["p50"] >= 1000 * SLEEP_S
    assert theirs["latency_ms"]["p50"] >= theirs["stages_ms"]["embed"]["p50"]
    written = page([raw])
    assert written.count("| A | Toy, Abacus 1 | 3 |") == 2
    assert written.count("| A | ours | 3 |") == 2


def ratios_of(*each: float, rival: str = "theirs", cores: int = 2) -> list[dict[str, Any]]:
    """Raw files of runs in which one crop takes the rival so many times as long as ours."""
    return [
        {
            "artefact": {"sha256": "0", "engine": "cpu"},
            "machine": {"cpu": "Abacus", "cores": cores},
            "rivals": {rival: {}},
            "encoders": [{"batch": 5}],
            "summary": {"encoders": [{"batch": 5, "ratio": {rival: ratio}}]},
        }
        for ratio in each
    ]


def test_runs_agree_in_their_ratios_or_the_worst_is_told() -> None:
    (row,) = spread(ratios_of(20.0, 19.0, 20.5, 20.0, 23.0))
    assert (row["batch"], row["encoder"], row["median"]) == (5, "theirs", 20.0)
    assert row["farthest"] == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (ratios_of(20.0), "two runs or more, found 1"),
        (ratios_of(20.0) + ratios_of(20.0, rival="other"), "with the same rivals"),
        (ratios_of(20.0) + ratios_of(20.0, cores=4), "and machine"),
        ([row | {"summary": {"encoders": []}} for row in ratios_of(1.0, 1.0)], "with --against"),
    ],
    ids=["one", "rivals", "machines", "no ratios"],
)
def test_runs_that_do_not_compare_are_refused(runs: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        spread(runs)


@pytest.mark.slow
def test_rivals_compute_the_same(tiny_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager, exported and on OpenVINO are one network: what is compared is the engine."""
    from tagclip.export import rivals

    crops = [np.random.default_rng(k).integers(0, 256, (90, 40 + k, 3), dtype=np.uint8) for k in range(3)]
    built = rivals.build(list(rivals.NAMES), tiny_clip)
    eager, *others = (rival.embed(crops) for rival in built.values())
    np.testing.assert_allclose(np.linalg.norm(eager, axis=1), 1, atol=1e-5)
    for vectors in others:
        np.testing.assert_allclose(vectors, eager, atol=1e-4)
    assert built["openvino"].embed([]).shape == (0, built["openvino"].dim) == (0, eager.shape[1])
    assert sys.modules["openvino_telemetry"] is None  # it tells its maker of every import
    assert abs(float(eager[0] @ eager[1])) < 1 - 1e-4  # it looks at the crops
    facts = built["onnxruntime"].facts
    assert facts["weights"] == "random" and facts["engine"].startswith("ONNX Runtime")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tagclip\[bench\]'"):
        rivals.build(["openvino"], tiny_clip)


def test_a_device_without_open_clip_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_rivals(()) == {}
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tagclip\[bench\]'"):
        load_rivals(("open_clip",))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.run(command, "tagclip bench", [str(argument) for argument in arguments])
        return exit_.value.code, *capsys.readouterr()  # type: ignore[return-value]

    return call


QUICK = ("--people", "1,3", "--frames", "3", "--rounds", "2", "--queries", "4", "--size", "192x108")


def test_the_whole_way_to_the_page(
    call: Callable[..., tuple[int, str, str]], tiny_bundle: Bundle, toy_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "raw.json"
    status, text, errors = call(tiny_bundle.path, EXAMPLE, *QUICK, "--data", toy_data, "--out", out)
    assert status == 0, errors
    assert "toy (tc1-" in text and "worst cosine" in text and "R@1 100.00 %" in text
    raw = json.loads(out.read_text())
    assert [(one["round"], one["people"]) for one in raw["passes"]] == [
        (number, people) for number in range(2) for people in (None, 1, 3)
    ]
    assert raw["artefact"]["encoder_id"] == tiny_bundle.encoder_id
    assert min(raw["self_test"].values()) > 0.999
    assert 0 < raw["memory"]["before_bytes"] <= raw["memory"]["peak_bytes"]
    for one in raw["passes"]:
        times = one["times_ns"]
        within = np.sum([times[name] for name in ("detect", "track", "embed", "match")], axis=0)
        assert np.all(np.array(times[LATENCY]) == within)  # one clock, nothing between the stages
    again = read_raw(out)
    assert again["summary"] == raw["summary"]
    # The times alone decide: what the file says of itself is not asked.
    raw["passes"][1]["times_ns"][LATENCY] = raw["passes"][4]["times_ns"][LATENCY] = [123_456_789] * 3
    out.write_text(json.dumps(raw))
    written = page([read_raw(out), again])
    assert "| A | ours | 1 | 123.5 | 123.5 | 123.5 |" in written
    assert written.count("| B | ours | 1 |") == 2
    assert "| toy" in written.replace("`", "") and "100.00" in written


def test_json_without_data_says_that_nothing_was_measured(
    call: Callable[..., tuple[int, str, str]], tiny_bundle: Bundle
) -> None:
    status, text, errors = call(tiny_bundle.path, EXAMPLE, *QUICK, "--json")
    assert status == 0, errors
    told = json.loads(text)
    assert told["accuracy"] is None and "passes" not in told
    assert [row["people"] for row in told["summary"]["pipeline"]] == [None, 1, 3]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--people", "0"], 2, "numbers from 1 to 999"),
        (["--size", "768"], 2, "WIDTHxHEIGHT"),
        (["--out", "raw.txt"], 1, "expected a file named *.json"),
        (["--engine", "abacus"], 1, "engine 'abacus': expected one of"),
        (["--detector", "yolo"], 1, "--detector yolo"),
        (["--data", "nowhere"], 1, "test_reid.json"),
    ],
)
def test_wrong_options_are_named(
    arguments: list[str],
    status: int,
    said: str,
    call: Callable[..., tuple[int, str, str]],
    tiny_bundle: Bundle,
) -> None:
    found, text, errors = call(tiny_bundle.path, EXAMPLE, *arguments)
    assert (found, text) == (status, "")
    assert said in errors and "Traceback" not in errors


def test_sources_that_cannot_be_timed_are_named(
    call: Callable[..., tuple[int, str, str]], tiny_bundle: Bundle, toy_data: Path
) -> None:
    assert "expected a video file" in call(tiny_bundle.path, toy_data / "images")[2]
    assert "live camera" in call(tiny_bundle.path, "rtsp://host/path")[2]
    assert "no such file" in call(tiny_bundle.path, "absent.mp4")[2]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "tagclip-bench 2", "passes": []}'])
def test_what_is_no_raw_file_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "raw.json"
    path.write_text(content)
    with pytest.raises(SourceError, match=r"raw\.json is no raw file of `tagclip bench --out`"):
        read_raw(path)
