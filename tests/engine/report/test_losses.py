"""Bounds on losses hold as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from worker.engine.report.certificate import certify
from worker.engine.report.losses import MeanDrop, PerplexityDrop, RankDrop, _student_quantile


@pytest.mark.parametrize("freedom", [5, 20, 99, 5000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_students_quantile_is_that_of_scipy(confidence: float, freedom: int) -> None:
    want = stats.t.ppf(confidence, freedom)
    assert _student_quantile(confidence, freedom) == pytest.approx(want, rel=5e-3)


def test_the_bound_on_a_mean_breaks_no_more_often_than_promised() -> None:
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(2000, 120)) - 0.9  # skewed, true mean 0.1
    broken = sum(MeanDrop(row).bound(0.95) < 0.1 for row in draws)
    # Skewed to the right a sample's mean is low more often than it is high: a little above 5 %.
    assert broken / len(draws) < 0.08


def test_the_bound_on_perplexity_takes_sequences_as_units() -> None:
    """Tokens of a sequence are not independent: a bound from tokens would be far too narrow."""
    rng = np.random.default_rng(1)
    broken = 0
    for _ in range(1000):
        tokens = rng.integers(20, 60, 150).astype(float)
        shift = rng.normal(0.01, 0.05, 150)  # the same for all tokens of a sequence
        broken += PerplexityDrop(shift * tokens, tokens).bound(0.95) < np.expm1(0.01)
    assert 0.02 < broken / 1000 < 0.075


def test_sequences_without_a_token_do_not_count() -> None:
    drop = PerplexityDrop(np.array([0.5, 0.0, 0.3]), np.array([5.0, 0.0, 5.0]))
    assert drop.total == 2
    assert drop.drop == pytest.approx(np.expm1(0.08))
    assert np.isfinite(drop.bound(0.95))


def test_the_bootstrap_of_ranks_is_seeded_and_paired() -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(size=150)
    before = scores + rng.normal(size=150)
    same = RankDrop(before, before, scores)
    assert (same.drop, same.bound(0.95), same.is_proven()) == (0, 0, False)
    worse = RankDrop(before, before + rng.normal(size=150) * 2, scores)
    assert worse.drop < worse.bound(0.95) < worse.drop + 0.3
    assert worse.is_proven()
    assert worse.bound(0.95) == RankDrop(worse.before, worse.after, scores).bound(0.95)


def test_outcomes_are_those_of_counts() -> None:
    noise = np.random.default_rng(3).normal(0, 0.01, 400)
    outcomes = [
        certify(MeanDrop(noise), 0.01).outcome,
        certify(MeanDrop(noise + 0.05), 0.01).outcome,
        certify(MeanDrop(noise[:50]), 0.01).outcome,
        certify(MeanDrop(noise * 20 + 0.005), 0.02).outcome,
        certify(MeanDrop(noise)).outcome,
    ]
    assert outcomes == [
        "certified",
        "not_met",
        "not_enough_data",
        "point_estimate_only",
        "point_estimate_only",
    ]
