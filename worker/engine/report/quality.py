"""How good both sides are on the same samples: accuracy, or agreement without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planish.contract.report import Metric
from worker.engine.report.certificate import Paired

# What stood for the client's world: sealed samples with or without labels, or noise in their place.
Samples = Literal["labelled", "unlabelled", "too_few", "no_data"]
Logits = NDArray[np.floating]


@dataclass(frozen=True)
class Quality:
    """The metric of both sides; `counts` is None without labels."""

    baseline: Metric
    optimized: Metric
    counts: Paired | None


def judge(baseline: Logits, optimized: Logits, targets: NDArray[np.int64] | None) -> Quality:
    """Compare the answers of both sides.

    Args:
        baseline: the original's outputs, (samples, …, classes).
        optimized: the optimized model's outputs, the same shape.
        targets: class index of each sample; None without labels.
    """
    before, after = baseline.argmax(-1), optimized.argmax(-1)
    if targets is None:
        same = int((before == after).sum())
        return Quality(
            baseline=_metric("agreement", before.size, before.size),
            optimized=_metric("agreement", same, before.size),
            counts=None,
        )
    right, still = before == targets, after == targets
    return Quality(
        baseline=_metric("accuracy", int(right.sum()), len(targets)),
        optimized=_metric("accuracy", int(still.sum()), len(targets)),
        counts=Paired(int((right & ~still).sum()), int((~right & still).sum()), len(targets)),
    )


def _metric(name: str, correct: int, total: int) -> Metric:
    return Metric(name=name, value=correct / total, correct=correct, total=total)
