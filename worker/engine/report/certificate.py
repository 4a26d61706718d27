"""How much may have been lost: a paired, one-sided upper bound; here from counts of right answers.

Losses and rank correlations have theirs in `worker.engine.report.losses`.

Both models answer the same sealed samples, so only the samples on which exactly one of them is
right say anything about the difference. With ``b`` of them lost (baseline right, optimized wrong)
and ``c`` won, the drop is ``(b - c) / n``. Its upper bound inverts Tango's score test for a
difference of paired proportions (Tango 1998, Statistics in Medicine 17:891-908), which stays
sensible when few or no predictions change, with a continuity correction of half a sample: that
keeps the coverage at or above the stated confidence for every true drop of zero or more (computed
exactly in the tests). The bound is never below zero: it speaks of loss, it does not claim a gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, Protocol

from planish.contract.report import Certificate

METHOD = (
    "one-sided score bound for a paired difference of proportions "
    "(Tango 1998), continuity-corrected, floored at 0"
)
MIN_SAMPLES = 100
_CORRECTION = 0.5
_STEPS = 60

Outcome = Literal["certified", "point_estimate_only", "not_met", "not_enough_data"]
Unit = Literal["share", "relative", "value"]


class Drop(Protocol):
    """What the metric lost on the same samples."""

    @property
    def total(self) -> int:
        """Samples (pairs, for a correlation of pairs)."""

    @property
    def drop(self) -> float:
        """Observed loss; negative when the optimized model is better."""

    @property
    def unit(self) -> Unit:
        """What the numbers are, see `planish.contract.report.Certificate`."""

    @property
    def method(self) -> str:
        """How the bound is found."""

    def bound(self, confidence: float) -> float:
        """Return the loss that the true loss does not exceed, with the given confidence."""

    def provable(self, confidence: float) -> float:
        """Return the least loss that so few samples could prove at all."""

    def is_proven(self, confidence: float = 0.95) -> bool:
        """Tell whether something was lost, beyond chance."""


@dataclass(frozen=True)
class Paired:
    """Counts on the same samples.

    Attributes:
        lost: baseline right, optimized wrong.
        won: baseline wrong, optimized right.
        total: all samples.
    """

    lost: int
    won: int
    total: int

    def __post_init__(self) -> None:
        if min(self.lost, self.won) < 0 or self.lost + self.won > self.total:
            raise ValueError(f"counts do not fit each other: {self}")

    @property
    def drop(self) -> float:
        """Observed absolute drop of the accuracy; negative when the optimized model is better."""
        return (self.lost - self.won) / self.total

    @property
    def unit(self) -> Unit:
        """A share of the samples."""
        return "share"

    @property
    def method(self) -> str:
        """Tango's score bound."""
        return METHOD

    def bound(self, confidence: float) -> float:
        """Return the upper bound."""
        return upper_bound(self, confidence)

    def provable(self, confidence: float) -> float:
        """Return the bound when not one prediction changes."""
        return upper_bound(Paired(0, 0, self.total), confidence)

    def is_proven(self, confidence: float = 0.95) -> bool:
        """Tell whether the gain, seen from the other side, is bounded by zero."""
        swapped = Paired(self.won, self.lost, self.total)
        return self.won < self.lost and upper_bound(swapped, confidence) == 0


def upper_bound(counts: Paired, confidence: float = 0.95) -> float:
    """Return the drop that the true drop does not exceed, with the given confidence.

    Args:
        counts: paired counts with at least one sample.
        confidence: one-sided, 0.5 < confidence < 1.

    Returns:
        A value in 0..1.
    """
    if not 0.5 < confidence < 1 or counts.total < 1:
        raise ValueError("a bound needs samples and a confidence between 0.5 and 1")
    quantile = NormalDist().inv_cdf(confidence)
    low, high = max(0.0, counts.drop), 1.0
    if _score(counts, low) <= -quantile:
        return low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _score(counts, middle) <= -quantile:
            high = middle
        else:
            low = middle
    return high


def certify(
    drop: Drop | None, max_drop: float | None = None, confidence: float = 0.95
) -> Certificate:
    """Return what the sealed samples prove about the drop.

    The outcome is ``certified`` when the upper bound is within `max_drop`; ``not_enough_data``
    without labels, below `MIN_SAMPLES` samples, or when even unchanged predictions on so few
    samples could not prove `max_drop`; ``not_met`` when the observed drop is above it; else
    ``point_estimate_only``, which is also the most that a job without a budget gets.

    Args:
        drop: None when there are no labelled samples.
        max_drop: allowed drop in the unit of `drop` (share: 0.01 = one point); None when the job
            set none.
        confidence: of the bound, one-sided.
    """
    found = drop if drop is not None and drop.total else None
    bound = None if found is None else found.bound(confidence)
    return Certificate(
        max_drop=max_drop,
        observed_drop=None if found is None else found.drop,
        upper_bound=bound,
        confidence=confidence,
        n=0 if found is None else found.total,
        method=METHOD if found is None else found.method,
        outcome=_outcome(found, bound, max_drop, confidence),
        unit="share" if found is None else found.unit,
    )


def samples_needed(max_drop: float, confidence: float = 0.95) -> int:
    """Return the fewest samples that can prove `max_drop` when no prediction changes."""
    if not 0 < max_drop <= 1:
        raise ValueError("max_drop must be above 0 and at most 1")
    low, high = 0, MIN_SAMPLES
    while upper_bound(Paired(0, 0, high), confidence) > max_drop:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if upper_bound(Paired(0, 0, middle), confidence) > max_drop:
            low = middle
        else:
            high = middle
    return max(high, MIN_SAMPLES)


def _outcome(
    drop: Drop | None, bound: float | None, max_drop: float | None, confidence: float
) -> Outcome:
    if drop is None or bound is None or drop.total < MIN_SAMPLES:
        return "not_enough_data"
    if max_drop is None:
        return "point_estimate_only"
    if bound <= max_drop:
        return "certified"
    if drop.provable(confidence) > max_drop:
        return "not_enough_data"
    return "not_met" if drop.drop > max_drop else "point_estimate_only"


def _score(counts: Paired, drop: float) -> float:
    """Return Tango's statistic for the hypothesis that the true drop is `drop`.

    The variance uses the maximum-likelihood estimate of P(won) under that hypothesis.
    """
    n, b, c = counts.total, counts.lost, counts.won
    linear = (2 * n - b + c) * drop - b - c
    constant = -c * drop * (1 - drop)
    won = (math.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * max(2 * won + drop * (1 - drop), 0.0)
    distance = b - c + _CORRECTION - n * drop
    if variance == 0.0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)
