from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.contract.errors import InvalidRecipe, NothingChanged
from planish.contract.recipe import LowRank
from tests.engine.passes.models import NETS, canonical, context, zoo_model
from worker.engine.measure.macs import count_macs
from worker.engine.model import first_output
from worker.engine.passes import entry_for


def split_up(model, **params):
    recipe = LowRank(**params)
    return entry_for(recipe).run(model.clone(), recipe, context(model, recipe))


def answer(model, batch: int = 3):
    with torch.no_grad():
        return first_output(model.module(*model.example(batch)))


def planted(layer: nn.Module, rank: int) -> nn.Module:
    """Give a layer a weight of exactly this rank."""
    rows, columns = layer.weight.flatten(1).shape
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, rank, generator=generator)
    right = torch.randn(rank, columns, generator=generator)
    layer.weight.data = (left @ right / columns).reshape(layer.weight.shape)
    return layer


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(24, 32), (2, 24)),
        (nn.Conv2d(8, 16, 3, stride=2, padding=1, padding_mode="zeros"), (2, 8, 9, 9)),
        (nn.Conv1d(8, 16, 5, dilation=2, bias=False), (2, 8, 20)),
    ],
    ids=["linear", "conv2d", "conv1d"],
)
def test_a_weight_of_low_rank_is_found_and_split_without_loss(layer, shape) -> None:
    torch.manual_seed(0)
    model = canonical(nn.Sequential(planted(layer, 3)).eval(), (torch.randn(*shape),))
    result = split_up(model, energy=0.999999)
    (found,) = result.facts["ranks"].values()
    assert found["rank"] == 3
    torch.testing.assert_close(answer(result.model), answer(model), rtol=1e-4, atol=1e-5)
    assert count_macs(result.model) < count_macs(model)


def test_energy_is_the_share_of_squared_singular_values() -> None:
    layer = nn.Linear(16, 16, bias=False)
    layer.weight.data = torch.diag(torch.tensor([4.0, 3.0, *[0.5] * 14]))
    model = canonical(nn.Sequential(layer).eval(), (torch.randn(2, 16),))
    # 16 + 9 of 28.5: two values hold 87.7 % of the energy.
    (found,) = split_up(model, energy=0.87).facts["ranks"].values()
    assert (found["rank"], found["energy"]) == (2, round(25 / 28.5, 4))


def test_a_bias_goes_with_the_second_half_and_gradients_reach_both() -> None:
    model = canonical(nn.Sequential(nn.Linear(32, 32)).eval(), (torch.randn(2, 32),))
    module = split_up(model, rank=4).model.module
    layers = dict(module.named_modules())
    assert layers["0.reduce"].bias is None
    assert torch.equal(layers["0.expand"].bias, model.module.get_submodule("0").bias)
    first_output(module(*model.example())).sum().backward()
    assert layers["0.reduce"].weight.grad is not None


@pytest.mark.parametrize("name", NETS)
def test_every_net_keeps_its_output_shapes_and_says_what_it_left_whole(name: str) -> None:
    model = zoo_model(name)
    result = split_up(model, energy=0.3)
    assert answer(result.model).shape == answer(model).shape
    assert result.facts["params"][1] < result.facts["params"][0]
    assert all(layer.why for layer in result.skipped)


def test_depthwise_kernels_stay_whole_and_the_reason_is_given() -> None:
    result = split_up(zoo_model("depthwise"), energy=0.3)
    assert {s.name: s.why for s in result.skipped}["block1.3"] == (
        "its groups are small products already"
    )


def test_tied_weights_stay_whole() -> None:
    result = split_up(zoo_model("tied"), energy=0.3)
    assert "shares its weight with" in {s.name: s.why for s in result.skipped}["head"]


def test_a_layer_named_in_ignore_stays_whole() -> None:
    result = split_up(zoo_model("mlp"), energy=0.3, ignore=("0",))
    assert {s.name: s.why for s in result.skipped}["0"] == "named in ignore"


def test_an_unknown_layer_in_ignore_is_refused() -> None:
    with pytest.raises(InvalidRecipe, match="no layer is called"):
        split_up(zoo_model("mlp"), energy=0.3, ignore=("nothing",))


def test_a_rank_that_saves_nothing_is_an_error_with_the_numbers() -> None:
    with pytest.raises(NothingChanged, match="at rank 16 its two parts hold"):
        split_up(zoo_model("mlp"), rank=64)
