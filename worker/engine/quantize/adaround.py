"""Adaptive rounding: whether each weight is rounded up or down is learned, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from worker.engine.load.dataset import Dataset
from worker.engine.quantize.pairs import Pair
from worker.engine.quantize.prepared import Prepared
from worker.engine.quantize.walk import Site, walk

_ROWS = 32
_RATE = 0.02
_LEAST, _MOST = 100, 400
_WORK = 2e10  # multiply-accumulates
_STRETCH, _SHIFT = 1.2, -0.1
_PUSH = 0.05
_FREE_SHARE = 0.2
_BETA_START, _BETA_END = 20.0, 2.0


@dataclass(frozen=True)
class Rounded:
    """What learning did to one layer: mean squared error of its output, before and after."""

    layer: str
    nearest: float
    learned: float


def learn_rounding(prepared: Prepared, samples: Dataset, seed: int) -> tuple[Rounded, ...]:
    """Move each weight to the grid point above or below it, whichever serves the output.

    Each layer gets what the integer layers before it hand over, and learns to answer as the float
    one does behind its activation. A layer for which nearest rounding is better keeps it. Source:
    Nagel et al. 2020, arXiv:2004.10568, section 3; steps are bounded by the layer's work, between
    100 and 400, where the paper takes 10,000.

    Args:
        prepared: its pairs are settled; weights change in place and lie on their grid afterwards.
        samples: calibration samples.
        seed: draws the rows of each step.
    """
    done: list[Rounded] = []
    generator = Generator().manual_seed(seed)

    def visit(site: Site) -> None:
        weight = prepared.weight(site.node)
        pair, bias = prepared.pair(site.node, 1), prepared.bias(site.node)
        grid = _Grid(weight.detach().clone(), pair)
        target = site.activate(site.wanted)
        nearest = _error(site, grid.nearest(), bias, target)
        with torch.enable_grad():
            up = _learn(site, grid, None if bias is None else bias.detach(), target, generator)
        candidate = grid.at(up)
        learned = _error(site, candidate, bias, target)
        done.append(Rounded(site.layer, nearest, min(learned, nearest)))
        weight.copy_(candidate if learned < nearest else grid.nearest())

    walk(prepared, samples, visit)
    return tuple(done)


class _Grid:
    """The grid of a weight: ``(floor(w / scale) + up) * scale`` within the integers' range."""

    def __init__(self, weight: Tensor, pair: Pair) -> None:
        sizes = [-1] + [1] * (weight.dim() - 1)
        per_channel = pair.is_per_channel
        self.weight = weight
        self.scale = pair.scale.reshape(sizes) if per_channel else pair.scale
        zero = pair.zero_point.reshape(sizes) if per_channel else pair.zero_point
        self.low, self.high = pair.quant_min - zero, pair.quant_max - zero
        self.floor = (weight / self.scale).floor()
        self.rest = weight / self.scale - self.floor

    def at(self, up: Tensor) -> Tensor:
        """Return the weight with a share 0..1 of a step added to each rounded-down value.

        What is zero stays zero: pruned weights do not come back.
        """
        moved: Tensor = (self.floor + up).clamp(self.low, self.high) * self.scale
        return moved.masked_fill(self.weight == 0, 0.0)

    def nearest(self) -> Tensor:
        """Return the weight rounded to nearest."""
        return self.at((self.weight / self.scale).round() - self.floor)


def _learn(
    site: Site, grid: _Grid, bias: Tensor | None, target: Tensor, generator: Generator
) -> Tensor:
    """Return 0 or 1 for each weight: round down or up."""
    start = torch.logit((grid.rest - _SHIFT) / _STRETCH, eps=1e-4)
    free = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([free], lr=_RATE)
    steps = _steps(site, grid.weight)
    unit = _error(site, grid.nearest(), bias, target) + 1e-12
    for step in range(steps):
        rows = torch.randint(len(target), (min(_ROWS, len(target)),), generator=generator)
        up = (torch.sigmoid(free) * _STRETCH + _SHIFT).clamp(0, 1)
        outputs = site.activate(site.compute(site.inputs[rows], grid.at(up), bias))
        loss = (outputs - target[rows]).square().mean() / unit
        if step >= _FREE_SHARE * steps:
            loss = loss + _PUSH * _undecided(up, step / steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return (free.detach() > 0).to(grid.weight.dtype)


def _undecided(up: Tensor, progress: float) -> Tensor:
    """Return the penalty on values between 0 and 1 (equation 24); it tightens with progress."""
    share = (progress - _FREE_SHARE) / (1 - _FREE_SHARE)
    beta = _BETA_START + (_BETA_END - _BETA_START) * share
    return (1 - (2 * up - 1).abs().pow(beta)).mean()


def _steps(site: Site, weight: Tensor) -> int:
    """Return how many steps fit into the work that a layer may cost."""
    positions = site.wanted[0].numel() / weight.shape[0]
    work = 3 * _ROWS * positions * weight.numel()
    return int(min(max(_WORK / work, _LEAST), _MOST))


def _error(site: Site, weight: Tensor, bias: Tensor | None, target: Tensor) -> float:
    with torch.no_grad():
        outputs = site.activate(site.compute(site.inputs, weight, bias))
        return float((outputs - target).square().mean())
