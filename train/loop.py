"""One training run, from annotations to the best checkpoint by validation."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tagclip.runtime.errors import DataError, TrainingError
from tagclip.runtime.files import write_atomic
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train import journal
from tagclip.train.attributes import GROUPS
from tagclip.train.augment import kept_spec
from tagclip.train.backbone import load_photographs, trunk_of
from tagclip.train.batches import Batch, Batches
from tagclip.train.checkpoint import write_json, write_tensors
from tagclip.train.clip_models import context_length
from tagclip.train.clip_words import words_of
from tagclip.train.config import Config
from tagclip.train.data import Sample, input_spec, load_split
from tagclip.train.embed import evaluate_split
from tagclip.train.engine import Engine, batch_norms
from tagclip.train.from_bundle import load_bundle
from tagclip.train.images import open_images, spread_crops
from tagclip.train.model import TagClip
from tagclip.train.optimiser import learning_rate, make_optimiser, set_rate
from tagclip.train.pretrained import load_pretrained
from tagclip.train.progress import Tick
from tagclip.train.split import Split, as_split
from tagclip.train.state import Progress, load_state, read_progress, save_state
from tagclip.train.step import backward
from tagclip.train.towers import TextTower

NORM_CROPS = 512  # at most, that give the batch norms of a bundle's weights their statistics


class Run:
    """A run that can stop at any moment and go on to the same numbers.

    Attributes:
        notes: sentences that say what was chosen: device, processes, where images are kept.
    """

    def __init__(self, config: Config, folder: Path, out: Path, tick: Tick, resumes: bool = False):
        """Read the data and build the model; under torchrun in every process.

        Args:
            resumes: `resume` follows, and brings the weights: the pretrained ones are not needed.

        Raises:
            ConfigError, DataError, OutputError: whatever would stop the run later, as far as it can be known.
        """
        self.config, self.out = config, out
        self.engine = Engine(config.train)
        first = self.engine.rank == 0
        self.tick: Tick = tick if first else lambda what, done, total, note: None
        if first:  # Before an hour of reading images: is there a place to write to?
            write_atomic(out / ".writable", b"")
            (out / ".writable").unlink()
        self.notes = [self.engine.describe()]
        self.spec = input_spec(config.model)
        self.samples, val = load_split(folder, "train"), load_split(folder, "val")
        crossing = {s.identity for s in self.samples} & {s.identity for s in val}
        if crossing:
            raise DataError(f"identity {min(crossing)} is in train and in val; identities never cross splits")
        words = words_of(config.model, (c for s in self.samples for c in s.captions))
        self.tokenizer_json = words.tokenizer_json
        self.train = self._split("train", self.samples, kept_spec(self.spec, config.train.augment))
        # Only the first process validates.
        self.val = self._split("val", val, self.spec) if first else None
        self.batches = Batches(
            self.train, config.train, self.spec, self.engine.rank, self.engine.world, self.engine.device
        )
        self.batches.order(0)  # says now whether the data can fill the batches
        torch.manual_seed(config.train.seed)
        identities = int(self.train.identity.max()) + 1 if config.train.weight_id else 0
        attributes = sum(map(len, GROUPS.values())) if config.train.weight_attributes else 0
        model = TagClip(config.model, words.vocabulary, identities, attributes)
        if words.codes is not None and words.scales is not None:
            assert isinstance(model.text, TextTower)
            model.text.table.load_state_dict(
                {"codes": torch.from_numpy(words.codes), "scales": torch.from_numpy(words.scales)}
            )
        if not resumes:
            self._begin(model)
        if (trunk := trunk_of(model)) is not None:
            trunk.freeze(config.train.frozen)
        prepared, notes = self.engine.prepare(model)
        assert isinstance(prepared, TagClip)
        self.model, self.notes = prepared, self.notes + notes
        if config.train.micro_batch and batch_norms(self.model):
            self.notes.append(
                f"batch norms take their statistics over micro batches of {config.train.micro_batch} images"
            )
        self.bare_optimiser = make_optimiser(self.model, config.train)
        wrapped = self.engine.fabric.setup_optimizers(self.bare_optimiser)
        assert not isinstance(wrapped, tuple)
        self.optimiser = wrapped
        self.average = (
            AveragedModel(
                self.model,
                multi_avg_fn=get_ema_multi_avg_fn(config.train.ema),  # type: ignore[no-untyped-call]
            )
            if config.train.ema
            else None
        )
        self.state = Progress(world=self.engine.world, config=config.to_json())
        self.board: journal.Board | None = None

    def _begin(self, model: TagClip) -> None:
        if (trunk := trunk_of(model)) is not None:
            load_photographs(trunk)
        if not self.config.train.pretrained:
            return
        path = Path(self.config.train.pretrained)
        if self.config.model.clip:
            load_pretrained(model, path)
        else:
            crops = spread_crops(self.samples, self.spec, NORM_CROPS)
            load_bundle(model, self.tokenizer_json, path, crops)

    def _split(self, name: str, samples: list[Sample], spec: PreprocessSpec) -> Split:
        images, note = open_images(
            samples,
            spec,
            self.config.train.memory_share,
            self.engine.copies if name == "train" else 1,
            lambda done, total: self.tick(f"load {name}", done, total, ""),
        )
        self.notes.append(f"{name}: {note}")
        return as_split(
            samples,
            self.tokenizer_json,
            context_length(self.config.model),
            images,
            with_attributes=name == "train" and self.config.train.weight_attributes > 0,
        )

    def resume(self) -> None:
        """Take up the last state in `out`.

        Raises:
            CheckpointError: there is none, or it was made with another configuration.
        """
        found = read_progress(self.out, self.config.to_json())
        if found.world != self.engine.world:
            self.notes.append(
                f"the run began with {found.world} process(es) and goes on with {self.engine.world}: "
                "its numbers agree to rounding only"
            )
            found.world = self.engine.world
        if self.engine.rank == 0:
            for half in self.out.glob(".*.part"):  # what a kill left while it was being written
                half.unlink()
        load_state(self.out, self.model, self.bare_optimiser, self.average)
        if found.scaler:
            self.engine.fabric.strategy.precision.load_state_dict(found.scaler)
        self.state = found

    def go(self) -> dict[str, Any]:
        """Train to the end.

        Returns:
            metrics.json: the history, and the best epoch's validation.

        Raises:
            TrainingError: a loss or the gradient is no longer finite.
            OutputError: the disk is full.
        """
        first = self.engine.rank == 0
        if first:
            write_json(self.out / "config.json", self.config.to_json())
            write_atomic(self.out / "tokenizer.json", self.tokenizer_json.encode())
            self.board = journal.Board(self.out, self.state.total)
        try:
            while self.state.epoch < self.config.train.epochs:
                self._epoch()
                if first:
                    self._finish_epoch()
                self.engine.fabric.barrier()
        finally:
            if self.board is not None:
                self.board.close()
        history = self.state.history
        validated = [row for row in history if "val" in row]
        if not first:
            return {}
        best = max(validated, key=lambda row: float(row["val"]["all"]["map"]))
        metrics = {"best_epoch": best["epoch"], "val": best["val"], "history": history}
        journal.write_log(self.out, history)
        journal.write_curves(self.out, history)
        write_json(self.out / "metrics.json", metrics)
        return metrics

    def _epoch(self) -> None:
        """Train to the end of the epoch, from whatever step the run stands at."""
        config, state = self.config.train, self.state
        order = self.batches.order(state.epoch)
        steps = len(order)
        self.model.train()
        before = time.perf_counter()
        with contextlib.closing(self.batches.stream(state.epoch, order, state.step)) as stream:
            for batch in stream:
                progress = state.epoch + state.step / steps
                rate = learning_rate(config, progress)
                set_rate(self.bare_optimiser, rate)
                values, norm = self._step(batch, min(1.0, progress) * config.soft_targets)
                for name, value in values.items():
                    state.sums[name] = state.sums.get(name, 0.0) + value
                state.step += 1
                state.total += 1
                now = time.perf_counter()
                state.seconds += now - before
                if self.board is not None:
                    speed = len(batch.labels.rows) / max(1e-9, now - before)
                    scalars = {f"loss/{name}": value for name, value in values.items()}
                    scalars |= {"loss/sum": sum(values.values()), "train/lr": rate}
                    scalars |= {"train/gradient_norm": norm, "train/images_per_s": speed}
                    self.board.scalars(scalars, state.total)
                before = now
                note = " ".join(f"{k} {v / state.step:.3f}" for k, v in state.sums.items())
                self.tick(f"epoch {state.epoch + 1}", state.step, steps, note)
                if (
                    config.save_every_steps
                    and state.total % config.save_every_steps == 0
                    and state.step < steps
                ):
                    self._save()
        images = sum(map(len, order))
        row = {"epoch": state.epoch + 1, "seconds": state.seconds, "images_per_s": images / state.seconds}
        state.history.append(row | {name: value / steps for name, value in state.sums.items()})
        state.epoch, state.step, state.seconds, state.sums = state.epoch + 1, 0, 0.0, {}

    def _step(self, batch: Batch, soft: float) -> tuple[dict[str, float], float]:
        """One update of the weights; the terms of the loss, and the norm of the gradient before clipping."""
        config, state = self.config.train, self.state
        self.optimiser.zero_grad(set_to_none=True)
        chance = (config.seed, state.epoch, state.step)
        terms = backward(self.engine, self.model, batch, config, soft, chance)
        norm = self.engine.fabric.clip_gradients(
            self.model, self.optimiser, max_norm=config.clip_norm or math.inf, error_if_nonfinite=False
        )
        assert isinstance(norm, Tensor)
        # One transfer from the device; it waits for the backward pass, before the weights change.
        *numbers, size = torch.stack([*terms.values(), norm]).tolist()
        values = dict(zip(terms, numbers, strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                self._stop(f"the loss {name} is {value}", batch)
        if (
            not math.isfinite(size) and self.engine.precision != "fp16"
        ):  # fp16 scales its losses down, and skips the step
            self._stop(f"the norm of the gradient is {size}", batch)
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return values, size

    def _stop(self, what: str, batch: Batch) -> None:
        state = self.state
        names = [str(self.samples[k].path) for k in batch.labels.rows]
        path = self.out / "failed_batch.json"
        if self.engine.rank == 0:
            write_json(
                path, {"epoch": state.epoch + 1, "step": state.step + 1, "what": what, "images": names}
            )
        raise TrainingError(
            f"{what} in epoch {state.epoch + 1}, step {state.step + 1}; the batch has {', '.join(names[:3])} and "
            f"{max(0, len(names) - 3)} more, all of them in {path}. Look at these images and captions, or lower "
            "train.lr, lengthen train.warmup, set train.clip_norm=1, or take train.precision=fp32"
        )

    def _finish_epoch(self) -> None:
        """Validate, and write everything that the finished epoch leaves."""
        state, config = self.state, self.config.train
        row = state.history[-1]
        if self.board is not None:
            losses = journal.losses_of(row)
            self.board.scalars({f"epoch/{name}": value for name, value in losses.items()}, state.total)
        if state.epoch % config.eval_every == 0 or state.epoch == config.epochs:
            model = self.model if self.average is None else self.average.module
            assert isinstance(model, TagClip) and self.val is not None
            row["val"] = evaluate_split(model, self.val, self.engine.precision)
            if self.board is not None:
                for gallery, metrics in row["val"].items():
                    scalars = {
                        f"val_{gallery}/{key}": float(metrics[key])
                        for key in ("r1", "r5", "r10", "map", "minp")
                    }
                    self.board.scalars(scalars, state.total)
            if row["val"]["all"]["map"] > state.best:
                state.best = row["val"]["all"]["map"]
                # A kill between this file and the state: the resumed epoch writes it again, with the same bytes.
                write_tensors(self.out / "model.safetensors", model.state_dict())
        self._save()
        journal.write_log(self.out, state.history)
        if self.board is not None:
            self.board.flush()

    def _save(self) -> None:
        if self.engine.rank == 0:
            self.state.scaler = self.engine.fabric.strategy.precision.state_dict()
            save_state(self.out, self.state, self.model, self.bare_optimiser, self.average)
