"""ResNet-56 on CIFAR-10 with 5 and with 9 of its 25 removable blocks gone, distilled, then int8.

    OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 .venv/bin/python bench/resnet56_blocks.py --seeds 0

Runs the engine's passes on the shared data (PLANISH_TEST_DATA, default ../shared/data: 6,000
training images, 2,000 test images). Accuracy of the float and of the int8 network on the test
images in ONNX Runtime, batch-1 latency on two threads of original, shortened and int8 network in
turns. Settings were chosen on the validation part alone, a tenth of the training images. Runs are
kept by blocks and seed in bench/results/resnet56_blocks.json, and the trained networks in the
folder PLANISH_BENCH_CACHE (default ~/.cache/planish-bench).
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.resnet56_prune_distill_int8 import Listener, write_data  # noqa: E402
from planish.contract.recipe import Distill, Params, Prune, Quantize, Train  # noqa: E402
from planish.contract.spec import (  # noqa: E402  # the repository's root comes first
    Architecture,
    DataSpec,
    ModelSpec,
    Preprocess,
    Spec,
    Target,
)
from worker.engine.load.dataset import Dataset  # noqa: E402
from worker.engine.measure.latency import Contender, compare_latency, paired_ratio  # noqa: E402
from worker.engine.measure.opened import Settings  # noqa: E402
from worker.engine.measure.outputs import dataset_outputs  # noqa: E402
from worker.engine.model import Model  # noqa: E402
from worker.engine.passes import entry_for  # noqa: E402
from worker.engine.prepare import JobInputs, Prepared, prepare  # noqa: E402
from worker.engine.report.environment import describe_environment  # noqa: E402
from worker.engine.save.onnx import save_onnx  # noqa: E402
from worker.engine.save.pt2 import save_pt2  # noqa: E402

RESULT = ROOT / "bench" / "results" / "resnet56_blocks.json"
FLOORS = {5: {"drop": 0.005, "speedup": 2.2}, 9: {"drop": 0.018, "speedup": 2.7}}
EPOCHS = {5: 8, 9: 13}
ROUNDS = 60
THREADS = 2
SIDES = ("original", "shortened", "int8")


def recipe(blocks: int, epochs: int) -> tuple[Params, ...]:
    """Return the passes of one case."""
    train = Train(epochs=epochs, batch_size=64, lr=0.004, augment="crop_flip", amp="bf16")
    lesson = {"method": "hint", "temperature": 4.0, "alpha": 1.0, "feature_weight": 8.0}
    return (
        Prune(structure="layer", blocks=blocks),
        Distill(**lesson, train=train),
        Quantize(mode="static"),
    )


def spec(passes: tuple[Params, ...], seed: int) -> Spec:
    """Return the job."""
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
        recipe=passes,
        target=Target(batch_size=1, threads=THREADS),
    )


def write_sides(prepared: Prepared, folder: Path) -> tuple[dict[str, Path], dict[str, JsonValue]]:
    """Run the passes and write original, float result and int8 result; return files and facts."""
    files = {side: folder / f"{side}.onnx" for side in SIDES}
    facts: dict[str, JsonValue] = {}
    model = prepared.original.clone()
    save_onnx(model, files["original"])
    for step, params in enumerate(prepared.spec.recipe or (), 1):
        began = time.monotonic()
        outcome = entry_for(params).run(model, params, prepared.context(step, Listener()))
        model = outcome.model
        facts[f"{params.op}_seconds"] = round(time.monotonic() - began)
        if isinstance(params, Prune):
            facts["removed"] = outcome.facts["removed"]
            facts["macs"], facts["params"] = outcome.facts["macs"], outcome.facts["params"]
            keep(model, prepared.spec, "pruned")
        if isinstance(params, Distill):
            facts["validation"] = [epoch.accuracy for epoch in outcome.training]
            save_onnx(model, files["shortened"])
            keep(model, prepared.spec, "trained")
    save_onnx(model, files["int8"])
    return files, facts


def keep(model: Model, done: Spec, state: str) -> None:
    """Keep a network for resnet56_pareto.py."""
    blocks = next(p.blocks for p in done.recipe or () if isinstance(p, Prune))
    path = kept_network(blocks or 0, done.seed, state)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_pt2(model, path)


def kept_network(blocks: int, seed: int, state: str) -> Path:
    """Return where a network without some blocks lies: ``pruned``, or ``trained`` after it."""
    folder = os.environ.get("PLANISH_BENCH_CACHE") or Path.home() / ".cache" / "planish-bench"
    return Path(folder, f"resnet56_{blocks}_blocks_{state}_seed{seed}.pt2")


def measured(files: dict[str, Path], test: Dataset) -> dict[str, JsonValue]:
    """Return accuracy on the test images and latency in turns."""
    settings = Settings("onnxruntime", THREADS)
    correct = {
        side: int((dataset_outputs(path, test, settings).argmax(1) == test.targets).sum())
        for side, path in files.items()
    }
    (image,), _ = test.prepare(np.arange(1))
    contenders = {side: Contender(path, settings) for side, path in files.items()}
    times = compare_latency(contenders, {"input": image.numpy()}, rounds=ROUNDS)
    drops = {
        side: round((correct["original"] - correct[side]) / len(test), 5) for side in SIDES[1:]
    }
    return {
        "correct": {side: [count, len(test)] for side, count in correct.items()},
        "drop": drops["shortened"],
        "drop_int8": drops["int8"],
        "latency_ms_p50": {side: times[side].latency.p50 for side in SIDES},
        "speedup_float": round(paired_ratio(times["original"], times["shortened"]), 2),
        "speedup_int8": round(paired_ratio(times["original"], times["int8"]), 2),
        "size_bytes": {side: path.stat().st_size for side, path in files.items()},
    }


def run(blocks: int, seed: int, epochs: int, folder: Path) -> dict[str, JsonValue]:
    """Run one case with one seed and leave its networks in a folder."""
    passes = recipe(blocks, epochs)
    prepared = load(passes, seed, folder)
    files, facts = write_sides(prepared, folder)
    described = {"recipe": [params.model_dump(mode="json") for params in passes]}
    return {**measured(files, sealed(prepared)), **facts, **described}


def measure_again(blocks: int, seed: int, folder: Path) -> dict[str, JsonValue]:
    """Measure the networks of a kept run once more, say on a quieter machine."""
    found = json.loads(RESULT.read_text())["cases"][str(blocks)]["seeds"][str(seed)]
    files = {side: folder / f"{side}.onnx" for side in SIDES}
    return {**found, **measured(files, sealed(load(recipe(blocks, 1), seed, folder)))}


def load(passes: tuple[Params, ...], seed: int, folder: Path) -> Prepared:
    """Return the network and its data."""
    shared = Path(os.environ.get("PLANISH_TEST_DATA") or ROOT.parent / "shared" / "data")
    weights = shared / "resnet56-4bfd9763.th"
    return prepare(JobInputs(None, spec(passes, seed), weights, *write_data(folder, shared)))


def sealed(prepared: Prepared) -> Dataset:
    """Return the test images."""
    if prepared.splits is None or prepared.splits.sealed is None:
        raise RuntimeError("the bench has test images")
    return prepared.splits.sealed


def record(blocks: int, seed: int, found: dict[str, JsonValue]) -> bool:
    """Put a run beside the others of its case, and write what they have in common."""
    stored = json.loads(RESULT.read_text()) if RESULT.exists() else {"cases": {}}
    stored["command"] = (
        "OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 python bench/resnet56_blocks.py "
        "--blocks 5 9 --seeds 0"
    )
    stored["baseline"] = "ONNX Runtime float32, 2 threads, batch 1"
    case = stored["cases"].setdefault(str(blocks), {"seeds": {}})
    case["floor"] = FLOORS.get(blocks)
    case["seeds"][str(seed)] = found
    for name in ("drop", "drop_int8", "speedup_float", "speedup_int8"):
        values = [one[name] for one in case["seeds"].values()]
        spread = round(statistics.stdev(values), 5) if len(values) > 1 else None
        case[name] = {"mean": round(statistics.mean(values), 5), "spread": spread}
    floor = FLOORS.get(blocks, {"drop": 1.0, "speedup": 0.0})
    case["met"] = {
        "drop": case["drop"]["mean"] <= floor["drop"],
        "speedup": case["speedup_int8"]["mean"] >= floor["speedup"],
    }
    stored["environment"] = describe_environment(Target(threads=THREADS), seed, "float32")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(stored, indent=1) + "\n")
    return all(case["met"].values())


def main() -> int:
    """Run the chosen cases; return 1 when a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, nargs="+", default=[9, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--keep", type=Path, help="folder for the networks of all runs")
    parser.add_argument("--again", action="store_true", help="only measure the kept ones once more")
    chosen = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory() as scratch:
        for seed in chosen.seeds:
            for blocks in chosen.blocks:
                folder = Path(chosen.keep or scratch, f"{blocks}-{seed}")
                folder.mkdir(parents=True, exist_ok=True)
                if chosen.again:
                    found = measure_again(blocks, seed, folder)
                else:
                    epochs = chosen.epochs or EPOCHS.get(blocks, 12)
                    found = run(blocks, seed, epochs, folder)
                print(f"{blocks} blocks, seed {seed}")
                for name, value in found.items():
                    print(f"  {name:16} {value}", flush=True)
                met = record(blocks, seed, found) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
