"""ResNet-56 on CIFAR-10 with 2.1 times fewer multiply-accumulates: channels pruned, then distilled.

    OMP_NUM_THREADS=1 .venv/bin/python bench/resnet56_channels.py --seed 0

Runs the engine's own pipeline on the shared data (PLANISH_TEST_DATA, default ../shared/data: 6,000
training images, 2,000 test images), prints the figures of this run and writes them, beside those of
other seeds, to bench/results/. Settings were chosen on the validation part alone (a tenth of the
training images).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from pydantic import JsonValue

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.resnet56_prune_distill_int8 import Listener, write_data
from planish.contract.recipe import Distill, Prune, Train
from planish.contract.report import Report
from planish.contract.spec import Architecture, DataSpec, ModelSpec, Preprocess, Spec, Target
from worker.engine.pipeline import JobInputs, optimize

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "resnet56_channels.json"
MACS_RATIO = 2.1
LARGEST_DROP = 0.015
FEATURE_WEIGHT = 8.0  # of hint; kd has no features


def spec(chosen: argparse.Namespace) -> Spec:
    """Return the job."""
    train = Train(
        epochs=chosen.epochs, batch_size=64, lr=chosen.lr, augment="crop_flip", amp="bf16"
    )
    return Spec(
        seed=chosen.seed,
        model=ModelSpec(
            architecture=Architecture(library="planish", name="cifar_resnet", config={"depth": 56})
        ),
        data=DataSpec(
            preprocess=Preprocess(
                scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
            )
        ),
        recipe=(
            Prune(
                method=chosen.method,
                scope="global",
                round_to=chosen.round_to,
                target_macs=1 / MACS_RATIO,
            ),
            Distill(
                method=chosen.distill,
                temperature=2.0,
                alpha=1.0,
                feature_weight=FEATURE_WEIGHT,
                train=train,
            ),
        ),
        target=Target(batch_size=1, threads=2),
    )


def figures(report: Report, seconds: float) -> dict[str, JsonValue]:
    """Return what one run found."""
    before, after = report.baseline, report.optimized
    drop = (before.metric.value or 0) - (after.metric.value or 0)
    macs = (before.macs or 0) / (after.macs or 1)
    return {
        "accuracy": [before.metric.value, after.metric.value],
        "drop": round(drop, 5),
        "macs": [before.macs, after.macs],
        "macs_ratio": round(macs, 3),
        "params": [before.params, after.params],
        "size_bytes": [before.size_bytes, after.size_bytes],
        "latency_ratio": report.ratios.latency and round(report.ratios.latency, 2),
        "validation_accuracy": report.passes[-1].facts.get("validation_accuracy"),
        "best_epoch": report.passes[-1].facts.get("best_epoch"),
        "job_seconds": round(seconds),
        "met": drop <= LARGEST_DROP and macs >= MACS_RATIO * 0.98,
    }


def record(found: dict[str, JsonValue], chosen: argparse.Namespace, report: Report) -> None:
    """Put the run beside those of other seeds, and write what they have in common."""
    stored = json.loads(RESULT.read_text()) if RESULT.exists() else {"seeds": {}}
    stored["command"] = command(chosen)
    stored["settings"] = [params.model_dump(mode="json") for params in spec(chosen).recipe or ()]
    stored["goal"] = {"drop": LARGEST_DROP, "macs_ratio": MACS_RATIO}
    stored["seeds"][str(chosen.seed)] = found
    drops = [run["drop"] for run in stored["seeds"].values()]
    stored["drop_mean"] = round(statistics.mean(drops), 5)
    stored["drop_spread"] = round(statistics.stdev(drops), 5) if len(drops) > 1 else None
    stored["met"] = all(run["met"] for run in stored["seeds"].values())
    stored["environment"] = report.environment
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(stored, indent=1) + "\n")


def command(chosen: argparse.Namespace) -> str:
    """Return the command that runs these settings, the seed left open."""
    return (
        f"OMP_NUM_THREADS=1 python bench/resnet56_channels.py --method {chosen.method} "
        f"--round-to {chosen.round_to} --distill {chosen.distill} "
        f"--epochs {chosen.epochs} --lr {chosen.lr:g} --seed N"
    )


def main() -> int:
    """Run the job; return 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="magnitude")
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--distill", choices=("kd", "hint"), default="hint")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.005)
    chosen = parser.parse_args()
    shared = Path(os.environ.get("PLANISH_TEST_DATA") or ROOT.parent / "shared" / "data")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        data, test = write_data(Path(scratch), shared)
        out = Path(scratch) / "out"
        out.mkdir()
        inputs = JobInputs(
            job_id=None,
            spec=spec(chosen),
            model=shared / "resnet56-4bfd9763.th",
            data=data,
            test_data=test,
        )
        report = optimize(inputs, out, Listener())
    found = figures(report, time.monotonic() - began)
    for name, value in found.items():
        print(f"{name:20} {value}")
    record(found, chosen, report)
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
