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
        assert result.facts == {"batchnorm_folded": count, "batchnorm_kept": 0}
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
    assert result.skipped[0].why == "the model has no BatchNorm"


def test_switched_off_it_says_so():
    result = simplified(zoo_model("mlp"), Simplify(fold_batchnorm=False))
    assert not result.changed
    assert "fold_batchnorm is off" in result.skipped[0].why
