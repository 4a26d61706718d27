"""Everything of a run that a checkpoint holds in tensors, out of its places and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim

from worker.engine.train.losses import Loss
from worker.engine.train.shards import Tensors, local, put, tensors_of, whole
from worker.engine.train.world import World


@dataclass(frozen=True)
class TrainingState:
    """The tensors of a run, where they live.

    Attributes:
        module: what is trained.
        loss: may have a state of its own.
        optimizer: momentum and the like.
        kept: the best weights, this process's parts.
        average: likewise the moving averages; empty without them.
        device: of the run, whose random state counts besides the CPU's.
    """

    module: nn.Module
    loss: Loss
    optimizer: optim.Optimizer
    kept: Tensors
    average: Tensors
    device: torch.device

    def gather(self, world: World, *, done: bool = False) -> Tensors:
        """Return copies on the CPU; every process must call it, and rank 0 gets the whole.

        Args:
            world: who holds parts.
            done: only the weights that are kept.
        """
        likes = tensors_of(self.module)
        found = {f"kept/{n}": whole(part, likes[n]) for n, part in self.kept.items()}
        if not done:
            found |= {f"model/{n}": whole(local(t), t) for n, t in likes.items()}
            found |= {f"average/{n}": whole(p, likes[n]) for n, p in self.average.items()}
            found |= {f"loss/{n}": whole(t, t) for n, t in self._of_loss().items()}
            found |= {f"optimizer/{n}": whole(local(t), t) for n, t in self._of_optimizer()}
            found |= {f"random/{n}": world.stack(t) for n, t in self._random().items()}
        return {name: tensor.contiguous() for name, tensor in found.items()}

    def restore(self, tensors: Tensors, world: World, *, done: bool = False) -> None:
        """Put back what `gather` returned."""
        likes = tensors_of(self.module)
        for name, part in self.kept.items():
            put(tensors[f"kept/{name}"], part, likes[name])
        if done:
            return
        for name, live in likes.items():
            put(tensors[f"model/{name}"], local(live), live)
        for name, part in self.average.items():
            put(tensors[f"average/{name}"], part, likes[name])
        for name, live in self._of_loss().items():
            put(tensors[f"loss/{name}"], live, live)
        self._restore_optimizer(tensors)
        # A clone: torch reads the state from where its storage begins.
        own = {n: tensors[f"random/{n}"][world.rank].clone() for n in self._random()}
        self._restore_random(own)

    def _of_loss(self) -> Tensors:
        """Return what the loss trains; a teacher in it is frozen and not part of a checkpoint."""
        if not isinstance(self.loss, nn.Module):
            return {}
        return {n: p.detach() for n, p in self.loss.named_parameters() if p.requires_grad}

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _of_optimizer(self) -> Iterator[tuple[str, Tensor]]:
        for index, parameter in enumerate(self._parameters()):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    yield f"{index}/{key}", value

    def _restore_optimizer(self, tensors: Tensors) -> None:
        parameters = self._parameters()
        for name, full in tensors.items():
            place, _, rest = name.partition("/")
            if place != "optimizer":
                continue
            index, _, key = rest.partition("/")
            parameter = parameters[int(index)]
            shaped = full.shape == parameter.shape and full.dim() > 0
            value = torch.zeros_like(parameter) if shaped else full.to(parameter.device, copy=True)
            if shaped:
                put(full, local(value), value)
            self.optimizer.state[parameter][key] = value

    def _random(self) -> Tensors:
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def _restore_random(self, states: Tensors) -> None:
        torch.set_rng_state(states["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self.device)
