"""A run that is killed at any moment goes on to the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tagclip.runtime.errors import CheckpointError
from tagclip.train.checkpoint import read_tensors
from tagclip.train.state import FILE, Progress, load_state, read_progress, save_state

# For each folder that it is told, a process of its own that trains there; torch is imported once for all of them.
SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tagclip.train.config import Config
from tagclip.train.loop import Run
config, data = Config.from_json(json.loads(sys.argv[1])), Path(sys.argv[2])
for line in sys.stdin:
    out = Path(line.strip())
    child = os.fork()
    if child == 0:
        print(f"child {os.getpid()}", flush=True)
        run = Run(config, data, out, lambda what, *_: what.startswith("epoch") and print(what, flush=True))
        if (out / "last.safetensors").exists():
            run.resume()
        run.go()
        sys.stdout.flush()
        os._exit(0)
    print(f"ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)
"""


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(
    toy_data: Path, toy_model: dict[str, Any], tmp_path: Path
) -> None:
    """SIGKILL, three times, somewhere in the first dozen steps, the writing of states included."""
    train = {"epochs": 6, "batch": 18, "lr": 4e-3, "warmup": 0.5, "eval_every": 1, "save_every_steps": 3}
    train |= {"precision": "fp32", "accelerator": "cpu", "ema": 0.9, "weight_id": 0.2}
    config = json.dumps({"name": "toy", "model": toy_model, "train": train})
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    chance = random.Random(4)

    with subprocess.Popen(
        [sys.executable, str(script), config, str(toy_data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def start(name: str) -> int:
            print(tmp_path / name, file=process.stdin, flush=True)
            return int(process.stdout.readline().removeprefix("child "))

        def steps_until_it_ended() -> tuple[int, int]:
            steps = 0
            for line in process.stdout:
                if line.startswith("ended"):
                    return steps, int(line.split()[1])
                steps += line.startswith("epoch")
            raise AssertionError("the processes' parent is gone")

        for least in (4, 1, 1):  # three steps for the first state
            child = start("killed")
            for _ in range(least + chance.randint(0, 5)):
                process.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            # Else it was over before, and nothing was tested.
            assert steps_until_it_ended()[1] == -signal.SIGKILL
        for name in ("killed", "unbroken"):
            start(name)
            steps, status = steps_until_it_ended()
            assert status == 0
            # The killed one went on, it did not begin again: 24 steps in all.
            assert 0 < steps < 24 if name == "killed" else steps == 24
        process.stdin.close()
    histories = [
        [
            {k: v for k, v in row.items() if k not in ("seconds", "images_per_s")}
            for row in json.loads((tmp_path / name / "metrics.json").read_text())["history"]
        ]
        for name in ("killed", "unbroken")
    ]
    assert histories[0] == histories[1]
    for file in (FILE, "model.safetensors"):
        found, wanted = (read_tensors(tmp_path / name / file) for name in ("killed", "unbroken"))
        assert set(found) == set(wanted)
        assert all(torch.equal(found[k], v) for k, v in wanted.items())
    assert not list((tmp_path / "killed").glob(".*.part"))


def parts() -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return model, optimiser


def test_state_comes_back_whole(tmp_path: Path) -> None:
    model, optimiser = parts()
    progress = Progress(
        2, 5, 21, 12.5, 0.1 + 0.2, {"n_itc": 1 / 3}, [{"epoch": 1}], 4, {"scale": 2.0}, {"a": [1]}
    )
    save_state(tmp_path, progress, model, optimiser, None)
    assert read_progress(tmp_path, {"a": (1,)}) == progress
    other = torch.nn.Linear(3, 2)
    fresh = torch.optim.AdamW(other.parameters(), lr=0.1)
    load_state(tmp_path, other, fresh, None)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        for key, value in optimiser.state[p].items():
            assert torch.equal(fresh.state[q][key], value)


def test_what_differs_is_named(tmp_path: Path) -> None:
    model, optimiser = parts()
    save_state(tmp_path, Progress(config={"train": {"lr": 0.1, "ema": 0.0}}), model, optimiser, None)
    with pytest.raises(CheckpointError, match="train.lr was 0.1, is 0.2"):
        read_progress(tmp_path, {"train": {"lr": 0.2, "ema": 0.0}})


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_damaged_state_is_refused(tmp_path: Path, keep: int) -> None:
    model, optimiser = parts()
    save_state(tmp_path, Progress(), model, optimiser, None)
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match="last.safetensors is damaged"):
        read_progress(tmp_path, {})


def test_tensors_without_a_state_and_of_another_model_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"model.weight": torch.zeros(2)}, tmp_path / FILE)
    with pytest.raises(CheckpointError, match="has no state of a run"):
        read_progress(tmp_path, {})
    model, optimiser = parts()
    with pytest.raises(CheckpointError, match="does not fit the data or the model"):
        load_state(tmp_path, model, optimiser, None)
