"""Which settings of the runtime suit the optimized model best: threads, graph level, batch size.

Nothing here changes what is computed, so the answers stay those that the report judges. All
contenders of a question run side by side in turns, as both sides of the comparison do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

from planish.contract.report import Trial, Tuning
from planish.contract.spec import Target
from worker.engine.measure.latency import Contender, Inputs, SideTimes, compare_latency
from worker.engine.measure.opened import Settings

LARGEST_BATCH = 32
ROUNDS = 12
SECONDS = 30.0
OPTIONS: Mapping[str, tuple[Mapping[str, str], ...]] = {
    "onnxruntime": (
        {},
        {"graph_optimization_level": "ORT_ENABLE_EXTENDED"},
        {"session.intra_op.allow_spinning": "0"},
    ),
    "openvino": ({}, {"ENABLE_CPU_PINNING": "NO"}, {"ENABLE_HYPER_THREADING": "NO"}),
    "torch": ({},),
}
"""What is tried in each runtime, by its own names; the first entry is how it comes."""


def tune(path: Path, target: Target, settings: Settings, inputs: Inputs) -> Tuning:
    """Time a model with other settings.

    First every thread count with every option at the target's batch size, then every batch size
    with what was fastest.

    Args:
        path: the optimized model in the runtime's format.
        target: its batch size is the one that `Tuning.fastest` is about.
        settings: what the comparison ran with; runtime and device stay.
        inputs: of one call with at least `LARGEST_BATCH` samples, and the target's batch size.

    Raises:
        JobFailed: a contender cannot run the model.
    """
    asked = [
        Contender(
            path, Settings(target.runtime, count, settings.device, options), target.batch_size
        )
        for count, options in product(_threads(), OPTIONS[target.runtime])
    ]
    trials = _timed(asked, inputs)
    fastest = min(trials, key=lambda trial: trial.latency_ms)
    best = Settings(target.runtime, fastest.threads, settings.device, fastest.options)
    trials += _timed([Contender(path, best, batch) for batch in _batches(target)], inputs)
    busiest = max(trials, key=lambda trial: trial.samples_per_second)
    return Tuning(trials=tuple(trials), fastest=fastest, busiest=busiest)


def _threads() -> list[int]:
    """Return 1, 2, 4, … up to the processors that this process may use, and all of them."""
    most = len(os.sched_getaffinity(0))
    return sorted({*_doubled(1, most), most})


def _batches(target: Target) -> list[int]:
    return [size for size in _doubled(1, LARGEST_BATCH) if size != target.batch_size]


def _doubled(first: int, last: int) -> Iterator[int]:
    while first <= last:
        yield first
        first *= 2


def _timed(contenders: list[Contender], inputs: Inputs) -> list[Trial]:
    named = {str(index): contender for index, contender in enumerate(contenders)}
    times = compare_latency(named, inputs, rounds=ROUNDS, budget_seconds=SECONDS)
    return [_trial(contender, times[name]) for name, contender in named.items()]


def _trial(contender: Contender, times: SideTimes) -> Trial:
    batch = contender.batch or 1
    return Trial(
        threads=contender.settings.threads,
        batch_size=batch,
        options=dict(contender.settings.options),
        latency_ms=times.latency.p50,
        samples_per_second=batch / times.latency.p50 * 1e3,
    )
