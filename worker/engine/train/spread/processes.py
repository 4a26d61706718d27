"""Worlds of many: data parallel in one process, and processes with copies or shards of the model.

Every gradient is the mean over the processes of what each computed; `Piece.weight` makes that the
gradient of the whole batch.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from worker.engine.passes.layers import Weighted
from worker.engine.train.world import State, World

SHARD_FROM = 1 << 16
"""A layer with at least so many weights is gathered on its own; the rest travels together."""


class DataParallel(World):
    """One process that divides each batch over the GPUs of its machine (torch's DataParallel)."""

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module as torch's DataParallel."""
        return nn.DataParallel(module)


class Processes(World):
    """Processes of a process group that is initialised.

    Args:
        device: of this process.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._device = device

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of parameters that are not part of the wrapped module."""
        self.average(p.grad for p in parameters if p.grad is not None)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the processes."""
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= self.size

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    def any(self, wish: bool) -> bool:
        """Return whether any process wishes it."""
        return bool(self.sum(torch.tensor(float(wish), device=self._device)) > 0)

    def stack(self, values: Tensor) -> Tensor:
        """Return each process's tensor, in the order of ranks, on the CPU."""
        own = values.to(self._device)
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own)
        return torch.stack(parts).cpu()

    def from_leader(self, state: State | None) -> State | None:
        """Return what rank 0 gives, on every process: JSON first, then tensor after tensor."""
        tensors, position = ({}, "") if state is None else state
        plan = [
            (n, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in tensors.items()
        ]
        words = self._text(json.dumps([state is not None, position, plan]))
        there, position, listed = json.loads(words)
        if not there:
            return None
        for name, kind, shape in listed:
            given = tensors.get(name, torch.empty(shape, dtype=getattr(torch, kind)))
            moved = given.to(self._device)
            dist.broadcast(moved, 0)
            tensors[name] = moved.cpu()
        return tensors, position

    def _text(self, text: str) -> str:
        """Return rank 0's text."""
        raw = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).to(self._device)
        length = torch.tensor(len(raw), device=self._device)
        dist.broadcast(length, 0)
        if self.rank:
            raw = torch.empty(int(length), dtype=torch.uint8, device=self._device)
        dist.broadcast(raw, 0)
        return bytes(raw.cpu().tolist()).decode()


class Copies(Processes):
    """Each process has the whole model (DistributedDataParallel)."""

    _wrapped: DistributedDataParallel

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module as torch's DistributedDataParallel."""
        with warnings.catch_warnings():
            # Its name changes between the releases of torch that we run with.
            warnings.simplefilter("ignore", FutureWarning)
            self._wrapped = DistributedDataParallel(
                module,
                device_ids=[self._device] if self._device.type == "cuda" else None,
                broadcast_buffers=False,  # each epoch's end averages them: see World.average
                gradient_as_bucket_view=True,
                find_unused_parameters=_many_outputs(module),
            )
        return self._wrapped

    def syncing(self, last: bool) -> AbstractContextManager[None]:
        """Let gradients meet in a batch's last piece alone."""
        return nullcontext() if last else self._wrapped.no_sync()


class Shards(Processes):
    """Each process has a part of every weight (fully sharded data parallel, FSDP2)."""

    _wrapped: FSDPModule

    def wrap(self, module: nn.Module) -> nn.Module:
        """Shard the module in place: large layers on their own, the rest together."""
        mesh = init_device_mesh(self._device.type, (self.size,))
        for layer in _large_layers(module):
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        # Also the outermost: else it would go on computing with what it gathered last.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        self._wrapped = cast("FSDPModule", module)
        return module

    @contextmanager
    def syncing(self, last: bool) -> Iterator[None]:
        """Let gradients meet in a batch's last piece alone."""
        self._wrapped.set_requires_gradient_sync(last)
        yield


def _large_layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers to shard on their own; none whose weights another layer shares."""
    shared: dict[int, int] = {}
    for layer in module.modules():
        for parameter in layer.parameters(recurse=False):
            shared[id(parameter)] = shared.get(id(parameter), 0) + 1
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, Weighted)
        and sum(p.numel() for p in layer.parameters(recurse=False)) >= SHARD_FROM
        and all(shared[id(p)] == 1 for p in layer.parameters(recurse=False))
    ]


def _many_outputs(module: nn.Module) -> bool:
    """Whether a loss on the first output may leave parameters without a gradient."""
    if not isinstance(module, fx.GraphModule):
        return True
    (output,) = module.graph.find_nodes(op="output")
    return len(output.all_input_nodes) > 1
