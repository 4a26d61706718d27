"""A trained public network keeps its accuracy in the runtime (bench/resnet20_int8.py times it)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from planish.contract.recipe import Quantize
from planish.contract.spec import Spec
from tests.engine.passes.models import context
from worker.engine.load import load_model
from worker.engine.load.data import load_splits
from worker.engine.measure.fidelity import fidelity
from worker.engine.measure.opened import Settings
from worker.engine.measure.outputs import dataset_outputs
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.passes import quantize
from worker.engine.save.onnx import save_onnx

PARAMS = Quantize(samples=512)
SPEC = Spec.model_validate(
    {
        "model": {
            "architecture": {"library": "planish", "name": "cifar_resnet", "config": {"depth": 20}},
            "inputs": [{"name": "x", "shape": ["batch", 3, 32, 32], "dtype": "float32"}],
        },
        "data": {
            "preprocess": {
                "scale": 1 / 255,
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
            }
        },
        "recipe": [PARAMS.model_dump()],
    }
)


def test_resnet20_int8_is_smaller_and_as_accurate(shared_data: Path, tmp_path: Path) -> None:
    model = load_model(next(shared_data.rglob("resnet20-*.th")), SPEC.model)
    paths = [tmp_path / "train.npz", tmp_path / "test.npz"]
    with np.load(next(shared_data.rglob("cifar10_public.npz"))) as stored:
        for path, part in zip(paths, ("train", "test"), strict=True):
            np.savez(path, x=stored[f"x_{part}"], targets=stored[f"y_{part}"])
    splits = load_splits(SPEC, model, *paths)
    save_onnx(model, tmp_path / "float.onnx")
    after = quantize.run(model.clone(), PARAMS, context(model, PARAMS, splits=splits)).model
    save_onnx(after, tmp_path / "int8.onnx")
    outputs = [
        dataset_outputs(tmp_path / f, splits.sealed, Settings())
        for f in ("float.onnx", "int8.onnx")
    ]
    before, now = (int((y.argmax(1) == splits.sealed.targets).sum()) for y in outputs)
    assert before == 1836, "the README of the shared data names 1836 of 2000"
    assert now >= before - 6, "0.3 points of 2000"
    assert fidelity(*outputs).agreement > 0.98
    sizes = [(tmp_path / name).stat().st_size for name in ("float.onnx", "int8.onnx")]
    assert sizes[0] / sizes[1] > 3.1
    graph = read_runtime_graph(tmp_path / "int8.onnx")
    assert (graph.integer_layers, graph.float_layers) == (20, ())
