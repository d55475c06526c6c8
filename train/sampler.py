"""Which images make the batches of an epoch: one list, drawn the same in every process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import DataError
from tagclip.train.config import TrainConfig

Rows = NDArray[np.int64]


def draw_batches(
    config: TrainConfig, identity: NDArray[np.int64], view: NDArray[np.int64], rng: np.random.Generator
) -> list[Rows]:
    """Row numbers (B,) of each step of one epoch; a short rest is dropped.

    Args:
        identity, view: (N,) of every training image.
        rng: the epoch's.

    Raises:
        DataError: the data cannot fill such batches.
    """
    if config.sampler == "pk":
        return pk_batches(identity, view, config.batch, config.images_per_identity, config.view_balanced, rng)
    if config.view_balanced:
        return balanced_batches(view, config.batch, rng)
    return random_batches(len(identity), config.batch, rng)


def random_batches(count: int, size: int, rng: np.random.Generator) -> list[Rows]:
    """Every image once, shuffled; the last short batch is dropped unless it is the only one."""
    order = rng.permutation(count)
    return [order[start : start + size] for start in range(0, max(count - size + 1, 1), size)]


def balanced_batches(view: NDArray[np.int64], size: int, rng: np.random.Generator) -> list[Rows]:
    """As many steps as `random_batches` has, half of each batch aerial; the rarer view comes round again.

    Raises:
        DataError: one of the views has no image.
    """
    steps = max(1, len(view) // size)
    halves = []
    for k, name in enumerate(("aerial", "ground")):
        rows = np.flatnonzero(view == k)
        if not len(rows):
            raise DataError(f"train.view_balanced needs images of both views, found no {name} one in train")
        rounds = -(-steps * (size // 2) // len(rows))
        shuffled = np.concatenate([rng.permutation(rows) for _ in range(rounds)])
        halves.append(shuffled[: steps * (size // 2)].reshape(steps, -1))
    return list(np.concatenate(halves, 1))


def pk_batches(
    identity: NDArray[np.int64],
    view: NDArray[np.int64],
    size: int,
    each: int,
    view_balanced: bool,
    rng: np.random.Generator,
) -> list[Rows]:
    """Batches of size / each identities with `each` images.

    Every identity's images are shuffled and cut into groups of `each`, a short group is filled with images of the same
    identity again; the epoch ends when fewer identities than a batch needs have a group left. With `view_balanced` a
    group is half aerial where its identity has both views, and identities of one view are picked in turn.

    Raises:
        DataError: there are fewer identities than a batch needs.
    """
    people = size // each
    members = [np.flatnonzero(identity == k) for k in range(int(identity.max()) + 1)]
    if len(members) < people:
        raise DataError(
            f"batches of {size} with {each} images an identity need {people} identities, "
            f"train has {len(members)}; lower train.batch or raise train.images_per_identity"
        )
    groups = [_groups(rows, view[rows], each, view_balanced, rng) for rows in members]
    # +1: only aerial images, -1: only ground, 0: both
    lean = np.array([1 - 2 * int(view[rows[0]]) if np.ptp(view[rows]) == 0 else 0 for rows in members])
    batches: list[Rows] = []
    while True:
        left = rng.permutation([k for k, own in enumerate(groups) if own])
        if len(left) < people:
            return batches
        chosen = _in_turn(left, lean, people) if view_balanced else left[:people]
        batches.append(np.concatenate([groups[k].pop() for k in chosen]))


def _groups(
    rows: Rows, view: NDArray[np.int64], each: int, view_balanced: bool, rng: np.random.Generator
) -> list[Rows]:
    count = max(1, len(rows) // each)
    parts = [rows[view == k] for k in (0, 1)] if view_balanced else [rows]
    parts = [part for part in parts if len(part)]
    share = each // len(parts)
    columns = []
    for part in parts:
        rounds = -(-count * share // len(part))
        drawn = np.concatenate([rng.permutation(part) for _ in range(rounds)])[: count * share]
        columns.append(drawn.reshape(count, share))
    return list(np.concatenate(columns, 1))


def _in_turn(left: Rows, lean: NDArray[np.int64], people: int) -> Rows:
    """The first `people` of `left`, but after one with a single view comes one with the other view where there is."""
    queue, balance, chosen = list(left), 0, []
    for k in range(people):
        wanted: tuple[int, ...] = ()
        if balance != 0:
            wanted = (-balance, 0)
        elif k == people - 1:
            wanted = (0,)
        pick = next((p for lean_wanted in wanted for p in queue if lean[p] == lean_wanted), queue[0])
        queue.remove(pick)
        balance = int(np.sign(balance + lean[pick]))
        chosen.append(pick)
    return np.array(chosen)
