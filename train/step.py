"""Loss and gradients of one batch that is spread over processes and micro batches.

The contrastive losses compare every pair with every other, so adding up the gradients of parts is not the gradient of
the whole. A step goes the long way, which is exact: features of all parts; loss and its gradient by the features; then
that gradient through each part. Parts whose activations were not kept are computed again, with the same chance
(gradient caching, Gao et al. 2021, arXiv 2101.06983). One part in one process is plain back-propagation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from tagclip.train.batches import Batch
from tagclip.train.config import TrainConfig
from tagclip.train.engine import Engine, batch_norms
from tagclip.train.model import TagClip
from tagclip.train.objective import Features, encode_pairs, weighted_losses


def backward(
    engine: Engine, model: TagClip, batch: Batch, config: TrainConfig, soft: float, chance: tuple[int, ...]
) -> dict[str, Tensor]:
    """Add the gradients of the whole batch's loss to the parameters, the same in every process.

    Batch norms in training mode take their statistics over a micro batch: with them the model is another one than that
    of the whole batch (its gradient is exact all the same). Their running statistics move once.

    Args:
        batch: this process's share; its labels are those of the whole batch.
        soft: share of the model's own prediction in the N-ITC target, 0..1.
        chance: what dropout and the like are drawn from; the rank and the part are added.

    Returns:
        the terms of the loss, detached.
    """
    count = len(batch.crops)
    size = config.micro_batch or count
    parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def encode(k: int) -> Features:
        seed = np.random.SeedSequence([*chance, engine.rank, k]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(seed >> np.uint64(1)))
        with engine.fabric.autocast():
            return encode_pairs(model, batch.crops[parts[k]], [tokens[parts[k]] for tokens in batch.tokens])

    if len(parts) == 1:
        kept = [encode(0)]
    else:
        with torch.no_grad(), still_statistics(model):
            kept = [encode(k) for k in range(len(parts))]
    own = kept[0] if len(parts) == 1 else {n: torch.cat([f[n] for f in kept]) for n in kept[0]}
    whole = {name: engine.gather(feature).requires_grad_() for name, feature in own.items()}
    terms = weighted_losses(model, whole, batch.labels, config, soft)
    engine.fabric.backward(torch.stack(list(terms.values())).sum())
    mine = slice(engine.rank * count, (engine.rank + 1) * count)
    # Each process has the whole loss, and only its own pairs' way to the weights: the gradient is the sum over
    # processes. The engine averages, hence the factor. Heads within the loss see everything, their mean is right.
    wanted = {
        name: feature.grad[mine] * engine.world for name, feature in whole.items() if feature.grad is not None
    }
    for k, part in enumerate(parts):
        features = own if len(parts) == 1 else encode(k)
        names = [name for name in wanted if features[name].requires_grad]
        torch.autograd.backward(
            [features[name] for name in names],
            [wanted[name] if len(parts) == 1 else wanted[name][part] for name in names],
        )
    engine.average_gradients(model.parameters())
    engine.average_statistics(model)
    return {name: term.detach() for name, term in terms.items()}


@contextmanager
def still_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms normalise as in training, their running statistics stay."""
    moving = [norm for norm in batch_norms(model) if norm.track_running_stats]
    for norm in moving:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in moving:
            norm.track_running_stats = True
