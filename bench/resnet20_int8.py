"""ResNet-20 on CIFAR-10: our static int8 beside float and beside ONNX Runtime's own quantizer.

One run, one machine, ratios only: size, accuracy on the 2,000 test images and batch-1 latency on
two threads, each contender in a process of its own. Needs the shared data; writes
bench/results/resnet20_int8.json. Run it on a quiet machine: python bench/resnet20_int8.py
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnxruntime.quantization import (  # noqa: E402  # the repository's root comes first
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: E402

from planish.contract.recipe import Quantize  # noqa: E402
from planish.contract.spec import Spec  # noqa: E402
from worker.engine.load import load_model  # noqa: E402
from worker.engine.load.data import Dataset, load_splits  # noqa: E402
from worker.engine.measure.fidelity import fidelity  # noqa: E402
from worker.engine.measure.latency import Contender, compare_latency, paired_ratio  # noqa: E402
from worker.engine.measure.opened import Settings  # noqa: E402
from worker.engine.measure.outputs import dataset_outputs  # noqa: E402
from worker.engine.measure.runtime_graph import read_runtime_graph  # noqa: E402
from worker.engine.model import Model  # noqa: E402
from worker.engine.passes.protocol import Context  # noqa: E402
from worker.engine.passes.quantize import run  # noqa: E402
from worker.engine.progress import Silent  # noqa: E402
from worker.engine.report.environment import describe_environment  # noqa: E402
from worker.engine.save.onnx import exporter_silenced, save_onnx  # noqa: E402
from worker.engine.save.pt2 import save_pt2  # noqa: E402

DATA = Path(os.environ.get("PLANISH_TEST_DATA", ROOT.parent / "shared" / "data"))
RESULT = ROOT / "bench" / "results" / "resnet20_int8.json"
ROUNDS = 120
SPEC = Spec.model_validate(
    {
        "model": {
            "architecture": {
                "library": "planish",
                "name": "cifar_resnet",
                "config": {"depth": 20},
            },
            "inputs": [{"name": "x", "shape": ["batch", 3, 32, 32], "dtype": "float32"}],
        },
        "data": {
            "preprocess": {
                "scale": 1 / 255,
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
            }
        },
        "recipe": [{"op": "quantize", "mode": "static", "samples": 512}],
        "target": {"batch_size": 1, "threads": 2},
    },
)
GOALS = {
    "accuracy_drop_points": ("at most", 0.3),
    "size_ratio": ("at least", 3.1),
    "latency_to_onnxruntime_int8": ("at most", 1.05),
    "speedup_over_float": ("at least", 1.5),
}


class _Reader(CalibrationDataReader):
    """The same calibration images for ONNX Runtime's quantizer."""

    def __init__(self, samples: Dataset) -> None:
        self.batches = samples.batches(32)

    def get_next(self) -> dict[str, np.ndarray] | None:
        inputs, _ = next(self.batches, (None, None))
        return None if inputs is None else {"x": inputs[0].numpy()}


def main() -> None:
    """Build the contenders, measure them, print and write the figures."""
    if not DATA.is_dir():
        sys.exit(f"no shared data at {DATA}: set PLANISH_TEST_DATA to its folder")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = load_model(next(DATA.rglob("resnet20-*.th")), SPEC.model)
        train, test = _npz(folder)
        splits = load_splits(SPEC, model, train, test)
        assert splits is not None
        assert splits.sealed is not None
        files = {"float": folder / "float.onnx", "planish": folder / "planish.onnx"}
        files["onnxruntime"] = folder / "onnxruntime.onnx"
        save_onnx(model, files["float"])
        params = SPEC.recipe[0]
        context = Context(SPEC, splits, Silent(), 0, 1, teacher=model, device=torch.device("cpu"))
        seconds = time.perf_counter()
        quantized = run(model.clone(), params, context).model
        save_onnx(quantized, files["planish"])
        seconds = time.perf_counter() - seconds
        save_pt2(quantized, folder / "planish.pt2")
        _onnxruntime_static(files["float"], files["onnxruntime"], splits.calibration, params)
        result = _measure(files, splits.sealed, quantized)
        result["seconds_to_quantize_and_save"] = round(seconds, 2)
        result["pt2_bytes"] = (folder / "planish.pt2").stat().st_size
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    _verdict(result["ratios"])


def _npz(folder: Path) -> tuple[Path, Path]:
    """Store the shared arrays under the names that the data contract asks for."""
    paths = folder / "train.npz", folder / "test.npz"
    with np.load(next(DATA.rglob("cifar10_public.npz"))) as stored:
        for path, part in zip(paths, ("train", "test"), strict=True):
            np.savez(path, x=stored[f"x_{part}"], targets=stored[f"y_{part}"])
    return paths


def _onnxruntime_static(source: Path, target: Path, samples: Dataset, params: Quantize) -> None:
    """Quantize with ONNX Runtime's own tool: its fusions first, then QDQ, U8S8, per channel."""
    prepared = target.with_suffix(".prepared.onnx")
    with exporter_silenced():
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Reader(samples.head(params.samples)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _measure(files: dict[str, Path], test: Dataset, quantized: Model) -> dict:
    settings = Settings(threads=SPEC.target.threads)
    outputs = {name: dataset_outputs(path, test, settings) for name, path in files.items()}
    correct = {name: int((y.argmax(1) == test.targets).sum()) for name, y in outputs.items()}
    call = {"x": quantized.example(SPEC.target.batch_size)[0].numpy()}
    sides = {name: Contender(path, settings) for name, path in files.items()}
    times = compare_latency(sides, call, rounds=ROUNDS)
    size = {name: path.stat().st_size for name, path in files.items()}
    near = {name: fidelity(outputs["float"], y).model_dump() for name, y in outputs.items()}
    return {
        "ratios": {
            "accuracy_drop_points": (correct["float"] - correct["planish"]) / len(test) * 100,
            "size_ratio": size["float"] / size["planish"],
            "latency_to_onnxruntime_int8": 1 / paired_ratio(times["onnxruntime"], times["planish"]),
            "speedup_over_float": paired_ratio(times["float"], times["planish"]),
        },
        "correct_of_2000": correct,
        "bytes": size,
        "latency_ms": {name: side.latency.model_dump() for name, side in times.items()},
        "fidelity_to_float": near,
        "runtime_operators": {
            name: dict(read_runtime_graph(path).operators) for name, path in files.items()
        },
        "environment": describe_environment(SPEC.target, SPEC.seed),
    }


def _verdict(ratios: dict[str, float]) -> None:
    missed = 0
    for name, (side, goal) in GOALS.items():
        met = ratios[name] >= goal if side == "at least" else ratios[name] <= goal
        missed += not met
        print(f"{'met   ' if met else 'MISSED'} {name}: {ratios[name]:.3f} ({side} {goal})")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
