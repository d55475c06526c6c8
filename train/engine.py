"""Devices, processes and precision, by Lightning Fabric; and what processes tell each other in a step.

A step's loss is computed on the features of all processes, the same one in each (step.py). Gradients are averaged here,
after all backward passes of a step, rather than by a wrapper around the model: a step may run the towers twice
(gradient caching), and an expert that one process's images never reach has no gradient there but has one elsewhere.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tagclip.runtime.errors import ConfigError
from tagclip.train.config import TrainConfig

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
BUCKET = 16 * 2**20  # numbers that travel together
# Others wait for the first process while it validates; NCCL's own ten minutes are few for a large gallery.
WAIT = timedelta(hours=1)


def is_first() -> bool:
    """Whether this process is the one that writes, before an engine exists."""
    return int(os.environ.get("RANK", "0")) == 0


class Engine:
    """The processes of a run, this one among them.

    Attributes:
        fabric: launched.
        rank, world: number of this process, and of all.
        copies: processes on this machine.
        device: this process's.
        precision: "fp32", "bf16" or "fp16".
    """

    def __init__(self, config: TrainConfig):
        """Start what `config` asks for. Under torchrun all its processes take part.

        Raises:
            ConfigError: there is no such device, or not so many processes.
        """
        self.copies = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        world = int(os.environ.get("WORLD_SIZE", "1"))
        cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if config.accelerator == "cuda" and not cuda:
            raise ConfigError(
                "train.accelerator is cuda, found no CUDA device; set train.accelerator=cpu or auto, "
                "or look at what nvidia-smi and torch.cuda.is_available() say"
            )
        if config.devices not in (0, self.copies):
            raise ConfigError(
                f"train.devices is {config.devices}, found {self.copies} process(es) on this machine; start with "
                f"torchrun --nproc-per-node {config.devices} --no-python tagclip train ..., or set train.devices=0"
            )
        accelerator = "cuda" if cuda and config.accelerator != "cpu" else "cpu"
        if accelerator == "cpu" and config.precision == "fp16":
            raise ConfigError(
                "train.precision is fp16, which needs a CUDA device, and this run is on CPU; set train.precision=bf16"
            )
        if accelerator == "cuda" and self.copies > cuda:
            raise ConfigError(
                f"{self.copies} processes on this machine want a CUDA device each, found {cuda}; "
                f"start with torchrun --nproc-per-node {cuda}"
            )
        self.precision = native_precision(accelerator) if config.precision == "auto" else config.precision
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # `describe` says what was chosen
        self.fabric = Fabric(
            accelerator=accelerator,
            devices=self.copies,
            num_nodes=world // self.copies,
            strategy=DDPStrategy(timeout=WAIT) if world > 1 else "auto",
            precision=PRECISION[self.precision],  # type: ignore[arg-type]
        )
        self.fabric.launch()
        if world > 1:
            # A process that leaves with its group alive is now and then aborted by the group's own threads.
            atexit.register(_leave)
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        self.device = self.fabric.device

    def describe(self) -> str:
        """What was chosen, for people."""
        name = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else f"CPU with {torch.get_num_threads()} threads"
        )
        return f"{name}, {self.world} process(es), {self.precision}"

    def prepare(self, model: nn.Module) -> tuple[nn.Module, list[str]]:
        """The model on the device, and what to know about its batch norms (sentences, mostly none)."""
        notes = []
        if self.world > 1 and batch_norms(model):
            if self.device.type == "cuda":
                model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            else:
                notes.append(
                    "batch norms see the images of their own process only: on CPU they cannot be synchronised, "
                    "so the numbers are not those of one process"
                )
        return model.to(self.device, memory_format=torch.channels_last), notes  # type: ignore[call-overload]

    def gather(self, x: Tensor) -> Tensor:
        """(b, ...) of each process -> (world * b, ...) in the order of ranks, without gradient."""
        if self.world == 1:
            return x.detach()
        gathered = self.fabric.all_gather(x.detach().contiguous())
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes; none anywhere stays none."""
        if self.world == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        somewhere = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8, device=self.device)
        torch.distributed.all_reduce(somewhere, torch.distributed.ReduceOp.MAX)
        gradients = []
        for parameter, has in zip(trained, somewhere.tolist(), strict=True):
            if has:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        self._average(gradients)

    def average_statistics(self, model: nn.Module) -> None:
        """Replace the running statistics of batch norms by their mean over the processes."""
        if self.world > 1:
            norms = [norm for norm in batch_norms(model) if not isinstance(norm, nn.SyncBatchNorm)]
            self._average(
                [t for norm in norms for t in (norm.running_mean, norm.running_var) if t is not None]
            )

    def _average(self, tensors: list[Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = torch.cat([t.reshape(-1) for t in bucket])
            torch.distributed.all_reduce(flat)
            flat /= self.world
            start = 0
            for tensor in bucket:
                tensor.copy_(flat[start : start + tensor.numel()].view(tensor.shape))
                start += tensor.numel()


def native_precision(accelerator: str) -> str:
    """ "bf16" where that is faster, else "fp32": a CPU without instructions for bf16 takes ten times longer in it.

    Args:
        accelerator: "cpu" or "cuda".
    """
    if accelerator == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        knows = torch.cpu.get_capabilities()
        native = any(knows.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16" if native else "fp32"


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Layers whose training output depends on which images share a batch."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.numel() > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket
