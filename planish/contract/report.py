"""The evidence: what was measured before and after, and what each pass did."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Evidence(BaseModel):
    """Base of the report's parts: frozen; readers ignore keys of newer versions."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class Metric(Evidence):
    """How good the answers are, by the task.

    accuracy and agreement: 0..1, `correct` of `total` samples. mse, perplexity: above 0, smaller is
    better. spearman, cosine: -1..1. `correct` and `total` are null where nothing is counted.
    """

    name: str
    value: float | None
    correct: int | None = None
    total: int | None = None
    better: Literal["higher", "lower"] = "higher"


class Latency(Evidence):
    """Milliseconds per call."""

    p50: float
    p90: float
    p99: float
    samples: int


class Measures(Evidence):
    """One side of the comparison, measured in the target runtime.

    `precision` is what the runtime computed in where the file does not say integers.
    `compressed_bytes` is the file's size under zstd at level 19: zeros of single weights show there
    alone. Measured for files of up to 2 MB, of up to 200 MB where more than a tenth of the weights
    is zero; else null.
    """

    metric: Metric
    size_bytes: int
    params: int
    nonzero_params: int
    compressed_bytes: int | None = None
    macs: int | None
    latency_ms: Latency | None
    peak_memory_bytes: int | None
    runtime: str
    precision: str = "float32"
    threads: int
    batch_size: int


class Ratios(Evidence):
    """baseline / optimized, bigger is better; `compressed` of both files under zstd."""

    size: float
    latency: float | None
    macs: float | None
    params: float
    compressed: float | None = None

    @property
    def zeros_tell(self) -> bool:
        """Whether compression finds notably more in the optimized file than its size says."""
        return self.compressed is not None and self.compressed > 1.1 * self.size


class Fidelity(Evidence):
    """Outputs of the optimized model against the baseline's on the same samples.

    agreement: share of equal argmax; cosine: of the flattened outputs; sqnr_db: signal to noise.
    """

    agreement: float | None
    cosine: float | None
    sqnr_db: float | None
    max_abs: float | None


class LayerSkipped(Evidence):
    """A layer that a pass left alone, and why."""

    name: str
    why: str


class LayerChanged(Evidence):
    """A layer that a pass changed, in words: ``64 → 48 channels``."""

    name: str
    what: str


class PassReport(Evidence):
    """What one pass did."""

    op: str
    changed: bool
    layers_changed: int
    layers_skipped: tuple[LayerSkipped, ...] = ()
    layers: tuple[LayerChanged, ...] = ()
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    seconds: float


class Certificate(Evidence):
    """A paired one-sided bound on what the metric lost, on the sealed samples.

    A drop is a loss whichever side of the metric is better: a fall of the accuracy, a rise of the
    perplexity. `unit` says what its numbers are: `share` of the samples (0.01 = one point),
    `relative` to the baseline's value, or `value` in the metric's own unit. `max_drop` is null when
    the job set no budget; then the outcome is at most `point_estimate_only`.
    """

    max_drop: float | None
    observed_drop: float | None
    upper_bound: float | None
    confidence: float
    n: int
    method: str
    outcome: Literal["certified", "point_estimate_only", "not_met", "not_enough_data"]
    unit: Literal["share", "relative", "value"] = "share"


class Reload(Evidence):
    """The artifacts opened again by a fresh process; `formats` says which version each file is."""

    ok: bool
    process: Literal["fresh"] = "fresh"
    max_abs_error: float
    formats: dict[str, str] = Field(default_factory=dict)


class Trial(Evidence):
    """The optimized model with other settings of the runtime.

    `options` are by the runtime's own names; `latency_ms` is the median of a call with
    `batch_size` samples, `samples_per_second` what follows from it.
    """

    threads: int
    batch_size: int
    options: dict[str, str] = Field(default_factory=dict)
    latency_ms: float
    samples_per_second: float


class Tuning(Evidence):
    """What `target.tune` tried.

    `fastest` answers a call of the target's batch size first; `busiest` answers most samples.
    """

    trials: tuple[Trial, ...]
    fastest: Trial
    busiest: Trial


class Epoch(Evidence):
    """One epoch of a training pass."""

    op: str
    step: int
    epoch: int
    loss: float
    accuracy: float | None = None
    lr: float | None = None


class Layer(Evidence):
    """One weighted layer, before and after, for the per-layer table."""

    name: str
    kind: str
    params_before: int
    params_after: int | None
    shape_before: str
    shape_after: str | None
    dtype_after: str | None
    weight_scale: float | None = None
    weight_zero_point: int | None = None


class Report(Evidence):
    """The whole evidence of a job."""

    job_id: str | None = None
    baseline: Measures
    optimized: Measures
    ratios: Ratios
    fidelity: Fidelity
    passes: tuple[PassReport, ...]
    certificate: Certificate
    candidates: tuple[dict[str, JsonValue], ...] = ()
    reload: Reload
    environment: dict[str, JsonValue]
    warnings: tuple[str, ...] = ()
    training: tuple[Epoch, ...] = ()
    layers: tuple[Layer, ...] = ()
    latency_rounds: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    tuning: Tuning | None = None


class PassPlan(Evidence):
    """What one pass would do to this model."""

    op: str
    layers_changed: int
    layers: tuple[LayerChanged, ...] = ()
    layers_skipped: tuple[LayerSkipped, ...] = ()
    facts: dict[str, JsonValue] = Field(default_factory=dict)


class PlanSize(Evidence):
    """Estimates; `size_bytes` counts weights and buffers."""

    params: int
    size_bytes: int
    macs: int | None


class Plan(Evidence):
    """The dry run of a recipe."""

    inputs: tuple[dict[str, JsonValue], ...]
    before: PlanSize
    after: PlanSize
    passes: tuple[PassPlan, ...]
    warnings: tuple[str, ...] = ()
