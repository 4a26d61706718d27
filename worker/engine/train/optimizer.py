"""Update rules; what normalizes or shifts is not decayed."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn, optim
from torch.distributed.tensor import DTensor

from planish.contract.recipe import Train


def make_optimizer(
    module: nn.Module, train: Train, others: Iterable[nn.Parameter] = ()
) -> optim.Optimizer:
    """Return the optimizer of a run over all trainable parameters.

    Weight decay acts on matrices and kernels only: biases and the scales of normalizations have one
    dimension and are left free.

    Args:
        module: what is trained.
        train: the rule and its parameters.
        others: what the loss trains along with it.
    """
    parameters = [p for p in (*module.parameters(), *others) if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = not any(isinstance(p, DTensor) for p in parameters)  # no such kernel for shards
    if train.optimizer == "sgd":
        return optim.SGD(groups, lr=train.lr, momentum=train.momentum, fused=fused)
    if train.optimizer == "adam":
        return optim.Adam(groups, lr=train.lr, fused=fused)
    return optim.AdamW(groups, lr=train.lr, fused=fused)
