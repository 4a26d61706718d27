from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.contract.recipe import Simplify
from tests.engine.passes.models import NETS, canonical, context, zoo_model
from worker.engine.model import first_output
from worker.engine.passes import entry_for


def simplified(model, params=None):
    params = params or Simplify()
    return entry_for(params).run(model.clone(), params, context(model, params))


@pytest.mark.parametrize("name", NETS)
def test_folding_keeps_the_function(name):
    model = zoo_model(name)
    result = simplified(model)
    for batch in (2, 3):
        inputs = model.example(batch)
        with torch.no_grad():
            want, got = (
                first_output(model.module(*inputs)),
                first_output(result.model.module(*inputs)),
            )
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_every_batchnorm_after_a_convolution_or_linear_layer_goes():
    for name, count in (("small_residual_cnn", 6), ("depthwise", 7), ("mlp", 1)):
        result = simplified(zoo_model(name))
        assert (result.facts["batchnorm_folded"], result.facts["batchnorm_kept"]) == (count, 0)
        assert "batch_norm" not in str(result.model.module.graph)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in result.model.module.modules())


def test_a_batchnorm_after_a_concatenation_stays_and_the_reason_is_given():
    result = simplified(zoo_model("concat"))
    assert not result.changed
    (skipped,) = result.skipped
    assert skipped.name == "norm"
    assert "not the output of a convolution" in skipped.why


def test_a_layer_that_others_read_keeps_its_batchnorm():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return y + self.norm(y)

    result = simplified(canonical(Branch().eval(), (torch.randn(2, 1, 4, 4),)))
    assert not result.changed
    assert "read elsewhere" in result.skipped[0].why


def test_a_batchnorm_over_another_dimension_of_a_linear_layer_stays():
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(5))
    result = simplified(canonical(net.eval(), (torch.randn(2, 5, 6),)))
    assert not result.changed
    assert "features of the linear layer" in result.skipped[0].why


def test_without_batchnorm_nothing_changes_and_the_pass_says_so():
    result = simplified(zoo_model("tiny_transformer"))
    assert not result.changed
    assert result.skipped[0].why == (
        "the model has no BatchNorm, no constants to fold, no identities"
    )


def test_switched_off_it_says_so():
    off = Simplify(fold_batchnorm=False, fold_constants=False, remove_identities=False)
    result = simplified(zoo_model("mlp"), off)
    assert not result.changed
    assert result.skipped[0].why == "all is switched off"


class Roundabout(nn.Module):
    """A position table computed from a buffer, copies that copy, and two costly activations."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.arange(8.0))
        self.first = nn.Linear(8, 8)
        self.same = nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        table = torch.sin(self.steps * 0.5 + 1.0)
        x = self.same(self.first(x + table)).reshape(-1, 8).contiguous()
        x = torch.relu(torch.relu(x))
        return self.last(self.drop(torch.nn.functional.gelu(torch.nn.functional.silu(x))))


def roundabout():
    torch.manual_seed(0)
    return canonical(Roundabout().eval(), (torch.randn(2, 8),))


def outputs(model, batch=3):
    with torch.no_grad():
        return first_output(model.module(*model.example(batch)))


def test_constants_are_computed_once_and_identities_go():
    model = roundabout()
    result = simplified(model)
    text = result.model.module.code
    assert "aten.sin" not in text
    assert "reshape" not in text
    assert "contiguous" not in text
    assert text.count("relu") < model.module.code.count("relu")
    assert torch.equal(outputs(result.model), outputs(model))
    assert result.facts["constants_folded"] == 1


def test_dropout_stays_for_training():
    assert any(isinstance(m, nn.Dropout) for m in simplified(roundabout()).model.module.modules())


def test_trainable_arithmetic_is_no_constant():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return x * torch.exp(self.weight)

    model = canonical(Scaled().eval(), (torch.randn(2, 4),))
    assert not simplified(model).changed


def test_costly_activations_are_swapped_and_cheap_ones_stay():
    model = roundabout()
    result = simplified(model, Simplify(activation="hardswish"))
    kinds = [type(m) for m in result.model.module.modules()]
    assert kinds.count(nn.Hardswish) == 2
    assert nn.ReLU in kinds
    assert not {nn.GELU, nn.SiLU} & set(kinds)
    assert result.facts["activations_swapped"] == 2
    assert sorted(layer.what for layer in result.layers if "→" in layer.what) == [
        "gelu → hardswish",
        "silu → hardswish",
    ]


def test_a_model_without_costly_activations_is_left_alone():
    result = simplified(zoo_model("small_residual_cnn"), Simplify(activation="relu"))
    assert result.facts["activations_swapped"] == 0
