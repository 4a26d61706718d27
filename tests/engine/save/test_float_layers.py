"""A layer that was kept in float is computed in float, also between integer layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from planish.contract.recipe import Quantize
from tests.engine.passes.models import canonical, context
from tests.zoo import seeded
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.model import Model
from worker.engine.passes import quantize
from worker.engine.save.onnx import save_onnx


def chain() -> Model:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(),
            nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1),
        )  # fmt: skip

    return canonical(*seeded(build, (2, 3, 8, 8)))


def test_the_runtime_does_not_round_what_was_kept(tmp_path: Path) -> None:
    model = chain()
    with torch.no_grad():  # one scale for the tensor would lose all but one channel
        model.module.get_submodule("2").weight[0] *= 1e4
        model.module.get_submodule("4").weight[:, 0] *= 1e-4
    params = Quantize(keep_float=("2",), algorithm="rtn")
    outcome = quantize.run(model.clone(), params, context(model, params))
    save_onnx(outcome.model, tmp_path / "model.onnx")
    graph = read_runtime_graph(tmp_path / "model.onnx")
    assert graph.float_layers == ("2",)
    assert graph.integer_layers == 3


def test_the_file_answers_as_the_graph_does(tmp_path: Path) -> None:
    import onnxruntime

    model = chain()
    params = Quantize(keep_float=("2",), algorithm="rtn")
    after = quantize.run(model.clone(), params, context(model, params)).model
    save_onnx(after, tmp_path / "model.onnx")
    inputs = model.example(4)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (got,) = session.run(None, {session.get_inputs()[0].name: inputs[0].numpy()})
    with torch.no_grad():
        want = after.module(*inputs).numpy()
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()
