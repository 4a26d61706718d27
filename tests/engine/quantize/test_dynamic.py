"""Dynamic int8: matrix products only, put in by the ONNX writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Quantize
from tests.engine.passes.models import canonical, context, zoo_model
from tests.zoo import seeded
from worker.engine.measure.outputs import run_session
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.measure.session import open_session
from worker.engine.model import Model
from worker.engine.passes import Outcome, quantize
from worker.engine.save.onnx import save_onnx

DYNAMIC = Quantize(mode="dynamic")


def run(model: Model, params: Quantize = DYNAMIC) -> Outcome:
    return quantize.run(model, params, context(model, params))


def test_linear_layers_become_integer_products(tmp_path: Path) -> None:
    model = zoo_model("tiny_transformer")
    outcome = run(model.clone())
    save_onnx(outcome.model, tmp_path / "int8.onnx")
    graph = read_runtime_graph(tmp_path / "int8.onnx")
    assert graph.integer_layers == len(outcome.layers) == 7
    assert graph.float_layers == ()
    inputs = model.example(4)
    got = run_session(open_session(tmp_path / "int8.onnx", 1), inputs)[0]
    want = model.module(*inputs).detach().numpy()
    assert np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_scales_in_the_facts_are_those_of_the_file(granularity: str, tmp_path: Path) -> None:
    params = Quantize(mode="dynamic", granularity=granularity)
    outcome = run(zoo_model("mlp"), params)
    save_onnx(outcome.model, tmp_path / "int8.onnx")
    constants = onnx.load(tmp_path / "int8.onnx").graph.initializer
    stored = [numpy_helper.to_array(c).ravel() for c in constants if c.data_type == 1]
    for layer in outcome.model.quantization.layers:
        want = np.array(layer.scale, np.float32)
        assert any(v.shape == want.shape and np.allclose(v, want, rtol=1e-5) for v in stored)


def test_keep_float_holds_in_the_file(tmp_path: Path) -> None:
    params = Quantize(mode="dynamic", keep_float=("block.*",))
    outcome = run(zoo_model("tiny_transformer"), params)
    save_onnx(outcome.model, tmp_path / "int8.onnx")
    graph = read_runtime_graph(tmp_path / "int8.onnx")
    assert [layer.name for layer in outcome.layers] == ["head"]
    assert graph.integer_layers == 1
    assert set(graph.float_layers) == {
        f"block.{name}" for name in ("q", "k", "v", "out", "up", "down")
    }


def test_convolutions_are_left_and_the_report_says_why() -> None:
    outcome = run(zoo_model("small_residual_cnn"))
    assert [layer.name for layer in outcome.layers] == ["linear"]
    assert all("static covers convolutions" in layer.why for layer in outcome.skipped)


def test_a_model_without_matrix_products_is_sent_to_static() -> None:
    model = canonical(*seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3)), (2, 3, 8, 8)))
    with pytest.raises(NothingChanged, match='set mode to "static"'):
        run(model)
