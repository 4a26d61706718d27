"""``python -m worker.engine.remeasure``: a model file's metric on labelled data.

Standard input holds a `Question`; the one line that is printed, an `Answer`. Used by
`planish verify --test-data`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planish.contract.errors import PlanishError
from planish.contract.spec import Target
from planish.verify.remeasure import Answer, Question
from worker.engine.comparison import runtime_settings
from worker.engine.load.data import load_splits
from worker.engine.measure.opened import Network, open_model
from worker.engine.measure.outputs import stream_outputs
from worker.engine.model import InputSpec, Quantization, sample_of
from worker.engine.report.quality import make_judge


@dataclass(frozen=True)
class Opened:
    """A model file in its runtime, as the readers of data see a model."""

    network: Network
    quantization: Quantization | None = None
    precision: torch.dtype = torch.float32

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What it takes."""
        return tuple(
            InputSpec(item.name, ("batch", *item.shape[1:]), getattr(torch, item.dtype))
            for item in self.network.inputs
        )

    @property
    def batch(self) -> int | None:
        """The only batch that it takes."""
        size = self.network.inputs[0].shape[0]
        return size if isinstance(size, int) else None

    def example(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        """Return seeded noise."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(sample_of(spec, batch, generator) for spec in self.inputs)

    def answer(self) -> Tensor:
        """Return the first output for the example."""
        return torch.from_numpy(self.outputs(self.example(self.batch or 2))[0])

    def outputs(self, inputs: Sequence[Tensor]) -> list[NDArray[np.generic]]:
        """Return all outputs for one call."""
        return self.network.run([value.numpy() for value in inputs])

    def tables(self) -> Mapping[str, tuple[str, int]]:
        """Return nothing: a file does not say how many tokens it knows."""
        return {}


def remeasure(question: Question) -> Answer:
    """Measure the metric of the job's task.

    Raises:
        PlanishError: the data does not fit, or cannot be read.
    """
    spec = question.spec
    settings = runtime_settings(spec.target.model_copy(update=_here(spec.target)))
    model = Opened(open_model(question.model, settings))
    splits = load_splits(spec, model, question.data, question.data)
    samples = splits.sealed if splits is not None else None
    if samples is None or (samples.targets is None and samples.scores is None):
        return Answer(error="the data holds no targets; there is nothing to measure against")
    judge = make_judge(spec.data.task, samples, spec.seed)
    done = 0
    for outputs in stream_outputs(question.model, samples, settings):
        rows = slice(done, done + len(outputs))
        judge.add(outputs, outputs, None if samples.targets is None else samples.targets[rows])
        done += len(outputs)
    return Answer(metric=judge.quality().optimized, samples=done)


def _here(target: Target) -> dict[str, str]:
    """A metric can be measured without the GPU that the job had."""
    return {} if torch.cuda.is_available() else {"device": "cpu"}


def main() -> None:
    """Answer the question on standard input."""
    question = Question.model_validate_json(sys.stdin.read())
    try:
        answer = remeasure(question)
    except PlanishError as error:
        answer = Answer(error=error.detail)
    sys.stdout.write(answer.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
