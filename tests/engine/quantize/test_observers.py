"""Ranges of activations, checked on values whose right range is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from planish.contract.recipe import Quantize
from tests.engine.passes.models import canonical, context, digit_splits, zoo_model
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.passes import quantize
from worker.engine.quantize.observers import activation_observer
from worker.engine.save.onnx import save_onnx

UNSIGNED = {"dtype": torch.uint8, "qscheme": torch.per_tensor_affine}


def observed(values: torch.Tensor, batches: int = 4, **params: object) -> tuple[float, float]:
    """Return the lowest and highest value that the found scale and zero point can hold."""
    observer = activation_observer(Quantize(**params))(quant_min=0, quant_max=255, **UNSIGNED)
    for batch in values.chunk(batches):
        observer(batch)
    scale, zero_point = observer.calculate_qparams()
    return float(-zero_point * scale), float((255 - zero_point) * scale)


def normal(count: int = 100_000) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def test_minmax_holds_everything() -> None:
    values = normal()
    low, high = observed(values, calibration="minmax")
    assert low == pytest.approx(float(values.min()), rel=0.02)
    assert high == pytest.approx(float(values.max()), rel=0.02)


@pytest.mark.parametrize(("share", "edge"), [(99.0, 2.576), (95.0, 1.96), (90.0, 1.645)])
def test_percentile_cuts_half_of_the_rest_on_each_side(share: float, edge: float) -> None:
    low, high = observed(normal(), calibration="percentile", percentile=share)
    assert (low, high) == pytest.approx((-edge, edge), rel=0.03)


def test_percentile_of_values_above_zero_cuts_above_only() -> None:
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    low, high = observed(values, calibration="percentile", percentile=90.0)
    assert low == 0
    assert high == pytest.approx(0.9, abs=0.01)


def test_a_whole_percentile_is_minmax() -> None:
    assert observed(normal(), calibration="percentile", percentile=100.0) == pytest.approx(
        observed(normal(), calibration="minmax"), rel=0.02
    )


@pytest.mark.parametrize("calibration", ["mse", "entropy"])
def test_one_far_value_among_many_is_cut(calibration: str) -> None:
    values = normal(2_000_000).abs()
    values[0] = 40.0
    low, high = observed(values, batches=1, calibration=calibration)
    assert low == 0
    assert 2 < high < 25


def test_mse_keeps_a_range_that_is_evenly_filled() -> None:
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    assert observed(values, calibration="mse")[1] == pytest.approx(1.0, abs=0.01)


def test_entropy_keeps_a_range_that_is_evenly_filled() -> None:
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    assert observed(values, calibration="entropy")[1] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("calibration", ["mse", "entropy"])
def test_the_zeros_behind_a_relu_do_not_outweigh_the_rest(calibration: str) -> None:
    values = normal().relu()
    _, high = observed(values, calibration=calibration)
    assert high > 0.6 * float(values.max())


def test_mse_is_the_best_of_all_cuts_tried() -> None:
    values = normal() ** 3  # heavy tails
    errors = {}
    for name, (low, high) in {
        "mse": observed(values, calibration="mse"),
        "minmax": observed(values, calibration="minmax"),
        "half": tuple(edge / 2 for edge in observed(values, calibration="mse")),
    }.items():
        step = (high - low) / 255
        rounded = ((values / step).round() * step).clamp(low, high)
        errors[name] = float((rounded - values).square().mean())
    assert errors["mse"] < errors["minmax"]
    assert errors["mse"] < errors["half"]


def test_a_moving_average_forgets_what_was_long_ago() -> None:
    values = torch.cat([torch.linspace(0, 10, 100), *[torch.linspace(0, 1, 100)] * 30])
    _, high = observed(values, batches=31, calibration="moving_average")
    assert 1.0 < high < 2.0


@pytest.mark.parametrize("calibration", ["moving_average", "entropy", "percentile", "mse"])
def test_every_calibration_ends_in_integer_kernels(calibration: str, tmp_path: Path) -> None:
    model = zoo_model("mlp")
    params = Quantize(calibration=calibration, samples=64, algorithm="rtn")
    outcome = quantize.run(model, params, context(model, params))
    save_onnx(outcome.model, tmp_path / "int8.onnx")
    graph = read_runtime_graph(tmp_path / "int8.onnx")
    assert graph.integer_layers == len(outcome.layers) > 0
    assert graph.float_layers == ()


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_uint8_weights_run_on_integer_kernels(granularity: str, tmp_path: Path) -> None:
    model = zoo_model("small_residual_cnn")
    params = Quantize(dtype="uint8", granularity=granularity, samples=64)
    outcome = quantize.run(model, params, context(model, params, splits=digit_splits()))
    state = outcome.model.module.state_dict()
    assert all(state[f"{layer.name}.weight"].dtype == torch.uint8 for layer in outcome.layers)
    save_onnx(outcome.model, tmp_path / "uint8.onnx")
    graph = read_runtime_graph(tmp_path / "uint8.onnx")
    assert graph.integer_layers == len(outcome.layers)
    assert graph.float_layers == ()


def test_uint8_per_tensor_spends_no_level_on_values_that_do_not_occur() -> None:
    net = nn.Sequential(nn.Linear(16, 16)).eval()
    with torch.no_grad():
        net[0].weight.uniform_(0.0, 1.0)
    model = canonical(net, (torch.randn(2, 16),))
    scales = {}
    for dtype in ("int8", "uint8"):
        params = Quantize(dtype=dtype, granularity="tensor", samples=32)
        (layer,) = quantize.run(
            model.clone(), params, context(model, params)
        ).model.quantization.layers
        scales[dtype] = layer.scale[0]
    assert scales["uint8"] == pytest.approx(scales["int8"] / 2, rel=0.01)
