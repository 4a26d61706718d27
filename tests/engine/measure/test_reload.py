"""Reload: a sound file passes, any other one is found out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from planish.contract.errors import ReloadMismatch
from planish.contract.recipe import Quantize
from tests.engine.passes.models import context, noise_splits, zoo_model
from worker.engine.measure.reload import check_reload
from worker.engine.model import Model
from worker.engine.passes import quantize
from worker.engine.save.onnx import save_onnx
from worker.engine.save.pt2 import save_pt2


def int8(model: Model, params: Quantize) -> Model:
    splits = noise_splits(model, labels=False)
    return quantize.run(model, params, context(model, params, splits=splits)).model


def test_float_and_static_int8_files_reload(tmp_path: Path) -> None:
    for index, model in enumerate((zoo_model("mlp"), int8(zoo_model("mlp"), Quantize()))):
        paths = [tmp_path / f"{index}.onnx", tmp_path / f"{index}.pt2"]
        save_onnx(model, paths[0])
        save_pt2(model, paths[1])
        reload = check_reload(model, paths, threads=1)
        assert reload.ok
        assert reload.process == "fresh"
        assert reload.max_abs_error < 1e-3


def test_dynamic_int8_reloads_though_its_graph_is_float(tmp_path: Path) -> None:
    model = int8(zoo_model("tiny_transformer"), Quantize(mode="dynamic"))
    save_onnx(model, tmp_path / "model.onnx")
    assert check_reload(model, [tmp_path / "model.onnx"], threads=1).ok


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    model, other = zoo_model("mlp"), zoo_model("mlp")
    with torch.no_grad():
        other.module.get_submodule("3").weight.mul_(1.5)
    save_onnx(other, tmp_path / "model.onnx")
    save_pt2(other, tmp_path / "model.pt2")
    for name in ("model.onnx", "model.pt2"):
        with pytest.raises(ReloadMismatch, match=name):
            check_reload(model, [tmp_path / name], threads=1)


def test_a_wrong_scale_in_an_int8_file_is_found(tmp_path: Path) -> None:
    model = int8(zoo_model("mlp"), Quantize())
    path = tmp_path / "model.onnx"
    save_onnx(model, path)
    proto = onnx.load(path)
    want = np.array(model.quantization.layers[1].scale, np.float32)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    name = next(name for name, array in arrays.items() if np.array_equal(array, want))
    scale = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    scale.CopyFrom(numpy_helper.from_array(want * 8, name))
    onnx.save(proto, path)
    with pytest.raises(ReloadMismatch, match="away from"):
        check_reload(model, [path], threads=1)


def test_a_truncated_pt2_is_named(tmp_path: Path) -> None:
    model = zoo_model("mlp")
    path = tmp_path / "model.pt2"
    save_pt2(model, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ReloadMismatch, match=r"model\.pt2 does not open"):
        check_reload(model, [path], threads=1)
