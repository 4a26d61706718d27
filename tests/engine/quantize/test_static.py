"""Static int8 on every network of the zoo, and what the pass says about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from planish.contract.errors import InvalidRecipe, NothingChanged
from planish.contract.recipe import Quantize
from tests.engine.answers import answers
from tests.engine.passes.models import (
    NETS,
    canonical,
    context,
    digit_splits,
    noise_splits,
    zoo_model,
)
from tests.zoo import seeded
from worker.engine.load.pt2 import read_pt2
from worker.engine.measure.macs import count_macs
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.model import Model, first_output
from worker.engine.passes import Outcome, quantize
from worker.engine.quantize import static
from worker.engine.save.onnx import save_onnx
from worker.engine.save.pt2 import save_pt2


def quantized(model: Model, params: Quantize | None = None, samples: int = 60) -> Outcome:
    params = params or Quantize()
    splits = noise_splits(model, samples=samples, labels=False)
    return quantize.run(model, params, context(model, params, splits=splits))


def relative_error(before: Model, after: Model) -> float:
    inputs = before.example(16, seed=3)
    with torch.no_grad():
        want, got = (first_output(m.module(*inputs)) for m in (before, after))
    return float((want - got).norm() / want.norm())


@pytest.mark.parametrize("name", NETS)
def test_every_chosen_layer_runs_on_integers_in_the_runtime(name: str, tmp_path: Path) -> None:
    outcome = quantized(zoo_model(name))
    save_onnx(outcome.model, tmp_path / "model.onnx")
    graph = read_runtime_graph(tmp_path / "model.onnx")
    assert graph.integer_layers >= len(outcome.layers) > 0
    changed = {layer.name for layer in outcome.layers}
    assert not changed & set(graph.float_layers)


@pytest.mark.parametrize("name", NETS)
def test_the_int8_graph_stays_near_the_float_one(name: str) -> None:
    before = zoo_model(name)
    after = quantized(before.clone()).model
    assert relative_error(before, after) < 0.1
    assert count_macs(after) == count_macs(before)


@pytest.mark.parametrize("name", NETS)
def test_the_strict_reader_and_torch_open_the_int8_pt2(name: str, tmp_path: Path) -> None:
    model = quantized(zoo_model(name)).model
    save_pt2(model, tmp_path / "model.pt2")
    strict, inputs = read_pt2(tmp_path / "model.pt2")
    official = torch.export.load(tmp_path / "model.pt2").module()
    assert inputs == model.inputs
    example = model.example(3)
    with torch.no_grad():
        want, ours, theirs = (tree_leaves(m(*example)) for m in (model.module, strict, official))
    for value, again, once_more in zip(want, ours, theirs, strict=True):
        assert torch.equal(value, again)
        assert torch.equal(value, once_more)


def test_float_weights_are_gone_and_integers_bear_their_layers_names() -> None:
    model = quantized(zoo_model("small_residual_cnn")).model
    state = model.module.state_dict()
    assert {name for name, value in state.items() if value.dtype == torch.int8} == {
        f"{layer.name}.weight" for layer in model.quantization.layers
    }
    floats = [name for name, value in state.items() if value.dtype == torch.float32]
    assert all(name.endswith((".weight_scale", ".bias", ".bias_scale")) for name in floats)
    assert not any("running" in name for name in state), "a BatchNorm is left"


def test_scales_in_the_facts_rebuild_the_weights() -> None:
    before = zoo_model("mlp")
    after = quantized(before.clone()).model
    for layer in after.quantization.layers[1:]:  # the first one has a BatchNorm folded in
        integers = after.module.state_dict()[f"{layer.name}.weight"].float()
        assert integers.min() >= -127
        rebuilt = integers * torch.tensor(layer.scale)[:, None]
        want = before.module.get_submodule(layer.name).weight
        assert (rebuilt - want).abs().max() <= max(layer.scale) / 2 * 1.001
        assert set(layer.zero_point) == {0}


class SharedConvolution(nn.Module):
    """One convolution and one BatchNorm, each called twice: nothing can be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        return self.norm(self.conv(x)).mean((2, 3))


def test_a_batchnorm_after_a_layer_called_twice_is_not_folded_into_it() -> None:
    before = canonical(*seeded(SharedConvolution, (2, 4, 6, 6)))
    outcome = quantized(before.clone())
    assert [layer.name for layer in outcome.skipped] == ["norm"]
    assert relative_error(before, outcome.model) < 0.1


def test_granularity_tensor_has_one_scale_per_layer() -> None:
    outcome = quantized(zoo_model("depthwise"), Quantize(granularity="tensor"))
    assert all(len(layer.scale) == 1 for layer in outcome.model.quantization.layers)
    assert relative_error(zoo_model("depthwise"), outcome.model) < 0.2


@pytest.mark.parametrize("calibration", ["minmax", "mse"])
def test_digits_keep_their_answers(calibration: str) -> None:
    model = zoo_model("small_residual_cnn")
    params = Quantize(calibration=calibration, samples=128)
    outcome = quantize.run(model.clone(), params, context(model, params, splits=digit_splits()))
    inputs, _ = digit_splits().sealed.prepare(np.arange(200))
    with torch.no_grad():
        before, after = (first_output(m.module(*inputs)) for m in (model, outcome.model))
    assert (before.argmax(1) == after.argmax(1)).float().mean() > 0.9
    assert outcome.facts["calibration"] == calibration
    assert outcome.facts["samples"] == 128


def test_mse_calibration_forgives_an_outlier_that_minmax_does_not() -> None:
    torch.manual_seed(0)
    model = canonical(nn.Sequential(nn.Linear(8, 8)).eval(), (torch.randn(2, 8),))
    batch = torch.randn(200_000, 8)
    batch[0, 0] = 20.0
    steps = {}
    for calibration in ("minmax", "mse"):
        graph = static.quantize_static(
            model.clone(), Quantize(calibration=calibration), ("0",), [(batch,)]
        ).module.graph
        first = next(node for node in graph.nodes if "quantize_per_tensor" in str(node.target))
        steps[calibration] = first.args[1]
    assert steps["mse"] < 0.8 * steps["minmax"]


def test_a_dead_channel_with_a_large_bias_does_not_overflow(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    with torch.no_grad():
        net[0].weight[2] = 0
        net[0].bias[2] = 50.0
    model = canonical(net, (torch.randn(2, 3, 6, 6),))
    inputs = (torch.randn(4, 3, 6, 6) * 1e-3,)
    after = static.quantize_static(model.clone(), Quantize(), ("0", "2"), [inputs])
    save_onnx(after, tmp_path / "model.onnx")
    got = answers(tmp_path / "model.onnx", inputs)[0]
    want = model.module(*inputs).detach().numpy()
    assert np.linalg.norm(got - want) < 0.05 * np.linalg.norm(want)


def test_keep_float_layers_stay_float_in_the_runtime(tmp_path: Path) -> None:
    outcome = quantized(zoo_model("small_residual_cnn"), Quantize(keep_float=("layer1.*",)))
    kept = {"layer1.conv1", "layer1.conv2"}
    assert {layer.name for layer in outcome.skipped} == kept
    assert {layer.why for layer in outcome.skipped} == {"named in keep_float"}
    save_onnx(outcome.model, tmp_path / "model.onnx")
    assert set(read_runtime_graph(tmp_path / "model.onnx").float_layers) == kept


def test_an_unmatched_pattern_names_near_layers() -> None:
    with pytest.raises(InvalidRecipe, match=r"layer1\.conv1") as caught:
        quantized(zoo_model("small_residual_cnn"), Quantize(keep_float=("layer1.conv9",)))
    assert caught.value.errors[0].pointer == "/recipe/0/keep_float/0"


def test_nothing_to_quantize_is_an_error_with_reasons() -> None:
    with pytest.raises(NothingChanged, match="keep_float"):
        quantized(zoo_model("mlp"), Quantize(keep_float=("*",)))


def test_a_plan_names_the_layers_that_the_run_changes() -> None:
    model = zoo_model("tiny_transformer")
    params = Quantize(keep_float=("head",))
    copy, plan = quantize.plan(model, params, context(model, params))
    outcome = quantized(model.clone(), params)
    assert copy is not model
    assert [layer.name for layer in plan.layers] == [layer.name for layer in outcome.layers]
    assert plan.layers_skipped == outcome.skipped


def test_without_data_the_facts_warn_about_noise() -> None:
    model = zoo_model("mlp")
    outcome = quantize.run(model, Quantize(samples=32), context(model, Quantize()))
    assert "noise" in str(outcome.facts["warning"])


def test_fewer_samples_than_asked_for_are_told() -> None:
    model = zoo_model("mlp")
    outcome = quantized(model, samples=40)
    assert "512 asked for" in str(outcome.facts["note"])
