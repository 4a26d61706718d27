"""fp8 on any machine: rounding and the weight-only layer; products in fp8 need a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.contract.checks import check_recipe
from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Quantize
from planish.contract.spec import Spec
from tests.engine.passes.models import canonical, context
from tests.zoo import seeded
from worker.engine.measure.size import count_parameters
from worker.engine.passes import quantize
from worker.engine.quantize.float8 import LARGEST, to_float8
from worker.engine.save.program import export_program


@pytest.mark.parametrize("whole", [False, True])
def test_the_largest_value_of_a_row_becomes_the_largest_fp8(whole: bool) -> None:
    values = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    rounded, scale = to_float8(values, whole=whole)
    assert scale.shape == ((1, 1) if whole else (5, 1))
    largest = rounded.float().abs().amax(1)
    assert (largest.max() if whole else largest.min()) == LARGEST
    back = rounded.float() * scale
    # Three bits of mantissa: at most 1/16 of the value, or half a step of the least exponent.
    assert ((back - values).abs() <= values.abs() / 16 + scale * 2**-10).all()


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("mode", ["weight_only", "dynamic"])
def test_fp8_keeps_the_function_and_can_be_exported(mode: str, granularity: str) -> None:
    model = canonical(*seeded(lambda: nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 10)), (2, 64)))
    params = Quantize(mode=mode, dtype="fp8", granularity=granularity)
    outcome = quantize.run(model.clone(), params, context(model, params))
    names = [layer.name for layer in outcome.model.quantization.layers]
    assert names == (["0", "1"] if mode == "weight_only" else ["0"])  # 10 is no multiple of 16
    assert count_parameters(outcome.model).total == count_parameters(model).total
    inputs = model.example(6)
    want, got = model.module(*inputs), outcome.model.module(*inputs)
    assert (got - want).norm() < 0.06 * want.norm()
    exported = export_program(outcome.model).module(check_guards=False)
    assert torch.equal(exported(*inputs), got)


@pytest.mark.parametrize("mode", ["weight_only", "dynamic"])
def test_fp8_is_refused_without_a_gpu(mode: str) -> None:
    document = {
        "recipe": [{"op": "quantize", "mode": mode, "dtype": "fp8"}],
        "target": {"runtime": "torch"},
    }
    with pytest.raises(InvalidRecipe, match="GPU"):
        check_recipe(Spec.model_validate(document), has_data=True, has_targets=True)
