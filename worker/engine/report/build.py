"""From what was found to the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planish.contract.report import (
    Epoch,
    Fidelity,
    Layer,
    Measures,
    Metric,
    PassReport,
    Ratios,
    Reload,
    Report,
    Tuning,
)
from planish.contract.spec import Target
from worker.engine.measure.latency import SideTimes
from worker.engine.measure.size import (
    ParameterCount,
    compressed_bytes,
    file_bytes,
    is_worth_compressing,
)
from worker.engine.report.certificate import certify
from worker.engine.report.environment import describe_environment
from worker.engine.report.quality import Quality, Samples
from worker.engine.report.remarks import remarks


@dataclass(frozen=True)
class Side:
    """One side of the comparison, as measured.

    Attributes:
        size_bytes: of the artifact.
        compressed_bytes: of the artifact under zstd; None where it was not measured.
        parameters: learnt numbers.
        macs: for one sample; None where they are not counted.
        times: latency and memory of its process.
    """

    size_bytes: int
    compressed_bytes: int | None
    parameters: ParameterCount
    macs: int | None
    times: SideTimes


@dataclass(frozen=True)
class Amount:
    """How much there is of a network: learnt numbers, and work for one sample."""

    parameters: ParameterCount
    macs: int | None


@dataclass(frozen=True)
class Findings:
    """Everything that a report is made from.

    Attributes:
        samples: what quality and fidelity were measured on.
        latency_ratio: paired, baseline / optimized.
        kept_float: layers that the runtime computes in floats in a quantized model.
        tuning: the optimized model with other settings of the runtime, if the job asked for it.
    """

    job_id: str | None
    target: Target
    seed: int
    baseline: Side
    optimized: Side
    latency_ratio: float
    quality: Quality
    samples: Samples
    fidelity: Fidelity
    passes: tuple[PassReport, ...]
    training: tuple[Epoch, ...]
    layers: tuple[Layer, ...]
    reload: Reload
    kept_float: Sequence[str]
    tuning: Tuning | None


def measured_sides(
    amounts: tuple[Amount, Amount],
    artifacts: tuple[Path, Path],
    times: tuple[SideTimes, SideTimes],
) -> tuple[Side, Side]:
    """Return the figures of both sides, the baseline's first."""
    before, after = amounts
    compressed: tuple[int | None, ...] = (None, None)
    if is_worth_compressing(artifacts[1], after.parameters):
        compressed = tuple(map(compressed_bytes, artifacts))
    sizes = tuple(map(file_bytes, artifacts))
    return (
        Side(sizes[0], compressed[0], before.parameters, before.macs, times[0]),
        Side(sizes[1], compressed[1], after.parameters, after.macs, times[1]),
    )


def build_report(found: Findings) -> Report:
    """Return the report of a finished job, with every warning that its figures call for."""
    before, after = found.baseline, found.optimized
    report = Report(
        job_id=found.job_id,
        baseline=_measures(before, found.quality.baseline, found.target),
        optimized=_measures(after, found.quality.optimized, found.target),
        ratios=Ratios(
            size=before.size_bytes / after.size_bytes,
            latency=found.latency_ratio,
            macs=_ratio(before.macs, after.macs),
            params=before.parameters.total / max(after.parameters.total, 1),
            compressed=_ratio(before.compressed_bytes, after.compressed_bytes),
        ),
        fidelity=found.fidelity,
        passes=found.passes,
        certificate=certify(found.quality.drop),
        reload=found.reload,
        environment=describe_environment(found.target, found.seed, after.times.precision),
        training=found.training,
        layers=found.layers,
        latency_rounds={"baseline": before.times.rounds, "optimized": after.times.rounds},
        tuning=found.tuning,
    )
    warnings = remarks(report, found.quality.drop, found.samples, found.kept_float)
    return report.model_copy(update={"warnings": warnings})


def _ratio(before: int | None, after: int | None) -> float | None:
    return before / after if before and after else None


def _measures(side: Side, metric: Metric, target: Target) -> Measures:
    return Measures(
        metric=metric,
        size_bytes=side.size_bytes,
        compressed_bytes=side.compressed_bytes,
        params=side.parameters.total,
        nonzero_params=side.parameters.nonzero,
        macs=side.macs,
        latency_ms=side.times.latency,
        peak_memory_bytes=side.times.peak_memory_bytes,
        runtime=target.runtime,
        precision=side.times.precision,
        threads=target.threads,
        batch_size=target.batch_size,
    )
