"""How the range of an activation is found from calibration samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchao.quantization.pt2e.observer import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
)

from planish.contract.recipe import Quantize

_LEVELS = 256
_STRIDE = 16
_MOVING_SHARE = 0.1
_TINY = 1e-10


class MseObserver(HistogramObserver):  # type: ignore[misc]  # torchao has no types
    """The range with the least squared error over a histogram of 2,048 bins.

    A value within costs ``step² / 12``, one outside its squared distance. Ranges are tried as for
    entropy. Source: Choukroun et al. 2019, arXiv:1902.06822, section 3.
    """

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        """Return the new minimum and maximum."""
        low, high = float(self.min_val), float(self.max_val)
        counts = self.histogram.double()
        edges = torch.linspace(low, high, len(counts) + 1, dtype=torch.float64)
        middles = (edges[1:] + edges[:-1]) / 2
        cuts = [_cut(edges, low, high, share) for share in _shares(len(counts))]
        losses = [_squared(counts, middles, edges[start], edges[stop]) for start, stop in cuts]
        start, stop = cuts[min(range(len(cuts)), key=losses.__getitem__)]
        return edges[start].to(self.min_val), edges[stop].to(self.max_val)


class EntropyObserver(HistogramObserver):  # type: ignore[misc]  # torchao has no types
    """The range whose 256 levels keep most of the distribution's information.

    Over a histogram of 2,048 bins, the range with the least KL(values cut to the range || the same
    in 256 levels). Ranges without negative values shrink from above, others towards zero from both
    sides alike. Source: Migacz 2017, "8-bit Inference with TensorRT"; ONNX Runtime, calibrate.py.
    """

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        """Return the new minimum and maximum."""
        low, high = float(self.min_val), float(self.max_val)
        edges = torch.linspace(low, high, self.bins + 1, dtype=torch.float64)
        counts = _without_zeros(self.histogram.double(), edges)
        cuts = [_cut(edges, low, high, share) for share in _shares(len(counts))]
        losses = [_divergence(counts, start, stop) for start, stop in cuts]
        start, stop = cuts[min(range(len(cuts)), key=losses.__getitem__)]
        return edges[start].to(self.min_val), edges[stop].to(self.max_val)


class PercentileObserver(HistogramObserver):  # type: ignore[misc]  # torchao has no types
    """The range that holds a given share of all values; what lies outside is cut.

    With negative values half of the rest is cut on each side, without only from above. Source: Wu
    et al. 2020, arXiv:2004.09602, section 3.1.
    """

    def __init__(self, share: float = 99.99, **options: object) -> None:
        """Take the share in percent."""
        super().__init__(**options)
        self.share = share

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        """Return the new minimum and maximum."""
        outside = 1 - self.share / 100
        below = outside / 2 if float(self.min_val) < 0 else 0.0
        above = outside - below
        reached = self.histogram.double().cumsum(0)
        total = reached[-1]
        start = int((reached <= below * total).sum()) if below else 0
        stop = int((reached < (1 - above) * total).sum()) + 1
        edges = torch.linspace(float(self.min_val), float(self.max_val), self.bins + 1)
        return edges[start].to(self.min_val), edges[min(stop, self.bins)].to(self.max_val)


def activation_observer(params: Quantize) -> Callable[..., object]:
    """Return the constructor of the observer that `params.calibration` names.

    minmax: the extremes seen. moving_average: a moving average of the extremes of each batch, the
    newest with a weight of a tenth. mse: least squared error of the
    histogram. entropy and percentile: see the classes above.
    """
    constructors: dict[str, Callable[..., object]] = {
        "minmax": MinMaxObserver.with_args(),
        "moving_average": MovingAverageMinMaxObserver.with_args(averaging_constant=_MOVING_SHARE),
        "mse": MseObserver.with_args(),
        "entropy": EntropyObserver.with_args(),
        "percentile": PercentileObserver.with_args(share=params.percentile),
    }
    return constructors[params.calibration]


def _shares(bins: int) -> list[float]:
    """Return the shares of the range to try: whole steps of 16 bins, at least one bin a level."""
    return [kept / bins for kept in range(_LEVELS, bins + 1, _STRIDE)]


def _squared(counts: Tensor, middles: Tensor, low: Tensor, high: Tensor) -> float:
    """Return the summed squared error of a range; zero is always within."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    step = (high - low) / (_LEVELS - 1)
    inside = (middles >= low) & (middles <= high)
    error = torch.where(inside, step.square() / 12, (middles - middles.clamp(low, high)).square())
    return float((counts * error).sum())


def _cut(edges: Tensor, low: float, high: float, share: float) -> tuple[int, int]:
    """Return first and last edge of a share of the range; zero stays within."""
    bins = len(edges) - 1
    if low >= 0:
        return 0, round(share * bins)
    reach = share * max(-low, high)
    start = int((edges < -reach).sum()) if -reach > low else 0
    stop = int((edges <= reach).sum()) - 1 if reach < high else bins
    start, stop = min(start, bins - 1), max(stop, 1)
    return (start, stop) if stop > start else (0, bins)


def _without_zeros(counts: Tensor, edges: Tensor) -> Tensor:
    """Cut the bin that holds zero down to the larger of its neighbours.

    Half of the values behind a ReLU are zeros, and would outweigh all others.
    """
    at = int((edges[1:-1] <= 0).sum())
    around = [counts[index] for index in (at - 1, at + 1) if 0 <= index < len(counts)]
    cut = counts.clone()
    cut[at] = torch.minimum(counts[at], torch.stack(around).max())
    return cut


def _divergence(counts: Tensor, start: int, stop: int) -> float:
    """Return KL(P || Q): P is cut to the range with its tails in the last bins, Q has 256 levels.

    A bin without values stays without in Q. Infinite where Q misses what P has.
    """
    inside = counts[start:stop]
    wanted = inside.clone()
    wanted[0] += counts[:start].sum()
    wanted[-1] += counts[stop:].sum()
    level = torch.arange(len(inside)) * _LEVELS // len(inside)
    filled = (inside > 0).double()
    sums = torch.zeros(_LEVELS, dtype=torch.float64).index_add_(0, level, inside)
    sizes = torch.zeros(_LEVELS, dtype=torch.float64).index_add_(0, level, filled)
    got = (sums / sizes.clamp(min=1))[level] * filled
    p, q = wanted / wanted.sum(), got / got.sum().clamp(min=_TINY)
    seen = p > 0
    return float((p[seen] * (p[seen] / q[seen].clamp(min=_TINY)).log()).sum())
