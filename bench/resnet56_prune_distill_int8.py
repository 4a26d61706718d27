"""ResNet-56 on CIFAR-10: prune channels, distill, static int8, against ONNX Runtime float.

    nice .venv/bin/python bench/resnet56_prune_distill_int8.py [--epochs 8] [--seed 0]

Runs the engine's own pipeline on the shared data (PLANISH_TEST_DATA, default ../shared/data),
prints a table and writes it, with the machine it ran on, to bench/results/. Training takes the
threads that OMP_NUM_THREADS says; latency is measured with two.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pydantic import JsonValue

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from planish.contract.job import EventType
from planish.contract.recipe import Distill, Prune, Quantize, Train
from planish.contract.report import Report
from planish.contract.spec import Architecture, DataSpec, ModelSpec, Preprocess, Spec, Target
from worker.engine.pipeline import JobInputs, optimize
from worker.engine.progress import Silent

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "resnet56_prune_distill_int8.json"
THREADS = 2
GOALS = {"accuracy_drop": 0.015, "size_ratio": 4.0, "latency_ratio": 1.8}


class Listener(Silent):
    """Prints stages and epochs."""

    def stage(self, name: str, step: int, steps: int) -> None:
        """Print a stage."""
        print(f"[{step}/{steps}] {name}", file=sys.stderr, flush=True)

    def event(self, kind: EventType, data: dict[str, JsonValue]) -> None:
        """Print an epoch."""
        if kind is EventType.EPOCH:
            print(f"  {json.dumps(data)}", file=sys.stderr, flush=True)


def spec(epochs: int, seed: int) -> Spec:
    """Return the job."""
    train = Train(epochs=epochs, augment="crop_flip")
    return Spec(
        seed=seed,
        model=ModelSpec(
            architecture=Architecture(library="planish", name="cifar_resnet", config={"depth": 56})
        ),
        data=DataSpec(
            preprocess=Preprocess(
                scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
            )
        ),
        recipe=(Prune(sparsity=0.4, scope="global"), Distill(train=train), Quantize(mode="static")),
        target=Target(batch_size=1, threads=THREADS),
    )


def write_data(folder: Path, shared: Path) -> tuple[Path, Path]:
    """Write the two data files as a user would send them: sorted by class, NHWC bytes."""
    stored = np.load(shared / "cifar10_public.npz")
    paths = folder / "train.npz", folder / "test.npz"
    for path, part in zip(paths, ("train", "test"), strict=True):
        np.savez(path, inputs=stored[f"x_{part}"], targets=stored[f"y_{part}"])
    return paths


def result(report: Report, seconds: float) -> dict[str, JsonValue]:
    """Return the figures that the goals are about."""
    before, after = report.baseline, report.optimized
    drop = (before.metric.value or 0) - (after.metric.value or 0)
    values: dict[str, JsonValue] = {
        "accuracy": [before.metric.value, after.metric.value],
        "accuracy_drop": round(drop, 4),
        "size_bytes": [before.size_bytes, after.size_bytes],
        "size_ratio": round(report.ratios.size, 2),
        "latency_ms_p50": [m.latency_ms.p50 if m.latency_ms else None for m in (before, after)],
        "latency_ratio": report.ratios.latency and round(report.ratios.latency, 2),
        "macs": [before.macs, after.macs],
        "params": [before.params, after.params],
        "job_seconds": round(seconds),
    }
    met = (
        drop <= GOALS["accuracy_drop"],
        report.ratios.size >= GOALS["size_ratio"],
        (report.ratios.latency or 0) >= GOALS["latency_ratio"],
    )
    return {**values, "goals": dict(GOALS), "met": all(met)}


def show(values: dict[str, JsonValue]) -> None:
    """Print the table."""
    for name, value in values.items():
        print(f"{name:16} {value}")


def main() -> int:
    """Run the job; return 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    shared = Path(os.environ.get("PLANISH_TEST_DATA") or ROOT.parent / "shared" / "data")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        data, test = write_data(Path(scratch), shared)
        out = Path(scratch) / "out"
        out.mkdir()
        inputs = JobInputs(
            job_id=None,
            spec=spec(chosen.epochs, chosen.seed),
            model=shared / "resnet56-4bfd9763.th",
            data=data,
            test_data=test,
        )
        report = optimize(inputs, out, Listener())
    values = result(report, time.monotonic() - began)
    show(values)
    record = {
        **values,
        "epochs": [e.model_dump() for e in report.training],
        "environment": report.environment,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if values["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
