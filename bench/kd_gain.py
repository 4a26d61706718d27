"""What a teacher is worth: ResNet-20 from random weights, with and without ResNet-56.

    .venv/bin/python bench/kd_gain.py [--seeds 0 1 2] [--epochs 30] [--lr 0.1] [--batch-size 64]
                                      [--method kd] [--checkpoints DIR]

Both runs of a seed start at the same weights and see the same 5,400 images in the same order, with
the same rates, for the same number of epochs; one learns from the teacher and the labels, the
other (the control) from the labels alone. Both are judged on 2,000 other images. Trains on the
shared data (PLANISH_TEST_DATA, default ../shared/data). Seeds may be run one by one: results with
the same settings are merged into bench/results/kd_gain.json. With --checkpoints an interrupted run
goes on where it stopped when it is started again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from planish.contract.job import EventType
from planish.contract.recipe import Distill, Params, Retrain, Train
from planish.contract.spec import Architecture, DataSpec, ModelSpec, Preprocess, Spec
from worker.engine.controls import score
from worker.engine.load import load_model
from worker.engine.load.construct import construct_model
from worker.engine.load.data import Splits, load_splits
from worker.engine.model import Model
from worker.engine.passes import Context, entry_for
from worker.engine.progress import Silent

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "kd_gain.json"
DATA = DataSpec(
    preprocess=Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
)


class Listener(Silent):
    """Prints epochs."""

    def event(self, kind: EventType, data: dict[str, JsonValue]) -> None:
        """Print an epoch."""
        if kind is EventType.EPOCH:
            print(f"  {json.dumps(data)}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Bench:
    """The teacher, the data, and how long to train."""

    teacher: Model
    splits: Splits
    train: Train
    method: str
    checkpoints: Path | None

    def seed(self, seed: int) -> dict[str, JsonValue]:
        """Train both students of a seed; return their accuracy on the test images."""
        taught = Distill.model_validate({"method": self.method, "train": self.train})
        kd, kd_seconds = self._trained(taught, seed)
        control, control_seconds = self._trained(Retrain(train=self.train), seed)
        return {
            self.method: kd,
            "control": control,
            "gain_points": round(100 * (kd - control), 2),
            "seconds": [round(kd_seconds), round(control_seconds)],
        }

    def _trained(self, params: Params, seed: int) -> tuple[float, float]:
        began = time.monotonic()
        print(f"seed {seed}: {params.model_dump()['op']}", file=sys.stderr, flush=True)
        student = construct_model(_architecture(20), seed)
        context = Context(
            spec=Spec(recipe=(params,), data=DATA),
            splits=self.splits,
            teacher=self.teacher,
            progress=Listener(),
            seed=seed,
            device=torch.device("cpu"),
            step=1,
            checkpoints=self.checkpoints,
        )
        trained = entry_for(params).run(student, params, context).model
        sealed = self.splits.sealed
        if sealed is None:
            raise RuntimeError("no test images")
        return score(trained, sealed, "classification"), time.monotonic() - began


def load(shared: Path, folder: Path) -> tuple[Model, Splits]:
    """Load teacher and data as a job does."""
    teacher = load_model(shared / "resnet56-4bfd9763.th", _architecture(56))
    stored = np.load(shared / "cifar10_public.npz")
    paths = folder / "train.npz", folder / "test.npz"
    for path, part in zip(paths, ("train", "test"), strict=True):
        np.savez(path, inputs=stored[f"x_{part}"], targets=stored[f"y_{part}"])
    splits = load_splits(Spec(recipe=(Retrain(),), data=DATA), teacher, *paths)
    if splits is None:
        raise RuntimeError("no data")
    return teacher, splits


def _architecture(depth: int) -> ModelSpec:
    return ModelSpec(
        architecture=Architecture(library="planish", name="cifar_resnet", config={"depth": depth})
    )


def merged(settings: dict[str, JsonValue], found: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the record with this run's seeds; other settings start a new one."""
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    seeds = before.get("seeds", {}) if before.get("settings") == settings else {}
    seeds = dict(sorted({**seeds, **found}.items()))
    gains = [entry["gain_points"] for entry in seeds.values()]
    spread = statistics.stdev(gains) if len(gains) > 1 else math.nan
    return {
        "command": _command(settings, seeds),
        "settings": settings,
        "seeds": seeds,
        "mean": {
            side: round(statistics.mean(entry[side] for entry in seeds.values()), 4)
            for side in (str(settings["method"]), "control")
        },
        "gain_points_mean": round(statistics.mean(gains), 2),
        "gain_points_spread": None if math.isnan(spread) else round(spread, 2),
        "met": not math.isnan(spread) and statistics.mean(gains) > spread,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }


def _command(settings: dict[str, JsonValue], seeds: Iterable[str]) -> str:
    options = " ".join(f"--{name} {value}" for name, value in settings.items())
    return f"bench/kd_gain.py {options} --seeds {' '.join(seeds)}"


def main() -> int:
    """Run the seeds; return 1 when all three are there and the gain is not beyond the spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--method", default="kd")
    parser.add_argument("--checkpoints", type=Path)
    chosen = parser.parse_args()
    shared = Path(os.environ.get("PLANISH_TEST_DATA") or ROOT.parent / "shared" / "data")
    if chosen.checkpoints is not None:
        chosen.checkpoints.mkdir(parents=True, exist_ok=True)
    train = Train(
        epochs=chosen.epochs,
        lr=chosen.lr,
        batch_size=chosen.batch_size,
        augment="crop_flip",
        amp="bf16",
        checkpoint_every_seconds=30,
    )
    settings = {
        "method": chosen.method,
        "epochs": chosen.epochs,
        "lr": chosen.lr,
        "batch-size": chosen.batch_size,
    }
    with tempfile.TemporaryDirectory() as folder:
        teacher, splits = load(shared, Path(folder))
        bench = Bench(teacher, splits, train, chosen.method, chosen.checkpoints)
        for seed in chosen.seeds:
            entry = bench.seed(seed)
            record = merged(settings, {str(seed): entry})
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps(record, indent=1) + "\n")
            print(json.dumps({str(seed): entry}), flush=True)
    print(json.dumps(record, indent=1))
    return 0 if record["met"] or record["gain_points_spread"] is None else 1


if __name__ == "__main__":
    sys.exit(main())
