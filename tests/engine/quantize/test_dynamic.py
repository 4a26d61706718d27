"""Dynamic int8: matrix products only, put in by the ONNX writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Quantize
from tests.engine.answers import answers
from tests.engine.passes.models import canonical, context, noise_splits, zoo_model
from tests.zoo import seeded
from worker.engine.measure.runtime_graph import read_runtime_graph
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
    tables = [layer.name for layer in outcome.layers if layer.name in ("embed", "positions")]
    assert graph.integer_layers == len(outcome.layers) - len(tables) == 7
    assert graph.float_layers == ()
    assert outcome.facts["float_products"] == 1  # attention multiplies what is computed
    inputs = model.example(4)
    got = answers(tmp_path / "int8.onnx", inputs)[0]
    want = model.module(*inputs).detach().numpy()
    assert np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_integers_in_the_facts_are_those_of_the_file(
    granularity: str, dtype: str, tmp_path: Path
) -> None:
    params = Quantize(mode="dynamic", granularity=granularity, dtype=dtype)
    model = zoo_model("mlp")
    outcome = run(model, params)
    save_onnx(outcome.model, tmp_path / "int8.onnx")
    constants = onnx.load(tmp_path / "int8.onnx").graph.initializer
    arrays = [numpy_helper.to_array(constant) for constant in constants]
    floats = [array.ravel() for array in arrays if array.dtype == np.float32]
    integers = [array for array in arrays if array.dtype == dtype]
    for layer in outcome.model.quantization.layers:
        scale = np.array(layer.scale, np.float32)
        zero = np.array(layer.zero_point)
        assert any(v.shape == scale.shape and np.allclose(v, scale, rtol=1e-5) for v in floats)
        weight = outcome.model.module.get_submodule(layer.name).weight.detach().numpy()
        low, high = (-127, 127) if dtype == "int8" else (0, 255)
        want = np.clip(np.round(weight / scale[:, None]) + zero[:, None], low, high)
        near = [np.abs(v.T - want).max() for v in integers if v.T.shape == want.shape]
        assert min(near) <= 1


def test_tables_are_stored_in_integers_and_looked_up_as_they_are(tmp_path: Path) -> None:
    model = zoo_model("tied")
    outcome = run(model.clone())
    table = model.module.get_submodule("embed").weight.detach()
    packed = outcome.model.module.get_submodule("embed")
    scale = table.abs().amax(1, keepdim=True) / 127
    assert torch.equal(packed.dequantized(), torch.round(table / scale) * scale)
    ids = torch.tensor([[3, 0, 19]])
    assert torch.equal(packed(ids)[0], packed.dequantized()[ids[0]])
    save_onnx(outcome.model, tmp_path / "int8.onnx")
    inputs = model.example(3)
    got = answers(tmp_path / "int8.onnx", inputs)[0]
    want = model.module(*inputs).detach().numpy()
    assert np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)


class Wild(nn.Module):
    """Two linear layers, of which the second reads one channel that is far larger than the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 24), nn.Linear(24, 10)
        with torch.no_grad():
            self.first.weight[3] *= 500.0
            self.second.weight[:, 3] /= 500.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def wild() -> Model:
    return canonical(*seeded(Wild, (2, 16)))


def test_smoothing_takes_the_strength_that_measures_best() -> None:
    model = wild()
    params = Quantize(mode="dynamic", algorithm="smoothquant")
    splits = noise_splits(model)
    outcome = quantize.run(model.clone(), params, context(model, params, splits=splits))
    tried = outcome.facts["sqnr_db_by_strength"]
    assert outcome.facts["sqnr_db"] == max(tried.values()) > tried["0"] + 6
    before, after = outcome.facts["smoothed"]["second"]
    assert after < before / 3
    inputs = model.example(4)
    want = model.module(*inputs)
    assert (outcome.model.module(*inputs) - want).norm() < 0.02 * want.norm()


def test_auto_smooths_only_where_rounding_alone_falls_short() -> None:
    facts = []
    for model in (zoo_model("mlp"), wild()):
        splits = noise_splits(model)
        facts.append(quantize.run(model, DYNAMIC, context(model, DYNAMIC, splits=splits)).facts)
    calm, rescued = facts
    assert calm["sqnr_db"] >= 20
    assert "smoothed" not in calm
    assert "smoothed" in rescued


def test_keep_float_holds_in_the_file(tmp_path: Path) -> None:
    params = Quantize(mode="dynamic", keep_float=("block.*", "embed", "positions"))
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
