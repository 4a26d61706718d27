"""How much may have been lost where nothing is counted: losses, perplexity, rank correlation.

Both models answer the same sealed samples, so the bound is on the *paired* difference.

A mean loss gets Student's one-sided bound on the mean of the differences. Perplexity is exp of a
ratio, summed cross entropy by tokens; its samples (sequences) are the independent units, so the
variance is that of the ratio estimator with sequences as clusters (Cochran 1977, Sampling
Techniques, section 6.3), and exp carries the bound over. A rank correlation has no mean to bound:
its pairs are drawn anew, both models together, and the bound is a percentile of the differences
(Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3), seeded.

All are approximations for many samples, and therefore speak from `MIN_SAMPLES` on only. No bound is
below zero: it speaks of loss, it does not claim a gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from worker.engine.report.certificate import Unit

RESAMPLES = 2000
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class MeanDrop:
    """Differences of one loss: optimized minus baseline, one value for each sample."""

    differences: Doubles = field(repr=False)

    @property
    def total(self) -> int:
        """Samples."""
        return len(self.differences)

    @property
    def drop(self) -> float:
        """Mean difference."""
        return float(self.differences.mean())

    @property
    def unit(self) -> Unit:
        """The metric's own."""
        return "value"

    @property
    def method(self) -> str:
        """Student's bound."""
        return "one-sided Student bound on the mean paired difference, floored at 0"

    def bound(self, confidence: float) -> float:
        """Return the upper bound of the mean difference."""
        return max(0.0, _student(self.differences, confidence))

    def provable(self, confidence: float) -> float:
        """Return 0: unchanged answers prove any budget."""
        return 0.0

    def is_proven(self, confidence: float = 0.95) -> bool:
        """Tell whether the lower bound of the mean difference is above zero."""
        return _student(-self.differences, confidence) < 0


@dataclass(frozen=True)
class PerplexityDrop:
    """Cross entropies of whole sequences: optimized minus baseline, and how many tokens they sum.

    Attributes:
        differences: of the summed cross entropy, one for each sequence.
        tokens: counted in each sequence.
    """

    differences: Doubles = field(repr=False)
    tokens: Doubles = field(repr=False)

    @property
    def total(self) -> int:
        """Sequences that hold a counted token."""
        return int((self.tokens > 0).sum())

    @property
    def drop(self) -> float:
        """Relative rise of the perplexity: 0.01 is one percent."""
        return math.expm1(self._mean)

    @property
    def unit(self) -> Unit:
        """Relative to the baseline's perplexity."""
        return "relative"

    @property
    def method(self) -> str:
        """Ratio estimator."""
        return (
            "one-sided Student bound on the paired difference of mean cross entropies, sequences "
            "as clusters, exponentiated, floored at 0"
        )

    def bound(self, confidence: float) -> float:
        """Return the upper bound of the relative rise."""
        return max(0.0, math.expm1(min(_student(self._linearized, confidence), 700.0)))

    def provable(self, confidence: float) -> float:
        """Return 0: unchanged answers prove any budget."""
        return 0.0

    def is_proven(self, confidence: float = 0.95) -> bool:
        """Tell whether the lower bound of the rise is above zero."""
        return _student(-self._linearized, confidence) < 0

    @property
    def _linearized(self) -> Doubles:
        """Values, one for each sequence, whose mean and its error are those of the ratio."""
        counted = self.tokens > 0
        each = self.tokens[counted].sum() / self.total
        residuals = self.differences[counted] - self._mean * self.tokens[counted]
        values: Doubles = residuals / each + self._mean
        return values

    @property
    def _mean(self) -> float:
        return float(self.differences.sum() / max(self.tokens.sum(), 1.0))


@dataclass(frozen=True)
class RankDrop:
    """Predictions of both models for the same pairs, and what is right.

    Attributes:
        before: of the baseline, one for each pair.
        after: of the optimized model.
        scores: what their order is held against.
        seed: of the resampling.
    """

    before: Doubles = field(repr=False)
    after: Doubles = field(repr=False)
    scores: Doubles = field(repr=False)
    seed: int = 0

    @property
    def total(self) -> int:
        """Pairs."""
        return len(self.scores)

    @property
    def drop(self) -> float:
        """Fall of the rank correlation."""
        return spearman(self.before, self.scores) - spearman(self.after, self.scores)

    @property
    def unit(self) -> Unit:
        """The metric's own."""
        return "value"

    @property
    def method(self) -> str:
        """Bootstrap."""
        return f"paired percentile bootstrap, {RESAMPLES} resamples of the pairs, floored at 0"

    def bound(self, confidence: float) -> float:
        """Return the upper bound of the fall."""
        return max(0.0, float(np.quantile(self._resampled, confidence)))

    def provable(self, confidence: float) -> float:
        """Return 0: unchanged answers prove any budget."""
        return 0.0

    def is_proven(self, confidence: float = 0.95) -> bool:
        """Tell whether hardly a resample shows anything but a fall."""
        return float(np.quantile(self._resampled, 1 - confidence)) > 0

    @cached_property
    def _resampled(self) -> Doubles:
        generator = np.random.default_rng(self.seed)
        rows = (generator.integers(0, self.total, self.total) for _ in range(RESAMPLES))
        return np.array(
            [RankDrop(self.before[r], self.after[r], self.scores[r]).drop for r in rows]
        )


def spearman(one: Doubles, two: Doubles) -> float:
    """Return Spearman's rank correlation; ties share their mean rank, a constant side gives 0."""
    a, b = (_ranks(values) for values in (one, two))
    a, b = a - a.mean(), b - b.mean()
    norms = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norms if norms else 0.0


def _ranks(values: Doubles) -> Doubles:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Doubles = (last - (counts - 1) / 2)[inverse]
    return ranks


def _student(values: Doubles, confidence: float) -> float:
    """Return the mean plus Student's quantile times its standard error; inf for one sample."""
    n = len(values)
    if n < 2:
        return math.inf
    error = float(values.std(ddof=1)) / math.sqrt(n)
    return float(values.mean()) + _student_quantile(confidence, n - 1) * error


def _student_quantile(confidence: float, freedom: int) -> float:
    """Return the quantile by its expansion in 1/freedom (Abramowitz and Stegun 1964, 26.7.5)."""
    z = NormalDist().inv_cdf(confidence)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
