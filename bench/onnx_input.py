"""Static int8 of an uploaded ONNX file beside the way over torch, and ONNX Runtime's tool by hand.

    .venv/bin/python bench/onnx_input.py [--nets ResNet-20 DS-CNN] [--samples 512] [--rounds 40]

The same trained networks go both ways in: as a torch graph (what a .pt2 becomes), quantized by
Planish's own quantizer, and as an .onnx of torch.onnx.export, quantized by its runtime passes with
the defaults of the recipe {"op": "quantize"}. By hand: quant_pre_process and quantize_static, QDQ,
per channel, uint8 activations, minmax. All see the same calibration samples and are judged on
samples that none of them saw, in ONNX Runtime. Latency: all files in turns, one process each, batch
1, ratios to the float file, paired by round. Results: bench/results/onnx_input.json. The shared
data lies in PLANISH_TEST_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _nets import DATA, NETS, ROOT, Net, folds, splits_of
from pydantic import JsonValue
from static_int8 import onnxruntime_static, runtime_outputs

from planish.contract.recipe import Quantize
from planish.contract.spec import ModelSpec
from worker.engine.measure.latency import Contender, compare_latency, paired_ratio
from worker.engine.measure.opened import Settings
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.model import Model
from worker.engine.passes import Context, entry_for
from worker.engine.passes.protocol import Surroundings
from worker.engine.progress import Silent
from worker.engine.runtime_model.quantize import run
from worker.engine.runtime_model.read import load_onnx
from worker.engine.save.onnx import exporter_silenced, save_onnx

RESULT = ROOT / "bench" / "results" / "onnx_input.json"
THREADS = 2
WAYS = ("pt2", "onnx", "by_hand")


def main() -> None:
    """Quantize every network in three ways, print and merge the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="*", default=["ResNet-20", "DS-CNN"])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no shared data at {DATA}: set PLANISH_TEST_DATA to its folder")
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {"nets": {}}
    results["command"] = (
        f"python bench/onnx_input.py --samples {options.samples} --rounds {options.rounds}"
    )
    for net in NETS:
        if net.name in options.nets:
            results["nets"][net.name] = compare(net, options.samples, options.rounds)
            RESULT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            shown = {k: v for k, v in results["nets"][net.name].items() if k != "facts"}
            print(net.name, json.dumps(shown))


def compare(net: Net, samples: int, rounds: int) -> dict[str, JsonValue]:
    """Return the figures of one network over its folds; sizes and times are the first one's."""
    correct: dict[str, int] = {}
    found: dict[str, JsonValue] = {}
    tested = 0
    for index, fold in enumerate(folds(net)):
        with tempfile.TemporaryDirectory() as folder:
            files, sealed, facts, call = quantized(net, samples, fold, Path(folder))
            for name, path in files.items():
                hits = int((runtime_outputs(path, sealed).argmax(1) == sealed.targets).sum())
                correct[name] = correct.get(name, 0) + hits
            tested += len(sealed)
            if index == 0:
                found = {**measured(files, call, rounds), "facts": facts}
    points = {n: round((correct["float"] - h) / tested * 100, 3) for n, h in correct.items()}
    return {"tested": tested, "correct": dict(correct), "points_lost": dict(points), **found}


def quantized(
    net: Net, samples: int, fold: object, at: Path
) -> tuple[dict[str, Path], object, dict[str, JsonValue], dict[str, np.ndarray]]:
    """Write the float file and all quantized ones; return them with the sealed samples."""
    params = Quantize(samples=samples)
    spec = net.spec((params.model_dump(exclude_defaults=True) | {"op": "quantize"},))
    model = net.load(spec)
    splits = splits_of(net, model, spec, fold, at)
    files = {name: at / f"{name}.onnx" for name in ("float", *WAYS)}
    export(model, files["float"])
    context = Context(
        spec, splits, Silent(), 0, 1, teacher=model.clone(), device=torch.device("cpu")
    )
    torch_way = entry_for(params).run(model.clone(), params, context)
    save_onnx(torch_way.model, files["pt2"])
    graph = load_onnx(files["float"], ModelSpec())
    onnx_way = run(graph, params, Surroundings(spec, splits, Silent(), 0, 1))
    files["onnx"].write_bytes(onnx_way.model.proto.SerializeToString())
    head = splits.calibration.head(samples)
    onnxruntime_static(files["float"], files["by_hand"], head, model.inputs[0].name)
    told = {k: v for k, v in onnx_way.facts.items() if k != "weight_scales"}
    return files, splits.sealed, told, graph.named(splits.sealed.prepare(np.arange(1))[0])


def export(model: Model, path: Path) -> None:
    """Write the float network as a user would: torch.onnx.export with a dynamic batch."""
    batch = ({0: torch.export.Dim("batch")},)
    with exporter_silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.module,
            model.example(),
            dynamo=True,
            dynamic_shapes=batch,
            input_names=[model.inputs[0].name],
            opset_version=18,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        program.save(str(path), external_data=False)


def measured(files: dict[str, Path], call: dict[str, np.ndarray], rounds: int) -> dict:
    """Return sizes, layers in integers, and latency ratios of the files."""
    settings = Settings("onnxruntime", THREADS)
    times = compare_latency(
        {name: Contender(path, settings) for name, path in files.items()}, call, rounds=rounds
    )
    return {
        "bytes": {name: path.stat().st_size for name, path in files.items()},
        "integer_layers": {n: read_runtime_graph(files[n]).integer_layers for n in WAYS},
        "float_layers": {n: list(read_runtime_graph(files[n]).float_layers) for n in WAYS},
        "float_ms_p50": round(times["float"].latency.p50, 3),
        "speedup": {n: round(paired_ratio(times["float"], times[n]), 3) for n in WAYS},
        "load_average": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
