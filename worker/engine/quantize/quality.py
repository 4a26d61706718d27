"""How well integers do: the output against the float model's, on samples kept for judging."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from worker.engine.load.dataset import Dataset
from worker.engine.model import Model, first_output
from worker.engine.quantize.pairs import Pair, pairs_of, rounding

_BATCH = 64
NO_NOISE_DB = 120.0


@dataclass(frozen=True)
class Quality:
    """What rounding leaves of the first output.

    Attributes:
        sqnr_db: signal over quantization noise; 120 where there is no noise.
        agreement: share of samples with the same largest output; None where outputs are no classes.
    """

    sqnr_db: float
    agreement: float | None


class Judge:
    """Holds what the float model answers to some samples, and compares."""

    def __init__(self, model: Model, samples: Dataset, *, classes: bool) -> None:
        """Run the float model once.

        Args:
            model: the float model.
            samples: none of those that ranges or weights were found on.
            classes: whether the largest output means something.
        """
        self.samples, self.classes = samples, classes
        self.wanted = self._outputs(model.module)

    def few(self, count: int) -> Judge:
        """Return a judge of the first samples only, for what is asked many times."""
        judge = object.__new__(Judge)
        judge.samples, judge.classes = self.samples.head(count), self.classes
        judge.wanted = self.wanted[: len(judge.samples)]
        return judge

    def judge(self, graph: fx.GraphModule) -> Quality:
        """Return the quality of a prepared graph with all its pairs rounding."""
        return self.judge_only(graph, list(pairs_of(graph).values()))

    def judge_only(self, graph: fx.GraphModule, pairs: list[Pair]) -> Quality:
        """Return the quality of a prepared graph with only these pairs rounding."""
        with rounding(pairs):
            return self._compare(self._outputs(graph))

    def _outputs(self, module: nn.Module) -> Tensor:
        with torch.no_grad():
            parts = [first_output(module(*inputs)) for inputs, _ in self.samples.batches(_BATCH)]
        return torch.cat(parts)

    def _compare(self, got: Tensor) -> Quality:
        return quality_of(got, self.wanted, classes=self.classes)


def quality_of(got: Tensor, wanted: Tensor, *, classes: bool) -> Quality:
    """Compare outputs with those of the float model; `classes`: the largest means something."""
    noise = float((got - wanted).double().square().sum())
    signal = float(wanted.double().square().sum())
    sqnr = 10 * math.log10(signal / noise) if noise and signal else NO_NOISE_DB
    agreement = float((got.argmax(-1) == wanted.argmax(-1)).float().mean()) if classes else None
    return Quality(min(sqnr, NO_NOISE_DB), agreement)
