"""ResNet-56 on CIFAR-10: blocks removed × distilled × int8, against each alone and against peers.

    .venv/bin/python bench/resnet56_pareto.py [--removed 5 9] [--seed 0] [--rounds 60]

The trained, shortened networks come from resnet56_blocks.py, which keeps them in the folder
PLANISH_BENCH_CACHE (default ~/.cache/planish-bench). Accuracy is on the 2,000 test images, latency
at batch 1 with two threads, every contender in a process of its own and all of them in turns. Peers
work on the unpruned network with the same 512 calibration samples: ONNX Runtime's quantize_static
(QDQ, per channel, minmax, after its preprocessing), NNCF's quantize (defaults; pip install nncf),
and OpenVINO as it comes (bfloat16 where the processor has it). Writes
bench/results/resnet56_pareto.json; needs the shared data (PLANISH_TEST_DATA).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _nets import NETS, folds, splits_of
from resnet56_blocks import kept_network
from static_int8 import nncf_static, onnxruntime_static

from planish.contract.recipe import Quantize
from planish.contract.spec import ModelSpec, Spec, Target
from worker.engine.load import load_model
from worker.engine.load.data import Splits
from worker.engine.measure.latency import Contender, compare_latency, paired_ratio
from worker.engine.measure.opened import Settings
from worker.engine.measure.outputs import dataset_outputs
from worker.engine.measure.size import file_bytes
from worker.engine.model import Model
from worker.engine.passes import entry_for
from worker.engine.passes.protocol import Context
from worker.engine.progress import Silent
from worker.engine.report.environment import describe_environment
from worker.engine.save.onnx import save_onnx
from worker.engine.save.openvino_ir import convert

RESULT = Path(__file__).parent / "results" / "resnet56_pareto.json"
NET = next(net for net in NETS if net.name == "ResNet-56")
THREADS, SAMPLES = 2, 512
ORT, OPENVINO = Settings("onnxruntime", THREADS), Settings("openvino", THREADS)
AS_IT_COMES = Settings("openvino", THREADS, options={"INFERENCE_PRECISION_HINT": ""})
PEERS = ("onnxruntime int8", "NNCF int8", "openvino default")
GOALS = {"points": 1.0, "faster_than_the_fastest_peer": 1.2}


@dataclass(frozen=True)
class Bench:
    """What every contender is made with."""

    spec: Spec
    splits: Splits
    original: Model
    folder: Path

    def context(self) -> Context:
        """Return what a pass may use."""
        device = torch.device("cpu")
        return Context(self.spec, self.splits, Silent(), 0, 1, teacher=self.original, device=device)

    def onnx(self, name: str, make: Callable[[], Model]) -> Path:
        """Return the file of a model, which is made and written if it is not there yet."""
        path = self.folder / f"{name}.onnx"
        if not path.is_file():
            save_onnx(make(), path)
        return path

    def int8(self, name: str, model: Callable[[], Model]) -> tuple[Path, Path]:
        """Return static int8 with the pass's defaults, as ONNX and as OpenVINO IR."""
        params = Quantize(samples=SAMPLES)
        run = entry_for(params).run
        onnx = self.onnx(name, lambda: run(model().clone(), params, self.context()).model)
        convert(onnx, onnx.with_suffix(".xml"))
        return onnx, onnx.with_suffix(".xml")


def contenders(bench: Bench, removed: list[int], seed: int) -> Iterator[tuple[str, Contender]]:
    """Yield the peers, each method alone, and all of them together."""
    whole = bench.onnx("float", lambda: bench.original)
    yield "onnxruntime float", Contender(whole, ORT)
    yield "openvino float32", Contender(whole, OPENVINO)
    yield "openvino default", Contender(whole, AS_IT_COMES)
    shared, name = bench.splits.calibration.head(SAMPLES), NET.input
    for peer, quantizer, settings in (
        ("onnxruntime int8", onnxruntime_static, ORT),
        ("NNCF int8", nncf_static, OPENVINO),
    ):
        path = bench.folder / f"{peer}.onnx"
        if not path.is_file():
            quantizer(whole, path, shared, name)
        yield peer, Contender(path, settings)
    onnx, ir = bench.int8("int8", lambda: bench.original)
    yield "int8 alone", Contender(onnx, ORT)
    yield "int8 alone, openvino", Contender(ir, OPENVINO)
    for count in removed:
        pruned, trained = (partial(_kept, count, seed, state) for state in ("pruned", "trained"))
        yield f"-{count} alone", Contender(bench.onnx(f"p{count}", pruned), ORT)
        plain = bench.onnx(f"pd{count}", trained)
        yield f"-{count} × distill", Contender(plain, ORT)
        yield f"-{count} × distill, openvino", Contender(plain, OPENVINO)
        onnx, ir = bench.int8(f"pdq{count}", trained)
        yield f"-{count} × distill × int8", Contender(onnx, ORT)
        yield f"-{count} × distill × int8, openvino", Contender(ir, OPENVINO)


def measure(bench: Bench, sides: dict[str, Contender], rounds: int) -> dict[str, dict]:
    """Return accuracy, latency and size of every contender."""
    test = bench.splits.sealed
    call = {NET.input: test.prepare(np.arange(1))[0][0].numpy()}
    times = compare_latency(sides, call, rounds=rounds, budget_seconds=600)
    base = times["onnxruntime float"]
    rows = {}
    for name, side in sides.items():
        answers = dataset_outputs(side.path, test, side.settings).argmax(1)
        rows[name] = {
            "accuracy": float((answers == test.targets).mean()),
            "ratio": round(paired_ratio(base, times[name]), 3),
            "p50_ms": round(times[name].latency.p50, 4),
            "p90_ms": round(times[name].latency.p90, 4),
            "size_bytes": file_bytes(side.path),
            "precision": times[name].precision,
        }
    fastest = min(PEERS, key=lambda peer: rows[peer]["p50_ms"])
    for name, row in rows.items():
        row["points"] = round((row["accuracy"] - rows["onnxruntime float"]["accuracy"]) * 100, 2)
        row["faster_than_the_fastest_peer"] = round(paired_ratio(times[fastest], times[name]), 3)
        row["on_the_front"] = not any(_dominates(other, row) for other in rows.values())
    return rows


def _dominates(one: dict, other: dict) -> bool:
    """Whether `one` is at least as good in both, and better in one."""
    mine, its = ((row["accuracy"], -row["p50_ms"]) for row in (one, other))
    return mine != its and mine[0] >= its[0] and mine[1] >= its[1]


def main() -> int:
    """Run everything; return 1 when no contender reaches the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--removed", type=int, nargs="*", default=[5, 9])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=Path, help="folder whose files are used, or made there")
    parser.add_argument("--only-files", action="store_true", help="make them and measure later")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    spec = NET.spec(({"op": "quantize"},))
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.files or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        original = NET.load(spec)
        splits = splits_of(NET, original, spec, folds(NET)[0], folder)
        bench = Bench(spec, splits, original, folder)
        sides = dict(contenders(bench, chosen.removed, chosen.seed))
        if chosen.only_files:
            return 0
        rows = measure(bench, sides, chosen.rounds)
    for name, row in rows.items():
        front = "front" if row["on_the_front"] else ""
        print(
            f"{name:36} {row['accuracy']:.4f} {row['points']:+6.2f} "
            f"{row['p50_ms']:8.3f} ms {row['ratio']:6.2f}x "
            f"{row['faster_than_the_fastest_peer']:6.2f}x {row['size_bytes']:9,} {front}"
        )
    met = [name for name, row in rows.items() if _met(name, row)]
    record: dict[str, JsonValue] = {
        "goals": dict(GOALS),
        "met_by": list(met),
        "contenders": rows,
        "load_average": round(os.getloadavg()[0], 1),
        "environment": describe_environment(Target(threads=THREADS), 0, "float32"),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("met by:", ", ".join(met) or "none")
    return 0 if met else 1


def _met(name: str, row: dict) -> bool:
    fast = row["faster_than_the_fastest_peer"] >= GOALS["faster_than_the_fastest_peer"]
    return "×" in name and fast and row["points"] >= -GOALS["points"] and row["on_the_front"]


def _kept(removed: int, seed: int, state: str) -> Model:
    """Return a network without `removed` blocks, as resnet56_blocks.py left it."""
    path = kept_network(removed, seed, state)
    if not path.is_file():
        sys.exit(f"no {path.name} is kept: run bench/resnet56_blocks.py first")
    return load_model(path, ModelSpec())


if __name__ == "__main__":
    sys.exit(main())
