"""What was asked for is what runs, or a named error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from fixtures.two_processes import torchrun

from tagclip.runtime.errors import ConfigError
from tagclip.train.config import TrainConfig
from tagclip.train.engine import Engine, is_first


def test_cpu_is_said() -> None:
    engine = Engine(TrainConfig(accelerator="cpu", precision="bf16"))
    assert (engine.rank, engine.world, engine.device.type) == (0, 1, "cpu") and is_first()
    assert engine.describe() == f"CPU with {torch.get_num_threads()} threads, 1 process(es), bf16"


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").exists(), reason="the reference is Linux's list of the CPU's flags"
)
def test_bf16_is_chosen_where_the_cpu_has_instructions_for_it() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    native = bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
    assert Engine(TrainConfig(accelerator="cpu")).precision == ("bf16" if native else "fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_a_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="train.accelerator is cuda, found no CUDA device"):
        Engine(TrainConfig(accelerator="cuda"))


def test_more_devices_than_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match="train.devices is 4, found 1 process.*torchrun --nproc-per-node 4"):
        Engine(TrainConfig(accelerator="cpu", devices=4))


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp16, which needs a CUDA device"):
        Engine(TrainConfig(accelerator="cpu", precision="fp16"))


def test_one_process_keeps_its_gradients() -> None:
    engine = Engine(TrainConfig(accelerator="cpu"))
    layer = torch.nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    engine.average_gradients(layer.parameters())
    assert layer.weight.grad is not None and layer.weight.grad.tolist() == [[1.0, 1.0]]
    feature = torch.ones(3, requires_grad=True) * 2
    assert not engine.gather(feature).requires_grad


@pytest.mark.slow
def test_the_command_works_under_torchrun(toy_data: Path, toy_model: dict[str, Any], tmp_path: Path) -> None:
    """One table, one set of files."""
    config = {"name": "toy", "model": toy_model, "train": {"epochs": 1, "batch": 18, "accelerator": "cpu"}}
    (tmp_path / "toy.yaml").write_text(json.dumps(config))
    command = ["-m", "tagclip.runtime", "train", str(tmp_path / "toy.yaml"), "--data", str(toy_data)]
    said, errors = torchrun(*command, "--out", str(tmp_path / "out"))
    assert said.count("best by validation is epoch 1") == 1
    assert errors.count("2 process(es)") == 1
    assert len(list((tmp_path / "out" / "tensorboard").iterdir())) == 1
