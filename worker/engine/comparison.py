"""Both sides in the target runtime, on the same samples: quality, fidelity and latency."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planish.contract.report import Fidelity, Tuning
from planish.contract.spec import Spec, Target
from worker.engine.load.data import Dataset, Splits, synthetic
from worker.engine.measure.fidelity import FidelityMeter
from worker.engine.measure.latency import Contender, SideTimes, compare_latency, paired_ratio
from worker.engine.measure.opened import Settings
from worker.engine.measure.outputs import stream_outputs
from worker.engine.measure.tune import LARGEST_BATCH, tune
from worker.engine.model import AnyModel
from worker.engine.progress import Progress
from worker.engine.report.quality import Quality, Samples, make_judge

SYNTHETIC_SAMPLES = 256
_TUNING_FROM = 0.9
_LATENCY_FROM = 0.4  # share of the stage that the outputs over the samples take


class Compared(Protocol):
    """A job whose sides are compared; see `worker.engine.prepare.Prepared`."""

    @property
    def spec(self) -> Spec:
        """What was asked for."""

    @property
    def splits(self) -> Splits | None:
        """The data's parts."""

    @property
    def original(self) -> AnyModel:
        """The baseline."""


@dataclass(frozen=True)
class Comparison:
    """What running both sides showed.

    Attributes:
        samples: what the outputs were compared on.
        latency_ratio: paired, baseline / optimized.
        tuning: the optimized side with other settings; None where the target does not ask for it.
    """

    quality: Quality
    fidelity: Fidelity
    samples: Samples
    baseline: SideTimes
    optimized: SideTimes
    latency_ratio: float
    tuning: Tuning | None


def compare_sides(
    prepared: Compared, baseline: Path, optimized: Path, progress: Progress
) -> Comparison:
    """Run the files of both sides over the sealed samples, then time them in turns.

    Both sides run in the target's runtime. Without data, or with too little to seal any, the
    samples are noise and have no labels.

    Args:
        prepared: the job.
        baseline: the original, in a format that the target's runtime opens.
        optimized: the result, in the same format.
        progress: told how far it is.
    """
    settings = runtime_settings(prepared.spec.target)
    sealed = prepared.splits.sealed if prepared.splits else None
    samples = sealed or synthetic(prepared.original, SYNTHETIC_SAMPLES, prepared.spec.seed)
    quality, near = _answers(prepared, samples, baseline, optimized, progress)
    times = compare_latency(
        {
            "baseline": Contender(baseline, settings),
            "optimized": Contender(optimized, settings),
        },
        one_call(prepared, samples, prepared.spec.target.batch_size),
        on_progress=lambda done: progress.update(
            _LATENCY_FROM + (_TUNING_FROM - _LATENCY_FROM) * done, "timing both in turns"
        ),
    )
    tuning = None
    if prepared.spec.target.tune:
        progress.update(_TUNING_FROM, "trying other settings of the runtime")
        most = max(LARGEST_BATCH, prepared.spec.target.batch_size)
        tuning = tune(optimized, prepared.spec.target, settings, one_call(prepared, samples, most))
    return Comparison(
        quality=quality,
        fidelity=near,
        samples=_kind(prepared, sealed),
        baseline=times["baseline"],
        optimized=times["optimized"],
        latency_ratio=paired_ratio(times["baseline"], times["optimized"]),
        tuning=tuning,
    )


def runtime_settings(target: Target) -> Settings:
    """Return how the target's runtime is opened for both sides."""
    return Settings(target.runtime, target.threads, target.device)


def _answers(
    prepared: Compared, samples: Dataset, baseline: Path, optimized: Path, progress: Progress
) -> tuple[Quality, Fidelity]:
    """Let both sides answer batch by batch: a language model's outputs are too large to hold."""
    spec = prepared.spec
    judge, meter = make_judge(spec.data.task, samples, spec.seed), FidelityMeter()
    before, after = (
        stream_outputs(path, samples, runtime_settings(spec.target))
        for path in (baseline, optimized)
    )
    done = 0
    for one, two in zip(before, after, strict=True):
        progress.update(
            _LATENCY_FROM * done / len(samples), f"answering {len(samples)} sealed samples"
        )
        rows = slice(done, done + len(one))
        judge.add(one, two, None if samples.targets is None else samples.targets[rows])
        meter.add(one, two)
        done += len(one)
    return judge.quality(), meter.result()


def _kind(prepared: Compared, sealed: Dataset | None) -> Samples:
    if prepared.splits is None:
        return "no_data"
    if not sealed:
        return "too_few"
    unlabelled = sealed.targets is None and sealed.scores is None
    return "unlabelled" if unlabelled else "labelled"


def one_call(prepared: Compared, samples: Dataset, batch: int) -> dict[str, NDArray[np.generic]]:
    """Return the inputs of one call with `batch` samples, repeated where there are too few."""
    inputs, _ = samples.prepare(np.arange(batch) % len(samples))
    names = (spec.name for spec in prepared.original.inputs)
    return {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
