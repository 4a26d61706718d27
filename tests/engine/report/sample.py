"""A report made by hand, with every part filled, for tests of the page."""

from __future__ import annotations

import math
import random

from pydantic import JsonValue

from planish.contract.report import (
    Certificate,
    Epoch,
    Fidelity,
    Latency,
    Layer,
    LayerChanged,
    LayerSkipped,
    Measures,
    Metric,
    PassReport,
    Ratios,
    Reload,
    Report,
)
from worker.engine.report.certificate import Paired, certify


def sample_report() -> Report:
    """Return the evidence of a pruned, distilled and quantized ResNet."""
    baseline, optimized = _measures(1836, 1_086_000, 2.0), _measures(1829, 298_400, 0.94)
    return Report(
        job_id="job_01JD0000000000000000000000",
        baseline=baseline,
        optimized=optimized,
        ratios=Ratios(size=3.639, latency=2.128, macs=1.62, params=1.49),
        fidelity=Fidelity(agreement=0.967, cosine=0.9921, sqnr_db=17.3, max_abs=2.41),
        passes=_passes(),
        certificate=certify(Paired(38, 31, 2000)),
        reload=Reload(ok=True, max_abs_error=0.0),
        environment=_environment(),
        warnings=("layer linear stayed float in the runtime's optimized graph",),
        training=_training(),
        layers=_layers(),
        latency_rounds=_rounds(),
    )


def without_labels() -> Report:
    """Return a report of a job that came without data."""
    nothing = Certificate(
        max_drop=None,
        observed_drop=None,
        upper_bound=None,
        confidence=0.95,
        n=0,
        method="none",
        outcome="not_enough_data",
    )
    report = sample_report()
    agreement = {
        "metric": Metric(name="agreement", value=0.98, correct=98, total=100),
        "latency_ms": None,
        "peak_memory_bytes": None,
        "macs": None,
    }
    same = agreement | {"metric": Metric(name="agreement", value=1.0, correct=100, total=100)}
    return report.model_copy(
        update={
            "job_id": None,
            "baseline": report.baseline.model_copy(update=same),
            "optimized": report.optimized.model_copy(update=agreement),
            "ratios": Ratios(size=3.6, latency=None, macs=None, params=1.0),
            "certificate": nothing,
            "training": (),
            "latency_rounds": {},
        }
    )


def _measures(correct: int, size: int, latency: float) -> Measures:
    small = latency < 1
    return Measures(
        metric=Metric(name="accuracy", value=correct / 2000, correct=correct, total=2000),
        size_bytes=size,
        params=181_000 if small else 269_722,
        nonzero_params=180_400 if small else 269_700,
        macs=25_300_000 if small else 41_000_000,
        latency_ms=Latency(p50=latency, p90=latency * 1.08, p99=latency * 1.31, samples=1200),
        peak_memory_bytes=84_000_000 if small else 91_000_000,
        runtime="onnxruntime",
        threads=2,
        batch_size=1,
    )


def _passes() -> tuple[PassReport, ...]:
    names = [f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in range(3)]
    return (
        PassReport(
            op="prune",
            changed=True,
            layers_changed=6,
            layers=tuple(LayerChanged(name=n, what="64 → 48 channels") for n in names[3:]),
            layers_skipped=(
                LayerSkipped(name="conv1", why="feeds a residual sum that is kept"),
                LayerSkipped(name="linear", why="output layer"),
                *(
                    LayerSkipped(name=n, why="16 channels is already the kernel's multiple")
                    for n in names[:3]
                ),
            ),
            facts={"sparsity": 0.4, "round_to": 16, "params_removed": 88_722},
            seconds=0.81,
        ),
        PassReport(
            op="distill",
            changed=True,
            layers_changed=21,
            facts={"epochs": 8, "best_epoch": 7, "temperature": 4.0, "alpha": 0.9},
            seconds=131.2,
        ),
        PassReport(
            op="quantize",
            changed=True,
            layers_changed=22,
            facts={"mode": "static", "dtype": "int8", "samples": 512, "calibration": "minmax"},
            seconds=9.4,
        ),
    )


def _training() -> tuple[Epoch, ...]:
    return tuple(
        Epoch(
            op="distill" if e <= 8 else "retrain",
            step=2 if e <= 8 else 3,
            epoch=e if e <= 8 else e - 8,
            loss=1.9 * math.exp(-e / 3) + 0.2,
            accuracy=0.92 - 0.3 * math.exp(-e / 2),
            lr=0.003,
        )
        for e in range(1, 13)
    )


def _layers() -> tuple[Layer, ...]:
    layers = [
        Layer(
            name="conv1",
            kind="Conv2d",
            params_before=432,
            params_after=432,
            shape_before="16×3×3×3",
            shape_after="16×3×3×3",
            dtype_after="int8",
            weight_scale=0.0123,
        )
    ]
    for stage, width in ((1, 16), (2, 32), (3, 64)):
        for block in range(3):
            after = width if stage == 1 else width * 3 // 4
            layers.append(
                Layer(
                    name=f"layer{stage}.{block}.conv1",
                    kind="Conv2d",
                    params_before=width * width * 9,
                    params_after=after * width * 9,
                    shape_before=f"{width}×{width}×3×3",
                    shape_after=f"{after}×{width}×3×3",
                    dtype_after="int8",
                    weight_scale=0.0041,
                )
            )
    return (
        *layers,
        Layer(
            name="linear",
            kind="Linear",
            params_before=650,
            params_after=650,
            shape_before="10×64",
            shape_after="10×64",
            dtype_after="float32",
        ),
    )


def _rounds() -> dict[str, tuple[float, ...]]:
    rng = random.Random(0)
    return {
        "baseline": tuple(2.0 * rng.lognormvariate(0, 0.03) for _ in range(40)),
        "optimized": tuple(0.94 * rng.lognormvariate(0, 0.04) for _ in range(40)),
    }


def _environment() -> dict[str, JsonValue]:
    return {
        "versions": {"planish": "0.1.0", "torch": "2.13.0+cpu", "onnxruntime": "1.32.0"},
        "python": "3.11.9",
        "platform": "Linux x86_64",
        "cpu": "Intel(R) Xeon(R) Platinum 8480C",
        "isa": ["avx2", "avx512_vnni", "amx_int8"],
        "cpus_available": 2,
        "threads": 2,
        "batch_size": 1,
        "runtime": "onnxruntime",
        "gpus": [],
        "seed": 0,
    }
