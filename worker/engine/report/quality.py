"""How good both sides are on the same samples: the metric of the task, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from planish.contract.report import Metric
from planish.contract.spec import Task
from worker.engine.load.dataset import IGNORED, Dataset
from worker.engine.report.certificate import Drop, Paired
from worker.engine.report.losses import MeanDrop, PerplexityDrop, RankDrop, spearman

# What stood for the client's world: sealed samples with or without labels, or noise in their place.
Samples = Literal["labelled", "unlabelled", "too_few", "no_data"]
Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """The metric of both sides; without labels `drop` is None: nothing tells right from wrong."""

    baseline: Metric
    optimized: Metric
    drop: Drop | None


class Judge(Protocol):
    """Takes the answers of both sides batch by batch, in the order of the samples."""

    def add(self, before: Floats, after: Floats, targets: NDArray[np.generic] | None) -> None:
        """Take the outputs of both sides for the same samples, and what is right."""

    def quality(self) -> Quality:
        """Return the metric over everything that was added."""


def make_judge(task: Task, samples: Dataset, seed: int = 0) -> Judge:
    """Return what measures the task's metric on these samples.

    Args:
        task: of the job.
        samples: labelled or not; what is missing decides for agreement or cosine with the original.
        seed: of the resampling behind the bound on a rank correlation.
    """
    if samples.scores is not None:
        return Correlation(np.asarray(samples.scores[::2], np.float64), seed)
    if task == "embedding":
        return Cosine()
    return _LABELLED.get(task, Agreement)() if samples.targets is not None else Agreement()


class Agreement:
    """Share of equal answers: the largest output at each place."""

    def __init__(self) -> None:
        self._same = self._total = 0

    def add(self, before: Floats, after: Floats, targets: NDArray[np.generic] | None) -> None:
        """Count where both sides agree."""
        same = before.argmax(-1) == after.argmax(-1)
        self._same += int(same.sum())
        self._total += same.size

    def quality(self) -> Quality:
        """Return ``agreement``; the original agrees with itself."""
        return Quality(
            baseline=_counted("agreement", self._total, self._total),
            optimized=_counted("agreement", self._same, self._total),
            drop=None,
        )


class Accuracy:
    """Share of right classes."""

    def __init__(self) -> None:
        self._lost = self._won = self._right = self._total = 0

    def add(self, before: Floats, after: Floats, targets: NDArray[np.generic] | None) -> None:
        """Count right answers of both sides."""
        right, still = before.argmax(-1) == targets, after.argmax(-1) == targets
        self._lost += int((right & ~still).sum())
        self._won += int((~right & still).sum())
        self._right += int(right.sum())
        self._total += right.size

    def quality(self) -> Quality:
        """Return ``accuracy``."""
        still = self._right - self._lost + self._won
        return Quality(
            baseline=_counted("accuracy", self._right, self._total),
            optimized=_counted("accuracy", still, self._total),
            drop=Paired(self._lost, self._won, self._total),
        )


class SquaredError:
    """Mean squared error over samples and outputs."""

    def __init__(self) -> None:
        self._sides: tuple[list[Doubles], list[Doubles]] = ([], [])

    def add(self, before: Floats, after: Floats, targets: NDArray[np.generic] | None) -> None:
        """Take the mean squared error of each sample."""
        wanted = np.asarray(targets, np.float64).reshape(before.shape)
        for errors, answers in zip(self._sides, (before, after), strict=True):
            squares = np.square(answers.astype(np.float64) - wanted)
            errors.append(squares.reshape(len(squares), -1).mean(1))

    def quality(self) -> Quality:
        """Return ``mse``."""
        before, after = (np.concatenate(errors) for errors in self._sides)
        return Quality(
            baseline=Metric(name="mse", value=float(before.mean()), better="lower"),
            optimized=Metric(name="mse", value=float(after.mean()), better="lower"),
            drop=MeanDrop(after - before),
        )


class Tokens:
    """Perplexity: exp of the mean cross entropy over all tokens but the ignored ones."""

    def __init__(self) -> None:
        self._sides: tuple[list[Doubles], list[Doubles]] = ([], [])
        self._counts: list[Doubles] = []

    def add(self, before: Floats, after: Floats, targets: NDArray[np.generic] | None) -> None:
        """Take each sample's summed cross entropy; logits at t are held against token t + 1."""
        tokens = np.asarray(targets, np.int64)[:, 1:]
        self._counts.append((tokens != IGNORED).sum(1).astype(np.float64))
        for sums, logits in zip(self._sides, (before, after), strict=True):
            sums.append(_cross_entropy(logits[:, :-1], tokens))

    def quality(self) -> Quality:
        """Return ``perplexity``."""
        counts = np.concatenate(self._counts)
        before, after = (np.concatenate(sums) for sums in self._sides)
        total = max(counts.sum(), 1.0)
        return Quality(
            baseline=_perplexity(before.sum() / total),
            optimized=_perplexity(after.sum() / total),
            drop=PerplexityDrop(after - before, counts),
        )


class Cosine:
    """Mean cosine with reference embeddings, or with the original's."""

    def __init__(self) -> None:
        self._sides: tuple[list[Doubles], list[Doubles]] = ([], [])
        self._referred = False

    def add(self, before: Floats, after: Floats, targets: NDArray[np.generic] | None) -> None:
        """Take each sample's cosine."""
        self._referred = targets is not None
        wanted = before if targets is None else np.asarray(targets)
        for cosines, answers in zip(self._sides, (before, after), strict=True):
            cosines.append(_cosines(answers, wanted))

    def quality(self) -> Quality:
        """Return ``cosine``."""
        before, after = (np.concatenate(cosines) for cosines in self._sides)
        return Quality(
            baseline=Metric(name="cosine", value=float(before.mean())),
            optimized=Metric(name="cosine", value=float(after.mean())),
            drop=MeanDrop(before - after) if self._referred else None,
        )


class Correlation:
    """Spearman's rank correlation of pairs' cosines with their scores."""

    def __init__(self, scores: Doubles, seed: int) -> None:
        self._scores, self._seed = scores, seed
        self._sides: tuple[list[Doubles], list[Doubles]] = ([], [])
        self._left: tuple[Floats, Floats] | None = None  # the first rows of pairs cut in two

    def add(self, before: Floats, after: Floats, targets: NDArray[np.generic] | None) -> None:
        """Take the cosines of pairs of embeddings: rows 2i and 2i + 1 of all that is added."""
        if self._left is not None:
            before, after = (
                np.concatenate(rows) for rows in zip(self._left, (before, after), strict=True)
            )
        whole = len(before) // 2 * 2
        for cosines, rows in zip(self._sides, (before, after), strict=True):
            cosines.append(_cosines(rows[:whole:2], rows[1:whole:2]))
        self._left = (before[whole:], after[whole:]) if whole < len(before) else None

    def quality(self) -> Quality:
        """Return ``spearman``."""
        before, after = (np.concatenate(cosines) for cosines in self._sides)
        return Quality(
            baseline=Metric(name="spearman", value=spearman(before, self._scores)),
            optimized=Metric(name="spearman", value=spearman(after, self._scores)),
            drop=RankDrop(before, after, self._scores, self._seed),
        )


_LABELLED: Mapping[Task, Callable[[], Judge]] = {
    "classification": Accuracy,
    "regression": SquaredError,
    "language_modeling": Tokens,
}


def _cross_entropy(logits: Floats, tokens: NDArray[np.int64]) -> Doubles:
    """Return the summed cross entropy of each sample: logits (N, S, V), tokens (N, S)."""
    high = logits.max(-1, keepdims=True)
    shifted = logits - high
    norms = np.log(np.exp(shifted, dtype=np.float64).sum(-1))
    counted = tokens != IGNORED
    chosen = np.take_along_axis(shifted, np.where(counted, tokens, 0)[..., None], -1)[..., 0]
    sums: Doubles = np.where(counted, norms - chosen, 0.0).sum(1)
    return sums


def _cosines(one: NDArray[np.generic], two: NDArray[np.generic]) -> Doubles:
    """Return the cosine of each row; 0 where one of the rows is zero."""
    a, b = (np.asarray(rows, np.float64).reshape(len(rows), -1) for rows in (one, two))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: Doubles = np.divide((a * b).sum(1), norms, out=np.zeros(len(a)), where=norms > 0)
    return cosines


def _perplexity(entropy: float) -> Metric:
    # exp overflows beyond 709; a model that bad is told apart from nothing.
    return Metric(name="perplexity", value=float(np.exp(min(entropy, 700.0))), better="lower")


def _counted(name: str, correct: int, total: int) -> Metric:
    return Metric(name=name, value=correct / total, correct=correct, total=total)
