"""The bound on the accuracy drop holds as often as it says, and never says more than it knows."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.report.certificate import (
    MIN_SAMPLES,
    Paired,
    certify,
    samples_needed,
    upper_bound,
)


@st.composite
def paired(draw: st.DrawFn) -> Paired:
    total = draw(st.integers(1, 20_000))
    lost = draw(st.integers(0, total))
    return Paired(lost, draw(st.integers(0, total - lost)), total)


def coverage(n: int, lost: float, won: float, confidence: float, limit: int) -> float:
    """Exact probability that the bound is at or above the true drop, by summing all outcomes."""
    log_n, held = math.lgamma(n + 1), 0.0
    rest = 1 - (lost + won) / n
    for b, c in itertools.product(range(limit), repeat=2):
        if b + c > min(n, limit) or (c and not won) or (b and not lost):
            continue
        logs = log_n - math.lgamma(b + 1) - math.lgamma(c + 1) - math.lgamma(n - b - c + 1)
        logs += (b * math.log(lost / n) if b else 0) + (c * math.log(won / n) if c else 0)
        logs += (n - b - c) * math.log(rest)
        if logs > -25 and upper_bound(Paired(b, c, n), confidence) >= (lost - won) / n - 1e-12:
            held += math.exp(logs)
    return held


@pytest.mark.parametrize("n", [100, 360, 2000])
@pytest.mark.parametrize("won", [0.0, 0.05, 1.0, 5.0, 12.0])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_coverage_is_never_below_the_confidence(n: int, won: float, confidence: float) -> None:
    for drop in (0.0, 0.5, 1.7, 2.7, 3.0, 5.0, 10.3):
        assert coverage(n, won + drop, won, confidence, limit=60) >= confidence - 1e-6


def test_simulated_jobs_break_the_bound_no_more_often_than_promised() -> None:
    """Seeded simulation of whole sealed splits; shares no formula with the bound."""
    rng = random.Random(7)
    n, rounds, broken = 400, 2000, 0
    for _ in range(rounds):
        draws = rng.choices(("lost", "won", "same"), (0.03, 0.01, 0.96), k=n)
        broken += upper_bound(Paired(draws.count("lost"), draws.count("won"), n)) < 0.02
    assert broken / rounds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)


@given(paired())
def test_bound_lies_between_observed_drop_and_one(counts: Paired) -> None:
    assert max(0.0, counts.drop) <= upper_bound(counts) <= 1.0


@given(paired())
def test_more_confidence_means_a_higher_bound(counts: Paired) -> None:
    assert upper_bound(counts, 0.9) <= upper_bound(counts, 0.95) <= upper_bound(counts, 0.99)


@given(paired())
def test_one_more_lost_sample_never_lowers_the_bound(counts: Paired) -> None:
    if counts.lost + counts.won < counts.total:
        worse = Paired(counts.lost + 1, counts.won, counts.total)
        assert upper_bound(worse) >= upper_bound(counts)


@given(paired(), st.floats(0.001, 1.0))
def test_certified_means_that_the_bound_is_within_the_budget(
    counts: Paired, max_drop: float
) -> None:
    certificate = certify(counts, max_drop)
    assert certificate.upper_bound is not None
    if certificate.outcome == "certified":
        assert certificate.upper_bound <= max_drop
    if certificate.outcome == "not_met":
        assert certificate.observed_drop is not None
        assert certificate.observed_drop > max_drop


def test_without_budget_the_most_is_a_point_estimate() -> None:
    certificate = certify(Paired(12, 5, 2000))
    assert certificate.outcome == "point_estimate_only"
    assert certificate.observed_drop == pytest.approx(0.0035)
    assert certificate.max_drop is None


def test_outcomes_are_typed() -> None:
    assert certify(Paired(7, 0, 2000), 0.01).outcome == "certified"
    assert certify(Paired(60, 10, 2000), 0.01).outcome == "not_met"
    assert certify(Paired(40, 33, 2000), 0.01).outcome == "point_estimate_only"
    assert certify(Paired(0, 0, 300), 0.01).outcome == "not_enough_data"
    assert certify(Paired(0, 0, MIN_SAMPLES - 1)).outcome == "not_enough_data"
    assert certify(None, 0.01).outcome == "not_enough_data"
    assert certify(None).upper_bound is None


@pytest.mark.parametrize("max_drop", [0.001, 0.01, 0.05])
def test_samples_needed_is_the_first_number_that_can_prove_the_budget(max_drop: float) -> None:
    enough = samples_needed(max_drop)
    assert certify(Paired(0, 0, enough), max_drop).outcome == "certified"
    assert certify(Paired(0, 0, enough - 1), max_drop).outcome == "not_enough_data"


def test_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Paired(3, 3, 5)
    with pytest.raises(ValueError, match="confidence"):
        upper_bound(Paired(0, 0, 10), 0.4)
