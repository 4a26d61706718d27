"""Zeros that stay: what pruning of single weights asks of the training steps after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from worker.engine.masks import Masks, Scope, lowest, lowest_of_all

GROWING_SHARE = 2 / 3
MOST_RANKINGS = 100


@dataclass(frozen=True, eq=False)
class Growth:
    """What the next training pass removes little by little (schedule cubic).

    Attributes:
        zeros: how many zeros each weight has in the end; with scope global, their sum counts.
        scope: one ranking for each weight, or one over all.
        scores: the ranking, found before training, by weight in its shape; None ranks by |w| as it
            is at each step.
        candidates: which may go at all, by weight (n:m: those that lost in their groups); None for
            any.
    """

    zeros: Mapping[str, int]
    scope: Scope
    scores: Mapping[str, Tensor] | None = field(default=None, repr=False)
    candidates: Mapping[str, Tensor] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Sparsity:
    """Which weights of a model are sparse on purpose.

    Attributes:
        weights: names of parameters whose zeros stay zero; names that are gone are ignored.
        growth: what the next training pass removes; None when nothing is left to remove.
    """

    weights: tuple[str, ...]
    growth: Growth | None = None


def hold(module: nn.Module, sparsity: Sparsity | None, steps: int) -> Held:
    """Return what keeps the zeros of a module zero while it trains.

    Args:
        module: on its device, possibly sharded (FSDP2); weights that are zero now stay zero.
        sparsity: of the model; None holds nothing.
        steps: optimizer steps of the whole run.
    """
    return Held(module, sparsity or Sparsity(()), steps)


def settled(sparsity: Sparsity | None) -> Sparsity | None:
    """Return what stays of it after the training pass that grew it."""
    return None if sparsity is None else Sparsity(sparsity.weights)


class Held:
    """Masks of one training run. A run that resumes from its weights goes on as it would have."""

    def __init__(self, module: nn.Module, sparsity: Sparsity, steps: int) -> None:
        found = dict(module.named_parameters())
        self._weights = {name: found[name] for name in sparsity.weights if name in found}
        self._gone: Masks = {name: _local(w.detach()) == 0 for name, w in self._weights.items()}
        self._growth = sparsity.growth
        self._last = max(math.ceil(steps * GROWING_SHARE), 1) - 1
        self._every = max(1, (self._last + 1) // MOST_RANKINGS)
        self.complete = self._growth is None

    @torch.no_grad()
    def enforce(self, step: int) -> None:
        """Put the zeros back after an optimizer step; with growth, first decide which there are.

        Args:
            step: of the whole run, from 0. The share grows over the first two thirds of the steps.
        """
        self.clean(self._weights)
        if self._growth is None or self.complete:
            return
        if step >= self._last or (self._last - step) % self._every == 0:
            self._grow(self._growth, min((step + 1) / (self._last + 1), 1.0))
            self.clean(self._weights)
        self.complete = step >= self._last

    @torch.no_grad()
    def clean(self, state: Mapping[str, Tensor]) -> None:
        """Put the zeros into other values of the same weights, by name: an average, a snapshot."""
        for name, gone in self._gone.items():
            if name in state:
                _local(state[name]).masked_fill_(gone, 0.0)

    def _grow(self, growth: Growth, time: float) -> None:
        """Rank, and take away the share of this moment (Zhu and Gupta 2017, equation 1)."""
        share = 1 - (1 - time) ** 3
        scores = {name: self._score(name, growth) for name in growth.zeros if name in self._gone}
        counts = {name: round(share * growth.zeros[name]) for name in scores}
        if growth.scope == "global":
            total = sum(growth.zeros[name] for name in scores)
            gone = lowest_of_all(scores, round(share * total))
        else:
            gone = {name: lowest(score, counts[name]) for name, score in scores.items()}
        for name, mask in gone.items():
            self._gone[name] |= _as(self._weights[name], mask)

    def _score(self, name: str, growth: Growth) -> Tensor:
        weight = _whole(self._weights[name].detach())
        score = weight.abs() if growth.scores is None else growth.scores[name].to(weight.device)
        if growth.candidates is not None:
            score = score.masked_fill(~growth.candidates[name].to(weight.device), math.inf)
        # What is zero already is part of what goes.
        return score.masked_fill(weight == 0, -math.inf)


def _whole(weight: Tensor) -> Tensor:
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def _local(weight: Tensor) -> Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _as(weight: Tensor, mask: Tensor) -> Tensor:
    """Return the part of a mask that belongs to what this process holds of a weight."""
    if not isinstance(weight, DTensor):
        return mask
    return distribute_tensor(mask, weight.device_mesh, weight.placements).to_local()
