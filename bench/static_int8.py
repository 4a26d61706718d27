"""Static int8 of five public networks: ours beside float, ONNX Runtime's quantizer and NNCF.

    .venv/bin/python bench/static_int8.py [--nets ResNet-20 …] [--samples 512]

Accuracy in ONNX Runtime on data that nobody calibrated on; all three quantizers get the same
calibration samples. ONNX Runtime: quantize_static, QDQ, per channel, minmax, after its own
preprocessing. NNCF: nncf.quantize on the ONNX file with its defaults (fast bias correction). Ours:
the recipe {"op": "quantize"} with its defaults. Networks may be run one by one: results are merged
into bench/results/static_int8.json. The shared data lies in PLANISH_TEST_DATA.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _nets import DATA, NETS, ROOT, Net, folds, splits_of
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from pydantic import JsonValue

from planish.contract.recipe import Quantize
from worker.engine.load.dataset import Dataset
from worker.engine.measure.fidelity import fidelity
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.passes import Context, entry_for
from worker.engine.progress import Silent
from worker.engine.save.onnx import exporter_silenced, save_onnx

RESULT = ROOT / "bench" / "results" / "static_int8.json"
PEER_MARGIN = 0.2


class Reader(CalibrationDataReader):
    """Calibration samples for ONNX Runtime's quantizer."""

    def __init__(self, samples: Dataset, name: str) -> None:
        """Take the samples and the name of the model's input."""
        self.batches, self.name = samples.batches(16), name

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch."""
        inputs, _ = next(self.batches, (None, None))
        return None if inputs is None else {self.name: inputs[0].numpy()}


def main() -> None:
    """Quantize every network three ways, print and merge the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="*", default=[net.name for net in NETS])
    parser.add_argument("--samples", type=int, default=512)
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no shared data at {DATA}: set PLANISH_TEST_DATA to its folder")
    torch.manual_seed(0)
    torch.set_num_threads(2)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {"nets": {}}
    for net in NETS:
        if net.name in options.nets:
            results["nets"][net.name] = compare(net, options.samples)
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    missed = [name for name, found in results["nets"].items() if not found["met"]]
    for name, found in results["nets"].items():
        print(name, json.dumps({key: found[key] for key in ("correct", "points", "met")}))
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


def compare(net: Net, samples: int) -> dict[str, JsonValue]:
    """Return the figures of one network over all its folds."""
    correct: dict[str, int] = {}
    tested, details = 0, []
    for fold in folds(net):
        outputs, labels, detail = run_fold(net, samples, fold)
        for name, values in outputs.items():
            hits = int((values.argmax(1) == labels).sum())
            correct[name] = correct.get(name, 0) + hits
        tested += len(labels)
        details.append(detail)
    drop = {name: (correct["float"] - hits) / tested * 100 for name, hits in correct.items()}
    best = min(drop["onnxruntime"], drop["nncf"])
    return {
        "tested": tested,
        "correct": correct,
        "points": {name: round(value, 3) for name, value in drop.items()},
        "floor": net.floor,
        "met": drop["planish"] <= net.floor and drop["planish"] - best <= PEER_MARGIN,
        "folds": details,
    }


def run_fold(net: Net, samples: int, fold: object) -> tuple[dict, np.ndarray, dict[str, JsonValue]]:
    """Quantize with all three on the calibration part; return their outputs on the test part."""
    params = Quantize(samples=samples)
    spec = net.spec((params.model_dump(exclude_defaults=True) | {"op": "quantize"},))
    model = net.load(spec)
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        splits = splits_of(net, model, spec, fold, at)
        files = {name: at / f"{name}.onnx" for name in ("float", "planish", "onnxruntime", "nncf")}
        save_onnx(model, files["float"])
        context = Context(spec, splits, Silent(), 0, 1, teacher=model, device=torch.device("cpu"))
        began = time.perf_counter()
        outcome = entry_for(params).run(model.clone(), params, context)
        seconds = time.perf_counter() - began
        save_onnx(outcome.model, files["planish"])
        shared, name = splits.calibration.head(samples), model.inputs[0].name
        onnxruntime_static(files["float"], files["onnxruntime"], shared, name)
        nncf_static(files["float"], files["nncf"], shared, name)
        outputs = {name: runtime_outputs(path, splits.sealed) for name, path in files.items()}
        operators = read_runtime_graph(files["planish"])
    told = {key: value for key, value in outcome.facts.items() if key != "weight_scales"}
    near = {name: fidelity(outputs["float"], values) for name, values in outputs.items()}
    return (
        outputs,
        splits.sealed.targets,
        {
            "calibration_samples": len(shared),
            "seconds": round(seconds, 1),
            "sqnr_db": {name: value.sqnr_db for name, value in near.items()},
            "agreement": {name: value.agreement for name, value in near.items()},
            "integer_layers": operators.integer_layers,
            "float_layers": list(operators.float_layers),
            "facts": told,
        },
    )


def runtime_outputs(path: Path, data: Dataset) -> np.ndarray:
    """Return what a file answers in ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: x[0].numpy()})[0] for x, _ in data.batches(50)]
    return np.concatenate(parts)


def onnxruntime_static(source: Path, target: Path, samples: Dataset, name: str) -> None:
    """Quantize an ONNX file with ONNX Runtime's quantizer; `name` is that of its input."""
    prepared = target.with_suffix(".prepared.onnx")
    with exporter_silenced():
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Reader(samples, name),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def nncf_static(source: Path, target: Path, samples: Dataset, name: str) -> None:
    """Quantize an ONNX file with NNCF; `name` is that of its input."""
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)

    def items() -> Iterator[dict[str, np.ndarray]]:
        for inputs, _ in samples.batches(1):
            yield {name: inputs[0].numpy()}

    data = nncf.Dataset(list(items()))
    model = nncf.quantize(onnx.load(source), data, subset_size=len(samples))
    onnx.save(model, target)


if __name__ == "__main__":
    main()
