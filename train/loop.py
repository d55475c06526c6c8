"""One training run, from annotations to the best checkpoint by validation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagclip.runtime.errors import CheckpointError, DataError
from tagclip.runtime.files import write_atomic
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.attributes import GROUPS, UNKNOWN
from tagclip.train.checkpoint import read_json, read_tensors, write_json, write_tensors
from tagclip.train.clip_models import context_length
from tagclip.train.clip_words import clip_words
from tagclip.train.config import Config, TrainConfig
from tagclip.train.data import Sample, augment, batches, load_images, load_split, train_spec
from tagclip.train.evaluate import Retrieval, by_view
from tagclip.train.losses import (
    attribute_loss,
    contrast,
    identity_loss,
    orthogonal_loss,
    view_loss,
)
from tagclip.train.model import Encoded, TagClip, unit
from tagclip.train.pretrained import load_pretrained
from tagclip.train.towers import TextTower
from tagclip.train.words import PAD_ID, UNKNOWN_ID, build_words, encode

Tick = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Split:
    """A split as arrays.

    Attributes:
        images: (N, H, W, 3) uint8.
        identity, view: (N,) int64; identities count from 0.
        attributes: (N, groups) int64, see attributes.py.
        tokens: (C, T) int64, all captions; `owner` (C,) says whose image each is.
        first, count: (N,) where an image's captions begin in `tokens`, and how many it has.
    """

    images: NDArray[np.uint8]
    identity: NDArray[np.int64]
    view: NDArray[np.int64]
    attributes: NDArray[np.int64]
    tokens: NDArray[np.int64]
    owner: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]


def as_split(samples: list[Sample], tokenizer_json: str, context: int, images: NDArray[np.uint8]) -> Split:
    """Arrays of a split whose images are prepared already."""
    count = np.array([len(s.captions) for s in samples])
    captions = [caption for s in samples for caption in s.captions]
    numbers = {identity: k for k, identity in enumerate(sorted({s.identity for s in samples}))}
    return Split(
        images,
        np.array([numbers[s.identity] for s in samples]),
        np.array([s.view for s in samples]),
        np.array([s.attributes or (UNKNOWN,) * len(GROUPS) for s in samples]),
        encode(tokenizer_json, captions, context),
        np.repeat(np.arange(len(samples)), count),
        np.concatenate([[0], count.cumsum()[:-1]]),
        count,
    )


def trim(tokens: NDArray[np.int64]) -> Tensor:
    """Drop the columns at the end that are padding in every row."""
    used = np.flatnonzero((tokens != PAD_ID).any(0))  # not a count: 0 is a token inside a text of CLIP
    return torch.from_numpy(np.ascontiguousarray(tokens[:, : used[-1] + 1 if len(used) else 1]))


@torch.no_grad()
def embed_split(
    model: TagClip, split: Split, precision: str = "fp32", known_view: bool = False
) -> tuple[Tensor, Tensor]:
    """Unit vectors of all images (N, D) and of all captions (C, D), as `unit` makes them.

    Args:
        known_view: route each image by its label, as specialists do; else by the predicted view, as the paper does.
    """
    model.eval()
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        images = [
            _vectors(
                model.image(
                    torch.from_numpy(split.images[k : k + 256]).to(device),
                    torch.from_numpy(split.view[k : k + 256]).to(device) if known_view else None,
                )[0]
            )
            for k in range(0, len(split.images), 256)
        ]
        texts = [
            _vectors(model.text(trim(split.tokens[k : k + 512]).to(device)))
            for k in range(0, len(split.tokens), 512)
        ]
    return torch.cat(images), torch.cat(texts)


def _vectors(encoded: Encoded) -> Tensor:
    return unit(_float(encoded)).cpu()


def _float(encoded: Encoded) -> Encoded:
    return Encoded(encoded.whole.float(), None if encoded.part is None else encoded.part.float())


def evaluate_split(
    model: TagClip, split: Split, precision: str = "fp32", known_view: bool = False
) -> dict[str, Retrieval]:
    """Retrieval metrics of a model on a split, see `evaluate.by_view`; arguments as in `embed_split`."""
    images, texts = embed_split(model, split, precision, known_view)
    return by_view(texts.numpy(), images.numpy(), split.identity[split.owner], split.identity, split.view)


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Rate after `progress` epochs: linear warm-up, then cosine."""
    if progress < config.warmup:
        return config.lr * max(progress, 0.01) / config.warmup
    share = (progress - config.warmup) / max(1e-9, config.epochs - config.warmup)
    return config.lr_end + (config.lr - config.lr_end) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


class Run:
    """A run that can stop after any epoch and go on to the same numbers."""

    def __init__(self, config: Config, folder: Path, out: Path, tick: Tick):
        torch.manual_seed(config.train.seed)
        self.config, self.out, self.tick = config, out, tick
        spec = PreprocessSpec(config.model.height_px, config.model.width_px)
        self.spec = spec
        train, val = load_split(folder, "train"), load_split(folder, "val")
        crossing = {s.identity for s in train} & {s.identity for s in val}
        if crossing:
            raise DataError(f"identity {min(crossing)} is in train and in val; identities never cross splits")
        words = (
            clip_words()
            if config.model.clip
            else build_words(config.model.word_vectors, (c for s in train for c in s.captions))
        )
        self.tokenizer_json = words.tokenizer_json
        context = context_length(config.model)
        self.train = as_split(
            train, words.tokenizer_json, context, load_images(train, train_spec(spec), self._loads("train"))
        )
        self.val = as_split(val, words.tokenizer_json, context, load_images(val, spec, self._loads("val")))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        identities = int(self.train.identity.max()) + 1 if config.train.weight_id else 0
        attributes = sum(map(len, GROUPS.values())) if config.train.weight_attributes else 0
        self.model = TagClip(config.model, words.vocabulary, identities, attributes)
        if words.codes is not None and words.scales is not None:
            assert isinstance(self.model.text, TextTower)
            self.model.text.table.load_state_dict(
                {"codes": torch.from_numpy(words.codes), "scales": torch.from_numpy(words.scales)}
            )
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(_groups(self.model, config.train.weight_decay), betas=(0.9, 0.98))
        self.epoch, self.best = 0, -1.0
        self.history: list[dict[str, Any]] = []

    def _loads(self, split: str) -> Callable[[int, int], None]:
        return lambda done, total: self.tick(f"load {split}", done, total, "")

    def resume(self) -> None:
        """Take up the last finished epoch of `out`.

        Raises:
            CheckpointError: there is none, or it was made with another configuration.
        """
        state = read_json(self.out / "state.json")
        if state["config"] != json.loads(json.dumps(self.config.to_json())):
            raise CheckpointError(
                f"{self.out}: the configuration is not the one that this run began with; "
                "give the same one, or another --out"
            )
        tensors = read_tensors(self.out / "last.safetensors")
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        by_name = {id(p): n for n, p in self.model.named_parameters()}
        for parameter in (p for g in self.optimiser.param_groups for p in g["params"]):
            name = by_name[id(parameter)]
            if f"adamw.step.{name}" not in tensors:
                continue  # it never had a gradient: the view token of a model without HR-MoE blocks
            self.optimiser.state[parameter] = {
                key: tensors[f"adamw.{key}.{name}"].to("cpu" if key == "step" else self.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
        self.epoch, self.best, self.history = state["epoch"], state["best"], state["history"]

    def go(self) -> dict[str, Any]:
        """Train to the end.

        Returns:
            metrics.json: the history, and the best epoch's validation.
        """
        write_json(self.out / "config.json", self.config.to_json())
        write_atomic(self.out / "tokenizer.json", self.tokenizer_json.encode())
        if self.config.train.pretrained and self.epoch == 0:
            load_pretrained(self.model, Path(self.config.train.pretrained))
        last = self.config.train.epochs
        while self.epoch < last:
            began = time.perf_counter()
            losses = self._epoch()
            self.epoch += 1
            row: dict[str, Any] = {"epoch": self.epoch, "seconds": time.perf_counter() - began, **losses}
            if self.epoch % self.config.train.eval_every == 0 or self.epoch == last:
                row["val"] = evaluate_split(self.model, self.val, self.config.train.precision)
                if row["val"]["all"]["map"] > self.best:
                    self.best = row["val"]["all"]["map"]
                    write_tensors(self.out / "model.safetensors", self.model.state_dict())
            self.history.append(row)
            self._save()
        best = max((r for r in self.history if "val" in r), key=lambda r: float(r["val"]["all"]["map"]))
        metrics = {"best_epoch": best["epoch"], "val": best["val"], "history": self.history}
        write_json(self.out / "metrics.json", metrics)
        return metrics

    def _save(self) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"adamw.{key}.{name}"] = value
        write_tensors(self.out / "last.safetensors", tensors)
        lines = [json.dumps(row) + "\n" for row in self.history]
        write_atomic(self.out / "log.jsonl", "".join(lines).encode())
        write_json(
            self.out / "state.json",
            {
                "epoch": self.epoch,
                "best": self.best,
                "config": self.config.to_json(),
                "history": self.history,
            },
        )

    def _epoch(self) -> dict[str, float]:
        config = self.config.train
        # All chance of an epoch comes from its number, so a resumed run draws what an unbroken one would.
        rng = np.random.default_rng([config.seed, self.epoch])
        self.model.train()
        sums: dict[str, float] = {}
        steps = max(1, len(self.train.images) // config.batch)
        for step, rows in enumerate(batches(len(self.train.images), config.batch, rng)):
            progress = self.epoch + step / steps
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(config, progress)
            parts = self._losses(rows, min(1.0, progress) * config.soft_targets, rng)
            loss = torch.stack(list(parts.values())).sum()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / steps
            note = " ".join(f"{k} {v * steps / (step + 1):.3f}" for k, v in sums.items())
            self.tick(f"epoch {self.epoch + 1}", step + 1, steps, note)
        return sums

    def _losses(self, rows: NDArray[np.int64], soft: float, rng: np.random.Generator) -> dict[str, Tensor]:
        config, data, model = self.config.train, self.train, self.model
        crops = torch.from_numpy(augment(data.images[rows], self.spec, rng)).to(self.device)
        labels = torch.from_numpy(data.identity[rows]).to(self.device)
        view = torch.from_numpy(data.view[rows]).to(self.device)
        drawn = rng.integers(0, data.count[rows])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            images, routing = model.image(crops)
            texts = [_float(model.text(self._tokens(rows, drawn + k, rng))) for k in range(config.captions)]
        images = _float(images)
        parts = {}
        for level, suffix in enumerate(("", "_part")):  # L_GA and, with TSE, L_LA
            pairs = [
                (image, other)
                for text in texts
                if (image := images[level]) is not None and (other := text[level]) is not None
            ]
            each = [contrast(config.contrast, *pair, labels, model.scale(), soft) for pair in pairs]
            for name in each[0] if each else ():
                parts[name + suffix] = torch.stack([losses[name] for losses in each]).mean()
        if routing.view_logits:  # none without an HR-MoE
            alpha, weight_ortho = config.orthogonal()
            parts["view"] = config.weight_view * view_loss(routing.view_logits, view)
            parts["ortho"] = weight_ortho * orthogonal_loss(routing.cls, routing.view, alpha)
        if model.classifier is not None:
            both = model.classifier(images.whole), model.classifier(texts[0].whole)
            parts["id"] = config.weight_id * identity_loss(*both, labels)
        if model.attributes is not None:
            known = torch.from_numpy(data.attributes[rows]).to(self.device)
            sizes = [len(classes) for classes in GROUPS.values()]
            sides = [attribute_loss(model.attributes(x.whole), known, sizes) for x in (images, texts[0])]
            parts["attributes"] = config.weight_attributes * (sides[0] + sides[1]) / 2
        return parts

    def _tokens(self, rows: NDArray[np.int64], which: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Caption number `which` (B,) of each image, counted round, as (B, T) token ids, some words dropped."""
        data = self.train
        tokens = data.tokens[data.first[rows] + which % data.count[rows]]
        dropped = (rng.random(tokens.shape) < self.config.train.word_dropout) & (tokens != PAD_ID)
        return trim(np.where(dropped, UNKNOWN_ID, tokens)).to(self.device)


def _groups(model: TagClip, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices only: not biases, norms, tokens, positions or the temperature."""
    plain: list[torch.nn.Parameter] = []
    decayed: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        flat = parameter.ndim < 2 or "position" in name
        (plain if flat else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
