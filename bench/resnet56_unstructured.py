"""ResNet-56 on CIFAR-10: half, or four fifths, of its weights go one by one; then distillation.

    OMP_NUM_THREADS=2 .venv/bin/python bench/resnet56_unstructured.py --sparsity 0.8 --seed 0

Runs the engine's own pipeline on the shared data (PLANISH_TEST_DATA, default ../shared/data: 6,000
training images, 2,000 test images), prints the figures of this run and writes them, beside those of
other seeds, to bench/results/. Settings were chosen on the validation part alone (a tenth of the
training images). Sizes are those of the ONNX file, and of it under zstd at level 19.
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

import numpy as np
from pydantic import JsonValue

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from planish.contract.job import EventType
from planish.contract.recipe import Distill, Prune, Train
from planish.contract.report import Report
from planish.contract.spec import Architecture, DataSpec, ModelSpec, Preprocess, Spec, Target
from worker.engine.pipeline import JobInputs, optimize
from worker.engine.progress import Silent

FEATURE_WEIGHT = 8.0
ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "resnet56_unstructured.json"
GOALS = {0.5: (0.003, 1.7), 0.8: (0.015, 3.5)}
"""By sparsity: the largest drop of accuracy, and the least ratio of compressed sizes."""


class Listener(Silent):
    """Prints stages and epochs."""

    def stage(self, name: str, step: int, steps: int) -> None:
        """Print a stage."""
        print(f"[{step}/{steps}] {name}", file=sys.stderr, flush=True)

    def event(self, kind: EventType, data: dict[str, JsonValue]) -> None:
        """Print an epoch."""
        if kind is EventType.EPOCH:
            print(f"  {json.dumps(data)}", file=sys.stderr, flush=True)


def spec(chosen: argparse.Namespace) -> Spec:
    """Return the job."""
    train = Train(
        epochs=chosen.epochs,
        batch_size=64,
        lr=chosen.lr,
        augment="crop_flip",
        mixup=1.0,
        amp="bf16",
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
                structure="unstructured",
                sparsity=chosen.sparsity,
                scope="global",
                schedule=chosen.schedule,
            ),
            Distill(
                method="hint",
                temperature=2.0,
                alpha=1.0,
                feature_weight=FEATURE_WEIGHT,
                train=train,
            ),
        ),
        target=Target(batch_size=1, threads=2),
    )


def write_data(folder: Path, shared: Path) -> tuple[Path, Path]:
    """Write the two data files as a user would send them: sorted by class, NHWC bytes."""
    stored = np.load(shared / "cifar10_public.npz")
    paths = folder / "train.npz", folder / "test.npz"
    for path, part in zip(paths, ("train", "test"), strict=True):
        np.savez(path, inputs=stored[f"x_{part}"], targets=stored[f"y_{part}"])
    return paths


def figures(report: Report, sparsity: float, seconds: float) -> dict[str, JsonValue]:
    """Return what one run found."""
    before, after = report.baseline, report.optimized
    sizes = before.compressed_bytes or 0, after.compressed_bytes or 1
    drop = round((before.metric.value or 0) - (after.metric.value or 0), 5)
    to_file, to_compressed = before.size_bytes / sizes[1], sizes[0] / sizes[1]
    most, least = GOALS[sparsity]
    return {
        "accuracy": [before.metric.value, after.metric.value],
        "drop": drop,
        "nonzero_params": [before.nonzero_params, after.nonzero_params],
        "size_bytes": [before.size_bytes, after.size_bytes],
        "compressed_bytes": [before.compressed_bytes, after.compressed_bytes],
        "file_to_compressed": round(to_file, 3),
        "compressed_to_compressed": round(to_compressed, 3),
        "latency_ratio": report.ratios.latency and round(report.ratios.latency, 2),
        "validation_accuracy": report.passes[-1].facts.get("validation_accuracy"),
        "best_epoch": report.passes[-1].facts.get("best_epoch"),
        "job_seconds": round(seconds),
        "met": drop <= most and min(to_file, to_compressed) >= least,
    }


def record(found: dict[str, JsonValue], chosen: argparse.Namespace, report: Report) -> None:
    """Put the run beside those of other seeds, and write what they have in common."""
    stored = json.loads(RESULT.read_text()) if RESULT.exists() else {"cases": {}}
    case = stored["cases"].setdefault(f"{chosen.sparsity:g}", {"seeds": {}})
    case["settings"] = [params.model_dump(mode="json") for params in spec(chosen).recipe or ()]
    case["goal"] = dict(zip(("drop", "size_ratio"), GOALS[chosen.sparsity], strict=True))
    case["seeds"][str(chosen.seed)] = found
    drops = [run["drop"] for run in case["seeds"].values()]
    case["drop_mean"] = round(statistics.mean(drops), 5)
    case["drop_spread"] = round(statistics.stdev(drops), 5) if len(drops) > 1 else None
    case["met"] = all(run["met"] for run in case["seeds"].values())
    stored["command"] = "python bench/resnet56_unstructured.py --sparsity S --seed N"
    stored["environment"] = report.environment
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(stored, indent=1) + "\n")


def main() -> int:
    """Run the job; return 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sparsity", type=float, choices=sorted(GOALS), default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--lr", type=float, default=0.004)
    parser.add_argument("--schedule", choices=("one_shot", "cubic"), default="one_shot")
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
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
    found = figures(report, chosen.sparsity, time.monotonic() - began)
    for name, value in found.items():
        print(f"{name:26} {value}")
    if not chosen.dry:
        record(found, chosen, report)
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
