"""What a run tells people: TensorBoard, log.jsonl, curves.png, and the table at the end."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from tagclip.runtime.errors import OutputError
from tagclip.runtime.files import write_atomic

History = list[dict[str, Any]]
NOT_A_LOSS = ("epoch", "seconds", "images_per_s", "skipped_steps", "val")


class Board:
    """TensorBoard's event files in OUT/tensorboard."""

    def __init__(self, folder: Path, first_step: int):
        """Events of `first_step` and later, from a run that was killed after its last state, no longer count.

        Raises:
            OutputError: the folder cannot be written.
        """
        self.folder = folder / "tensorboard"
        try:
            self.writer = SummaryWriter(str(self.folder), purge_step=first_step or None)
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror or error}") from error

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add one value a name at a step (over all epochs).

        Raises:
            OutputError: the disk is full.
        """
        try:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror or error}") from error

    def flush(self) -> None:
        """Let readers see what was added. Raises: OutputError when the disk is full."""
        try:
            self.writer.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror or error}") from error

    def close(self) -> None:
        """End the event file."""
        self.writer.close()


def write_log(folder: Path, history: History) -> None:
    """One line of JSON for each finished epoch, in log.jsonl. Raises: OutputError."""
    write_atomic(folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in history).encode())


def losses_of(row: dict[str, Any]) -> dict[str, float]:
    """The terms of the loss in a row of the history."""
    return {name: value for name, value in row.items() if name not in NOT_A_LOSS}


def write_curves(folder: Path, history: History) -> None:
    """Losses and validation over epochs as curves.png. Raises: OutputError."""
    # Figure instead of pyplot: no window system, no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, validation = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for name in losses_of(history[-1]):
        losses.plot(epochs, [row[name] for row in history], marker=".", label=name)
    losses.set(xlabel="epoch", title="weighted losses, training")
    losses.legend()
    rows = [row for row in history if "val" in row]
    for gallery in rows[-1]["val"] if rows else ():
        for key, label, style in (("r1", "R@1", "-"), ("map", "mAP", "--")):
            validation.plot(
                [row["epoch"] for row in rows],
                [row["val"][gallery][key] for row in rows],
                style,
                marker=".",
                label=f"{label}, {gallery}",
            )
    validation.set(xlabel="epoch", title="validation, %", ylim=(0, 100))
    if rows:
        validation.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(folder / "curves.png", picture.getvalue())


def history_table(history: History) -> str:
    """A line an epoch: time, speed, sum of the losses, validation; of long runs the first and the last ten."""
    lines = [f"{'epoch':>5} {'seconds':>8} {'images/s':>9} {'loss':>8} {'R@1':>6} {'mAP':>6}"]
    for k, row in enumerate(history):
        if 10 <= k < len(history) - 10:
            if k == 10:
                lines.append("  ...")
            continue
        val = row["val"]["all"] if "val" in row else None
        metrics = f"{val['r1']:6.2f} {val['map']:6.2f}" if val else ""
        loss = sum(losses_of(row).values())
        lines.append(
            f"{row['epoch']:5d} {row['seconds']:8.1f} {row['images_per_s']:9.1f} {loss:8.3f} {metrics}".rstrip()
        )
    return "\n".join(lines)
