from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Cast
from tests.engine.passes.models import NETS, canonical, context, noise_splits, zoo_model
from worker.engine.measure.reload import check_reload
from worker.engine.model import first_output
from worker.engine.passes import entry_for
from worker.engine.passes.layers import weighted_layers
from worker.engine.save.onnx import save_onnx
from worker.engine.save.pt2 import save_pt2


def cast(model, splits=None, **params):
    recipe = Cast(**params)
    return entry_for(recipe).run(model.clone(), recipe, context(model, recipe, splits=splits))


def answer(model, batch: int = 3):
    with torch.no_grad():
        return first_output(model.module(*model.example(batch)))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("name", NETS)
def test_outputs_stay_float32_and_near_the_original(name: str, dtype: str) -> None:
    model = zoo_model(name)
    result = cast(model, dtype=dtype)
    got, want = answer(result.model), answer(model)
    assert got.dtype == torch.float32
    # A few roundings of 11 or 8 bits each.
    assert (got - want).norm() < {"fp16": 2e-3, "bf16": 2e-2}[dtype] * want.norm()
    kinds = {layer.weight.dtype for layer in weighted_layers(result.model.module).values()}
    assert kinds == {result.model.precision}


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ["small_residual_cnn", "tiny_transformer"])
def test_artifacts_open_in_a_fresh_process_and_are_half_as_large(
    name: str, dtype: str, tmp_path: Path
) -> None:
    model = zoo_model(name)
    result = cast(model, dtype=dtype).model
    paths = [tmp_path / "model.pt2", tmp_path / "model.onnx"]
    save_pt2(result, paths[0])
    save_onnx(result, paths[1])
    assert check_reload(result, paths, threads=1).ok
    save_onnx(model, tmp_path / "float.onnx")
    assert _constant_bytes(paths[1]) < 0.6 * _constant_bytes(tmp_path / "float.onnx")


def _constant_bytes(path: Path) -> int:
    return sum(len(tensor.raw_data) for tensor in onnx.load(path).graph.initializer)


def test_a_layer_whose_values_leave_the_range_of_fp16_stays_float32() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)).eval()
    with torch.no_grad():
        net[1].weight *= 1e6
        net[2].weight *= 1e-6
    model = canonical(net, (torch.randn(2, 8),))
    result = cast(model, splits=noise_splits(model))
    # The layer that gives them, and the one that reads them.
    assert [kept.name for kept in result.skipped] == ["1", "2"]
    assert all("leave fp16's range" in kept.why for kept in result.skipped)
    assert (answer(result.model) - answer(model)).norm() < 2e-3 * answer(model).norm()
    assert cast(model, splits=noise_splits(model), dtype="bf16").skipped == ()


def test_a_mask_that_fp16_cannot_hold_is_applied_in_float32() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = self.linear(x).masked_fill(x < 0, torch.finfo(torch.float32).min)
            return scores.softmax(-1)

    model = canonical(Masked().eval(), (torch.randn(4, 6),))
    result = cast(model)
    assert result.facts["float32_operators"]
    torch.testing.assert_close(answer(result.model), answer(model), rtol=1e-2, atol=1e-3)


def test_layers_named_in_keep_float_stay_float32() -> None:
    result = cast(zoo_model("mlp"), keep_float=("0",))
    layers = weighted_layers(result.model.module)
    assert layers["0"].weight.dtype == torch.float32
    assert layers["3"].weight.dtype == torch.float16
    assert [(s.name, s.why) for s in result.skipped] == [("0", "named in keep_float")]


def test_layers_that_share_a_weight_stay_together() -> None:
    result = cast(zoo_model("tied"), keep_float=("head",))
    assert {s.name for s in result.skipped} == {"head", "embed"}
    assert torch.isfinite(answer(result.model)).all()


def test_keeping_everything_float_is_an_error() -> None:
    with pytest.raises(NothingChanged, match="no layer can become fp16"):
        cast(zoo_model("mlp"), keep_float=("*",))


def test_without_data_fp16_warns_that_ranges_come_from_noise() -> None:
    model = zoo_model("mlp")
    assert "synthetic noise" in cast(model).facts["warning"]
    assert "warning" not in cast(model, splits=noise_splits(model)).facts
