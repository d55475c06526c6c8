"""Two real processes, started once by torchrun, gloo over loopback: what they share, and the curve of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from fixtures.two_processes import torchrun

from tagclip.train.checkpoint import read_tensors
from tagclip.train.config import Config
from tagclip.train.loop import Run

pytestmark = pytest.mark.slow
MICRO_BATCHES = (0, 4)  # whole batches, and micro batches

# Arguments: the folder to write into, the data, then a configuration and its folder again and again.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tagclip.train import engine as module
from tagclip.train.config import Config, TrainConfig
from tagclip.train.loop import Run

def gathered_and_averaged():
    whole, module.BUCKET = module.BUCKET, 4  # so that several buckets travel
    engine = module.Engine(TrainConfig(accelerator="cpu", devices=2))
    rank = engine.rank
    gathered = engine.gather(torch.tensor([[1.0], [2.0]]) + 10 * rank)
    parameters = [torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(4)]
    parameters[0].grad = torch.arange(6.0).reshape(2, 3) * (1 + rank)
    if rank == 1:
        parameters[1].grad = torch.ones(2, 3)  # an expert that only this process's images reach
    parameters[3].grad = torch.full((2, 3), 4.0 * rank)
    parameters[3].requires_grad_(False)
    engine.average_gradients(parameters)
    norm, notes = engine.prepare(torch.nn.BatchNorm1d(2))
    norm.running_mean += 2 * rank
    engine.average_statistics(norm)
    found = [None if p.grad is None else p.grad.tolist() for p in parameters]
    module.BUCKET = whole
    return rank, [gathered.tolist(), found, norm.running_mean.tolist(), notes]

out, data = map(Path, sys.argv[1:3])
rank, found = gathered_and_averaged()
(out / f"{rank}.json").write_text(json.dumps(found))
for config, name in zip(sys.argv[3::2], sys.argv[4::2], strict=True):
    run = Run(Config.from_json(json.loads(config)), data, out / name, lambda *_: None)
    for stage in run.model.image.stem:
        stage.norm = torch.nn.Identity()
    run.go()
    (out / f"{name}-{run.engine.rank}.json").write_text(json.dumps([run.engine.world, run.engine.rank]))
"""


@pytest.fixture(scope="module")
def values(toy_model: dict[str, Any]) -> dict[str, Any]:
    train = {
        "epochs": 2,
        "batch": 18,
        "lr": 4e-3,
        "warmup": 0.5,
        "eval_every": 1,
        "captions": 2,
        "weight_id": 0.2,
    }
    train |= {"precision": "fp32", "accelerator": "cpu", "cross_caption": 0.3, "augment": "light"}
    return {"name": "toy", "model": toy_model, "train": train}


@pytest.fixture(scope="module")
def two(values: dict[str, Any], toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes wrote into."""
    folder: Path = tmp_path_factory.mktemp("two")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [str(script), str(folder), str(toy_data)]
    for micro_batch in MICRO_BATCHES:
        split = values | {"train": values["train"] | {"micro_batch": micro_batch}}
        command += [json.dumps(split), f"two-{micro_batch}"]
    torchrun(*command)
    return folder


def test_two_processes_gather_and_average(two: Path) -> None:
    first, second = (json.loads((two / f"{rank}.json").read_text()) for rank in (0, 1))
    gathered, gradients, mean, notes = first
    assert gathered == [[1], [2], [11], [12]]
    assert gradients[:3] == [[[0, 1.5, 3], [4.5, 6, 7.5]], [[0.5] * 3] * 2, None]
    assert mean == [1, 1] and "batch norms see the images of their own process only" in notes[0]
    assert second[:3] == [gathered, [*gradients[:3], [[4.0] * 3] * 2], mean]
    assert gradients[3] == [[0.0] * 3] * 2  # frozen parameters are left alone


def test_two_processes_have_the_curve_of_one(
    two: Path, values: dict[str, Any], toy_data: Path, tmp_path: Path
) -> None:
    """A model without batch norm (docs/training.md)."""
    alone = Run(Config.from_json(values), toy_data, tmp_path / "one", lambda *_: None)
    for stage in alone.model.image.stem:
        stage.norm = torch.nn.Identity()
    alone.go()

    def ended(run: Path) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
        history = json.loads((run / "metrics.json").read_text())["history"]
        curve = [[row[key] for key in ("n_itc", "r_itc", "view", "ortho", "id")] for row in history]
        return curve, read_tensors(run / "last.safetensors")

    curve, weights = ended(tmp_path / "one")
    for name in (f"two-{micro_batch}" for micro_batch in MICRO_BATCHES):
        for rank in (0, 1):
            assert json.loads((two / f"{name}-{rank}.json").read_text()) == [2, rank]
        other_curve, other_weights = ended(two / name)
        np.testing.assert_allclose(other_curve, curve, rtol=1e-4, atol=1e-4, err_msg=name)
        for key, tensor in weights.items():
            if key.startswith("model."):
                torch.testing.assert_close(
                    other_weights[key].float(), tensor.float(), rtol=1e-2, atol=1e-3, msg=f"{name}: {key}"
                )
