"""A module's tensors by name: the parts that this process holds, and the whole ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

Tensors = dict[str, Tensor]


def tensors_of(module: nn.Module) -> Tensors:
    """Return parameters and buffers that a file holds, as they are: DTensors where sharded."""
    return {name: value.detach() for name, value in module.state_dict().items()}


def local(value: Tensor) -> Tensor:
    """Return what this process holds of a tensor; shares its memory."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(part: Tensor, like: Tensor) -> Tensor:
    """Return the whole tensor, on the CPU, whose local part is `part`; all processes must call it.

    Args:
        part: a local part.
        like: the tensor that says how it is sharded.
    """
    if isinstance(like, DTensor):
        part = DTensor.from_local(
            part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
        ).full_tensor()
    return part.detach().to("cpu", copy=True)


def put(full: Tensor, part: Tensor, like: Tensor) -> None:
    """Write the part that this process holds of a whole tensor into `part`."""
    if isinstance(like, DTensor):
        spread = distribute_tensor(full.to(part.device), like.device_mesh, like.placements)
        full = spread.to_local()
    with torch.no_grad():
        part.copy_(full)
