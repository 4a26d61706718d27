"""The metric of each task, held against libraries that compute it another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from planish.contract.report import Metric
from planish.contract.spec import Task
from worker.engine.load.dataset import IGNORED, Dataset
from worker.engine.report import words
from worker.engine.report.certificate import certify
from worker.engine.report.losses import spearman
from worker.engine.report.quality import Quality, make_judge

RNG = np.random.default_rng(3)


def judged(
    task: Task,
    before: np.ndarray,
    after: np.ndarray,
    targets: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    batch: int = 7,
) -> Quality:
    """Hand the outputs over in batches that divide nothing evenly."""
    judge = make_judge(task, Dataset((), np.arange(len(before)), targets, scores))
    for start in range(0, len(before), batch):
        rows = slice(start, start + batch)
        judge.add(before[rows], after[rows], None if targets is None else targets[rows])
    return judge.quality()


def test_perplexity_is_that_of_torch_over_shifted_tokens() -> None:
    logits = [RNG.normal(size=(20, 9, 13)).astype(np.float32) * 3 for _ in range(2)]
    tokens = RNG.integers(0, 13, (20, 9))
    tokens[:, 6:][::2] = IGNORED
    quality = judged("language_modeling", *logits, tokens)
    for metric, side in zip((quality.baseline, quality.optimized), logits, strict=True):
        entropy = F.cross_entropy(
            torch.from_numpy(side[:, :-1]).reshape(-1, 13),
            torch.from_numpy(tokens[:, 1:]).reshape(-1),
            ignore_index=IGNORED,
        )
        assert metric.value == pytest.approx(float(entropy.exp()), rel=1e-5)
    assert (quality.optimized.name, quality.optimized.better) == ("perplexity", "lower")
    rise = quality.optimized.value / quality.baseline.value - 1
    assert certify(quality.drop).observed_drop == pytest.approx(rise, rel=1e-9)
    assert certify(quality.drop).unit == "relative"


def test_squared_errors_are_means_over_samples_and_outputs() -> None:
    targets = RNG.normal(size=(15, 4)).astype(np.float32)
    before, after = targets + 1, targets - 2
    quality = judged("regression", before, after, targets)
    assert quality.baseline.value == pytest.approx(1, rel=1e-5)
    assert quality.optimized.value == pytest.approx(4, rel=1e-5)
    assert quality.drop.drop == pytest.approx(3, rel=1e-5)


def test_the_rank_correlation_of_pairs_is_that_of_scipy() -> None:
    before = RNG.normal(size=(40, 6)).astype(np.float32)
    after = before + RNG.normal(size=before.shape).astype(np.float32)
    scores = np.repeat(RNG.integers(0, 5, 20), 2).astype(np.float32)
    quality = judged("embedding", before, after, scores=scores)
    for metric, side in zip((quality.baseline, quality.optimized), (before, after), strict=True):
        cosines = F.cosine_similarity(torch.from_numpy(side[::2]), torch.from_numpy(side[1::2]))
        want = stats.spearmanr(cosines.numpy(), scores[::2]).statistic
        assert metric.value == pytest.approx(want, rel=1e-6)
    assert quality.drop.total == 20


def test_embeddings_are_held_against_references_or_against_the_original() -> None:
    before = RNG.normal(size=(12, 5)).astype(np.float32)
    after = before + 0.1
    alone = judged("embedding", before, after)
    assert (alone.baseline.value, alone.drop) == (pytest.approx(1), None)
    assert alone.optimized.value == pytest.approx(
        float(F.cosine_similarity(torch.from_numpy(before), torch.from_numpy(after)).mean())
    )
    held = judged("embedding", before, after, before)
    assert held.drop.drop == pytest.approx(1 - alone.optimized.value)


@pytest.mark.parametrize("task", ["classification", "regression", "language_modeling", "none"])
def test_without_targets_the_sides_are_held_against_each_other(task: Task) -> None:
    outputs = RNG.normal(size=(10, 3, 4))
    quality = judged(task, outputs, -outputs)
    assert (quality.baseline.name, quality.baseline.value) == ("agreement", 1)
    assert quality.optimized.total == 30
    assert quality.drop is None


def test_constant_answers_rank_nothing() -> None:
    assert spearman(np.ones(5), np.arange(5.0)) == 0


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (1.47, 1.4774, "perplexity 1.477 vs 1.47 (+0.50 %)"),
        (20.0, 25.0, "perplexity 25 vs 20 (+25.0 %)"),
        (3.0, 3.0, "perplexity 3 vs 3 (±0.00 %)"),
    ],
)
def test_perplexity_is_told_with_its_relative_change(
    before: float, after: float, said: str
) -> None:
    sides = (Metric(name="perplexity", value=v, better="lower") for v in (before, after))
    assert words.metric_change(*sides) == said


def test_a_correlation_is_told_with_its_difference() -> None:
    sides = (Metric(name="spearman", value=value) for value in (0.8213, 0.8191))
    assert words.metric_change(*sides) == "spearman 0.8191 vs 0.8213 (−0.0022)"
