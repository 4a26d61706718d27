"""Outliers move from activations into weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from planish.contract.recipe import Quantize
from tests.engine.passes.models import canonical, context, noise_splits, zoo_model
from tests.zoo import seeded
from worker.engine.model import Model, first_output
from worker.engine.passes import quantize
from worker.engine.quantize.smoothquant import smooth


class Outliers(nn.Module):
    """Three readers behind one LayerNorm with two loud channels, and a GELU before the last."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
        self.out = nn.Linear(16, 8)
        with torch.no_grad():
            self.norm.weight[[3, 11]] = 60.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        mixed = self.q(x) * torch.sigmoid(self.k(x)) + self.v(x)
        return self.out(nn.functional.gelu(mixed))


def outlier_model() -> Model:
    return canonical(*seeded(Outliers, (2, 6, 16)))


def outputs(model: Model) -> Tensor:
    with torch.no_grad():
        return first_output(model.module(*model.example(8, seed=3)))


def test_readers_of_one_value_share_a_scale_that_goes_into_the_normalization() -> None:
    before = outlier_model()
    samples = noise_splits(before).train
    after, done = smooth(before, ("q", "k", "v", "out"), samples)
    by_layers = {item.layers: item for item in done}
    assert by_layers[("q", "k", "v")].into == "norm"
    assert by_layers[("q", "k", "v")].range_after < by_layers[("q", "k", "v")].range_before / 4
    assert by_layers[("out",)].into is None
    want = outputs(before)
    assert (outputs(after) - want).abs().max() < 1e-5 * want.abs().max()


def test_layers_that_are_not_named_stay() -> None:
    before = outlier_model()
    after, done = smooth(before, ("out",), noise_splits(before).train)
    assert [item.layers for item in done] == [("out",)]
    assert torch.equal(
        after.module.get_submodule("norm").weight, before.module.get_submodule("norm").weight
    )


def test_the_transformer_of_the_zoo_keeps_its_function() -> None:
    before = zoo_model("tiny_transformer")
    names = tuple(n for n, m in before.module.named_modules() if isinstance(m, nn.Linear))
    after, done = smooth(before, names, noise_splits(before).train)
    assert done
    want = outputs(before)
    assert (outputs(after) - want).abs().max() < 1e-5 * want.abs().max() + 1e-6


def test_smoothquant_brings_static_integers_nearer_to_float() -> None:
    model = outlier_model()
    splits = noise_splits(model, samples=300)
    reached = {}
    for algorithm in ("rtn", "smoothquant"):
        params = Quantize(algorithm=algorithm)
        outcome = quantize.run(model.clone(), params, context(model, params, splits=splits))
        reached[algorithm] = outcome.facts["sqnr_db"]
    assert reached["smoothquant"] > reached["rtn"] + 1
