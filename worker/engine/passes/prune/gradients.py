"""What the loss on real data says about each weight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from planish.contract.errors import InvalidRecipe
from planish.contract.spec import Task
from worker.engine.load.data import Splits
from worker.engine.model import Model, first_output
from worker.engine.train.losses import task_loss
from worker.engine.train.placement import move

BATCH = 32

Gradients = dict[str, Tensor]
"""By name of the parameter, in its shape, on the CPU."""


def loss_gradients(
    model: Model, splits: Splits | None, task: Task, samples: int, device: torch.device
) -> Iterator[Gradients]:
    """Yield the gradients of the loss on the data's own targets, batch by batch.

    Batches are small, so that gradients of single samples do not cancel out: over the whole data
    those of a trained network are near zero. The network is in eval mode, as it will be used.

    Args:
        model: left as it is; gradients are those of its own parameters, frozen ones included.
        splits: their calibration part is used.
        task: says which loss.
        samples: how many, from the first; all when there are fewer.
        device: where to compute.

    Raises:
        InvalidRecipe: there is no data, or no targets.
    """
    if splits is None or splits.calibration.targets is None or not len(splits.calibration):
        raise InvalidRecipe(
            "gradients of the loss need labels; add an array named targets to the data"
        )
    used, loss = splits.calibration.head(samples), task_loss(task)
    module = move(model.clone().module, device).eval()
    learnt = {n: p.requires_grad_(p.is_floating_point()) for n, p in module.named_parameters()}
    for rows in np.array_split(np.arange(len(used)), -(-len(used) // BATCH)):
        inputs, targets = used.prepare(rows)
        placed = tuple(tensor.to(device) for tensor in inputs)
        wanted = None if targets is None else targets.to(device)
        loss(first_output(module(*placed)), placed, wanted).backward()  # type: ignore[no-untyped-call]
        yield {
            name: p.grad.to("cpu", copy=True) if p.grad is not None else torch.zeros(p.shape)
            for name, p in learnt.items()
        }
        module.zero_grad(set_to_none=True)


def weight_scores(
    model: Model, batches: Iterator[Gradients], method: Literal["gradient", "taylor"]
) -> Gradients:
    """Sum up what single weights mean to the loss, over batches of gradients.

    Args:
        model: whose gradients they are.
        batches: from `loss_gradients`.
        method: gradient: ``|dL/dw|``. taylor: ``|w * dL/dw|``, to first order the change of the
            loss when the weight goes (Molchanov et al. 2017, arXiv:1611.06440, section 2.2).
    """
    weights = {name: p.detach() for name, p in model.module.named_parameters()}
    sums = {name: torch.zeros(p.shape) for name, p in weights.items()}
    for gradients in batches:
        for name, gradient in gradients.items():
            change = gradient if method == "gradient" else gradient * weights[name]
            sums[name] += change.abs()
    return sums
