"""A limit on the length of a step, also where gradients lie in parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from worker.engine.train.shards import local
from worker.engine.train.world import World


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], limit: float, world: World) -> None:
    """Scale the gradients of all parameters so that their L2 norm is at most `limit`.

    Torch's `clip_grad_norm_` cannot take sharded and whole gradients (those of a loss's own
    parameters) at once; nothing here waits for a GPU.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    parts = [local(g) for g in gradients]
    if not parts:
        return
    sharded = [local(g) for g in gradients if isinstance(g, DTensor)]
    square = _square([g for g in gradients if not isinstance(g, DTensor)], parts[0])
    if sharded:
        square = square + world.sum(_square(sharded, parts[0]))
    factor = (limit / (square.sqrt() + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(parts, factor)


def _square(values: list[Tensor], like: Tensor) -> Tensor:
    """Return the sum of all squares, a scalar on the device of `like`."""
    if not values:
        return like.new_zeros(())
    return torch.stack(torch._foreach_norm(values)).square().sum()
