"""A whole run in seconds: it learns, it goes on after a break to the same numbers, and what is damaged is refused."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tagclip.runtime.errors import CheckpointError, DataError, OutputError, TrainingError
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.checkpoint import is_checkpoint, load_checkpoint, read_tensors
from tagclip.train.config import Config
from tagclip.train.data import load_images, load_split
from tagclip.train.embed import embed_split, evaluate_split
from tagclip.train.loop import Run
from tagclip.train.measure import evaluate_path
from tagclip.train.split import as_split, trim


def make_config(toy_model: dict[str, Any], **train: Any) -> Config:
    settings = {"epochs": 2, "batch": 18, "lr": 4e-3, "warmup": 0.5, "eval_every": 1, "precision": "fp32"}
    return Config.from_json({"name": "toy", "model": toy_model, "train": settings | train})


def silent(what: str, done: int, total: int, note: str) -> None:
    pass


def stop_in_epoch_2(what: str, done: int, total: int, note: str) -> None:
    if what == "epoch 2":
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def unbroken(
    toy_data: Path, toy_model: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("run") / "out"
    return out, Run(make_config(toy_model, weight_id=0.2), toy_data, out, silent).go()


@pytest.fixture
def broken(toy_data: Path, toy_model: dict[str, Any], tmp_path: Path) -> Path:
    """The same run, interrupted in its second epoch."""
    run = Run(make_config(toy_model, weight_id=0.2), toy_data, tmp_path / "out", stop_in_epoch_2)
    with pytest.raises(KeyboardInterrupt):
        run.go()
    return tmp_path / "out"


def test_a_run_learns_colours(toy_data: Path, toy_model: dict[str, Any], tmp_path: Path) -> None:
    """Six colours, so chance is an R@1 of 17 %; the people of `val` are others than those of `train`."""
    config = make_config(toy_model, epochs=6, eval_every=6)
    metrics = Run(config, toy_data, tmp_path, silent).go()
    assert metrics["val"]["all"]["r1"] > 60 and metrics["val"]["all"]["map"] > 50
    first, last = metrics["history"][0], metrics["history"][-1]
    assert last["n_itc"] < first["n_itc"] and "val" not in first and "id" not in first
    assert evaluate_path(tmp_path, toy_data, "test")["all"]["r1"] > 60


def test_resumed_run_gives_the_weights_of_an_unbroken_one(
    unbroken: tuple[Path, dict[str, Any]], broken: Path, toy_data: Path, toy_model: dict[str, Any]
) -> None:
    seen: list[str] = []
    config = make_config(toy_model, weight_id=0.2)
    run = Run(config, toy_data, broken, lambda what, *_: seen.append(what))
    run.resume()
    metrics = run.go()
    assert "epoch 2" in seen and "epoch 1" not in seen
    wanted, found = (read_tensors(folder / "last.safetensors") for folder in (unbroken[0], broken))
    assert set(wanted) == set(found) and any(name.startswith("adamw.exp_avg_sq.") for name in found)
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
    assert timeless(metrics) == timeless(unbroken[1])


def timeless(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in metrics["history"]
    ]


def test_two_captions_and_attributes(toy_data: Path, toy_model: dict[str, Any], tmp_path: Path) -> None:
    """The toy people have no attributes: their loss is zero and the run learns as it does without."""
    config = make_config(toy_model, captions=2, weight_attributes=1.0)
    metrics = Run(config, toy_data, tmp_path, silent).go()
    assert [row["attributes"] for row in metrics["history"]] == [0.0, 0.0]
    assert load_checkpoint(tmp_path)[0].attributes is None  # a training-only head


def test_open_clip_towers_begin_with_a_file(
    toy_data: Path, tiny_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token selection and the file of pretrained weights, once: a resumed run does not ask for it again."""
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    from tagclip.train import loop
    from tagclip.train.clip_models import open_clip_config

    torch.manual_seed(5)
    source = open_clip.CLIP(**open_clip_config(tiny_clip)).state_dict()
    save_file(source, tmp_path / "tiny.safetensors")
    model = {
        "clip": tiny_clip,
        "height_px": 32,
        "width_px": 16,
        "moe_layers": [1],
        "experts": 3,
        "selected": 2,
    }
    values = {"name": "toy", "model": model | {"tse_ratio": 0.3, "tse_dim": 8}}
    train = {"epochs": 2, "batch": 18, "lr": 1e-3, "eval_every": 1, "precision": "fp32", "word_dropout": 0.0}
    config = Config.from_json(values | {"train": train | {"pretrained": str(tmp_path / "tiny.safetensors")}})
    with pytest.raises(KeyboardInterrupt):
        Run(config, toy_data, tmp_path / "out", stop_in_epoch_2).go()
    found = read_tensors(tmp_path / "out" / "last.safetensors")
    frozen = found["model.image.conv1.weight"]
    assert torch.equal(frozen, source["visual.conv1.weight"])

    monkeypatch.setattr(loop, "load_pretrained", lambda *_: pytest.fail("a resumed run has its weights"))
    run = Run(config, toy_data, tmp_path / "out", silent, resumes=True)
    run.resume()
    history = run.go()["history"]
    assert {"n_itc", "n_itc_part", "r_itc", "r_itc_part", "view", "ortho"} <= set(history[1])
    assert history[1]["n_itc_part"] < history[0]["n_itc_part"]
    assert load_checkpoint(tmp_path / "out")[0].dim == 16 + 8


@pytest.mark.parametrize("contrast", ["sdm", "tal"])
def test_other_contrastive_losses_learn(
    toy_data: Path, toy_model: dict[str, Any], tmp_path: Path, contrast: str
) -> None:
    config = make_config(toy_model, contrast=contrast, epochs=3, eval_every=3)
    history = Run(config, toy_data, tmp_path, silent).go()["history"]
    assert history[-1][contrast] < history[0][contrast] and "n_itc" not in history[0]


def test_trim_keeps_a_zero_inside_a_text() -> None:
    """0 is padding, and in CLIP's vocabulary a token too."""
    assert trim(np.array([[5, 0, 7, 0], [5, 7, 0, 0]])).tolist() == [[5, 0, 7], [5, 7, 0]]


def test_resume_without_moe_blocks(toy_data: Path, toy_model: dict[str, Any], tmp_path: Path) -> None:
    """Without a view token, and without a loss of the view."""
    config = make_config(toy_model | {"moe_layers": []})
    with pytest.raises(KeyboardInterrupt):
        Run(config, toy_data, tmp_path, stop_in_epoch_2).go()
    run = Run(config, toy_data, tmp_path, silent)
    run.resume()
    assert len(run.go()["history"]) == 2


def test_resume_with_another_configuration_is_refused(
    broken: Path, toy_data: Path, toy_model: dict[str, Any]
) -> None:
    run = Run(make_config(toy_model, weight_id=0.2, lr=1e-3), toy_data, broken, silent)
    with pytest.raises(
        CheckpointError, match=r"not the one that this run began with.*train.lr was 0.004, is 0.001"
    ):
        run.resume()


def test_resume_of_nothing_is_refused(toy_data: Path, toy_model: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="last.safetensors, found none: no epoch of this run was finished"
    ):
        Run(make_config(toy_model), toy_data, tmp_path, silent).resume()


def test_metrics_and_files(unbroken: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = unbroken
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()] == metrics["history"]
    assert [row["epoch"] for row in metrics["history"]] == [1, 2]
    for row in metrics["history"]:
        assert {"seconds", "images_per_s", "n_itc", "r_itc", "view", "ortho", "id", "val"} <= set(row)
        assert all(np.isfinite(row[k]) for k in ("seconds", "n_itc", "r_itc", "view", "ortho", "id"))
    best = max(metrics["history"], key=lambda row: row["val"]["all"]["map"])
    assert metrics["best_epoch"] == best["epoch"] and metrics["val"] == best["val"]
    assert set(metrics["val"]) == {"all", "aerial", "ground"}
    assert set(metrics["val"]["all"]) == {"r1", "r5", "r10", "map", "minp", "queries", "gallery"}
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("model.safetensors", "last.safetensors", "tokenizer.json"),
        *("config.json", "metrics.json", "log.jsonl", "tensorboard", "curves.png"),
    }


def test_the_checkpoint_is_the_best_epoch(unbroken: tuple[Path, dict[str, Any]], toy_data: Path) -> None:
    out, metrics = unbroken
    again = evaluate_path(out, toy_data, "val")
    for view, row in metrics["val"].items():
        assert again[view] == pytest.approx(row)


def test_checkpoint_round_trip_gives_equal_embeddings(
    toy_data: Path, toy_model: dict[str, Any], tmp_path: Path
) -> None:
    run = Run(make_config(toy_model, epochs=1, weight_id=0.2), toy_data, tmp_path, silent)
    run.go()
    model, tokenizer_json, config = load_checkpoint(tmp_path)
    assert not model.training and model.classifier is None and config == run.config
    samples = load_split(toy_data, "val")
    images = load_images(samples, PreprocessSpec(32, 16))
    split = as_split(samples, tokenizer_json, config.model.context_length, images)
    for found, wanted in zip(embed_split(model, split), embed_split(run.model, run.val), strict=True):
        assert torch.equal(found, wanted.cpu())
    assert evaluate_split(model, split) == evaluate_split(run.model, run.val)


def test_identities_in_train_and_val_are_refused(
    toy_data: Path, toy_model: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(toy_data, tmp_path / "data")
    shutil.copy(tmp_path / "data" / "train_reid.json", tmp_path / "data" / "val_reid.json")
    with pytest.raises(DataError, match="identity 0 is in train and in val"):
        Run(make_config(toy_model), tmp_path / "data", tmp_path / "out", silent)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16", "augment": "released", "sampler": "pk", "view_balanced": True, "batch": 12},
        {"view_balanced": True, "ema": 0.9, "lr_layer_decay": 0.7, "clip_norm": 0.0},
        {"micro_batch": 5, "cross_caption": 0.5, "memory_share": 0.0, "save_every_steps": 1},
    ],
)
def test_every_setting_runs_and_resumes(
    toy_data: Path, toy_model: dict[str, Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Broken in its second epoch and gone on: the same bits as unbroken, whatever is switched on."""
    config = make_config(toy_model, **settings)
    whole = Run(config, toy_data, tmp_path / "whole", silent).go()
    with pytest.raises(KeyboardInterrupt):
        Run(config, toy_data, tmp_path / "broken", stop_in_epoch_2).go()
    run = Run(config, toy_data, tmp_path / "broken", silent)
    run.resume()
    assert timeless(run.go()) == timeless(whole)
    for name in ("last.safetensors", "model.safetensors"):
        wanted, found = (read_tensors(tmp_path / folder / name) for folder in ("whole", "broken"))
        assert set(wanted) == set(found) and all(torch.equal(found[k], v) for k, v in wanted.items())
    if settings.get("ema"):
        last, saved = (read_tensors(tmp_path / "whole" / f"{n}.safetensors") for n in ("last", "model"))
        name = "image.project.weight"
        assert not torch.equal(saved[name], last[f"model.{name}"])  # what is saved is the average


def test_the_average_is_that_of_the_weights(
    toy_data: Path, toy_model: dict[str, Any], tmp_path: Path
) -> None:
    """Against the sum written out: the first step's weights, then decay * average + (1 - decay) * weights."""
    seen: list[torch.Tensor] = []

    def look(what: str, done: int, total: int, note: str) -> None:
        if what.startswith("epoch"):
            seen.append(run.model.image.project.weight.detach().clone())

    run = Run(make_config(toy_model, ema=0.8, epochs=1), toy_data, tmp_path, look)
    run.go()
    wanted = seen[0]
    for weights in seen[1:]:
        wanted = 0.8 * wanted + 0.2 * weights
    torch.testing.assert_close(read_tensors(tmp_path / "model.safetensors")["image.project.weight"], wanted)


def test_a_loss_that_is_not_finite_stops_the_run(
    toy_data: Path, toy_model: dict[str, Any], tmp_path: Path
) -> None:
    """A learning rate that blows the weights up in one step."""
    config = make_config(toy_model, lr=1e30, warmup=0.0, clip_norm=0.0)
    with pytest.raises(
        TrainingError, match=r"the loss \w+ is (nan|inf) in epoch 1, step \d; .*lower train.lr"
    ):
        Run(config, toy_data, tmp_path, silent).go()
    failed = json.loads((tmp_path / "failed_batch.json").read_text())
    assert failed["epoch"] == 1 and len(failed["images"]) == 18
    assert all(Path(path).is_file() for path in failed["images"])
    assert not (tmp_path / "last.safetensors").exists()


def test_an_unwritable_place_is_named_before_the_data_are_read(
    toy_model: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        Run(make_config(toy_model), tmp_path / "no data", tmp_path / "file" / "out", silent)


def test_a_full_disk_is_named(toy_data: Path, toy_model: dict[str, Any], tmp_path: Path) -> None:
    """The state does not fit: a limit on the size of files stands for the disk."""
    run = Run(make_config(toy_model), toy_data, tmp_path, silent)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal that comes with it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot write") as refused:
            run.go()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "model.safetensors: File too large" in str(refused.value)
    assert not list(tmp_path.glob(".*.part"))


def test_tensorboard_has_every_term(unbroken: tuple[Path, dict[str, Any]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, metrics = unbroken
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    names = set(events.Tags()["scalars"])
    terms = ("n_itc", "r_itc", "view", "ortho", "id")
    assert {f"loss/{name}" for name in (*terms, "sum")} <= names
    assert {"train/lr", "train/gradient_norm", "train/images_per_s", "val_all/map", "val_aerial/r1"} <= names
    steps = [event.value for event in events.Scalars("loss/n_itc")]
    assert len(steps) == 8 and np.mean(steps[:4]) == pytest.approx(metrics["history"][0]["n_itc"], rel=1e-5)
    assert [e.value for e in events.Scalars("val_all/map")] == pytest.approx(
        [row["val"]["all"]["map"] for row in metrics["history"]], rel=1e-5
    )


@pytest.fixture
def copy(toy_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_checkpoint, tmp_path / "checkpoint"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"expected .*{name}, found none"):
        load_checkpoint(copy)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_weights_are_refused(copy: Path, keep: int) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match="model.safetensors is damaged"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding_dim": 8}, "the weights do not fit config.json"),
        ({"experts": 5}, "the weights do not fit config.json"),
        ({"word_vectors": "minilm"}, "the weights do not fit config.json"),
        ({"selected": 9}, "config.json: model.selected must lie in"),
        ({"colour": 1}, "config.json: unknown key model.colour"),
    ],
)
def test_weights_that_do_not_fit_are_refused(copy: Path, changes: dict[str, Any], message: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["model"] |= changes
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy)


def test_a_config_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        load_checkpoint(copy)


def test_weights_of_something_else_are_refused(copy: Path) -> None:
    from safetensors.torch import save_file

    save_file({"layer.weight": torch.zeros(2)}, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match="it is not a tagclip model"):
        load_checkpoint(copy)


def test_is_checkpoint(copy: Path, tiny_bundle: Any) -> None:
    assert is_checkpoint(copy) and not is_checkpoint(tiny_bundle.path) and not is_checkpoint(copy / "x")
