"""What each ranking of channels says, on networks where the right answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.contract.recipe import Prune
from tests.engine.passes.models import canonical, context, noise_splits, zoo_model
from tests.zoo import seeded
from worker.engine.model import Model
from worker.engine.passes import Outcome, entry_for
from worker.engine.passes.layers import out_channels, weighted_layers


def pruned(model: Model, params: Prune, seed: int = 0, data: bool = True) -> Outcome:
    splits = noise_splits(model) if data else None
    ctx = context(model, params, splits=splits, seed=seed)
    return entry_for(params).run(model, params, ctx)


def widths(model: Model) -> dict[str, int]:
    return {name: out_channels(m) for name, m in weighted_layers(model.module).items()}


def chain() -> tuple[Model, torch.Tensor]:
    """Return conv-bn-relu-conv-mean-linear, and the weight of its first layer."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(torch.relu(self.norm(self.first(x))).mean((2, 3)))

    model = canonical(*seeded(Net, (2, 1, 8, 8)))
    return model, model.module.first.weight


def kept(before: torch.Tensor, after: Model) -> list[int]:
    """Return which filters of the first layer are still there."""
    rows = after.module.first.weight
    return [i for i, row in enumerate(before) if any(torch.equal(row, r) for r in rows)]


def test_bn_scale_keeps_the_channels_of_largest_gamma():
    model, weight = chain()
    with torch.no_grad():
        model.module.norm.weight.copy_(torch.tensor([9.0, 1, 8, 2, -7, 3, 6, 0]))
    thin = pruned(model, Prune(method="bn_scale", round_to=1, recalibrate=False)).model
    assert kept(weight, thin) == [0, 2, 4, 6]


def test_bn_scale_says_which_layers_have_no_batchnorm():
    layers = seeded(lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), (2, 8))
    result = pruned(canonical(*layers), Prune(method="bn_scale", round_to=1))
    assert "no BatchNorm scales its channels: ranked by magnitude" in result.layers[0].what


def test_fpgm_removes_filters_near_the_geometric_median_however_large_they_are():
    model, weight = chain()
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) + 5)
        weight[[1, 3, 5, 7]] = 5.0 + 0.01 * weight[[1, 3, 5, 7]]
    thin = pruned(model, Prune(method="fpgm", round_to=1, recalibrate=False)).model
    assert kept(weight, thin) == [0, 2, 4, 6]


@pytest.mark.parametrize("method", ["taylor", "gradient"])
def test_first_order_rankings_drop_channels_that_the_loss_does_not_see(method):
    model, weight = chain()
    with torch.no_grad():
        model.module.head.weight[:, [0, 1, 2, 3]] = 0.0  # large filters that nobody reads
        weight[:4] *= 100
        model.module.norm.running_var[:4] *= 10_000
    params = Prune(method=method, round_to=1, samples=16, recalibrate=False)
    if method == "gradient":
        model.module.norm.bias.data[:4] = -100.0  # closed by the activation: no gradient at all
    assert kept(weight, pruned(model, params).model) == [4, 5, 6, 7]


def test_statistics_are_estimated_anew_on_data_and_only_then():
    model = zoo_model("small_residual_cnn")
    with_data = pruned(model, Prune(round_to=1))
    without = pruned(model, Prune(round_to=1), data=False)
    assert with_data.facts["recalibrated"] is True
    assert without.facts["recalibrated"] is False
    means = [r.model.module.get_submodule("layer2.bn2").running_mean for r in (with_data, without)]
    assert not torch.equal(*means)


def test_a_global_ranking_compares_layers_by_their_own_mean_and_closes_none():
    model = canonical(
        *seeded(
            lambda: nn.Sequential(
                nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
            ),
            (2, 8),
        )
    )
    with torch.no_grad():
        model.module.get_submodule("0").weight *= 0.001  # a matter of scale alone
    even = widths(pruned(model, Prune(scope="global", round_to=1)).model)
    assert abs(even["0"] - even["2"]) < 16
    with torch.no_grad():
        model.module.get_submodule("2").weight[:31] *= 0.001
        model.module.get_submodule("4").weight[:, :31] *= 0.001
    skewed = widths(pruned(model, Prune(scope="global", round_to=1)).model)
    assert skewed["2"] == 8  # half of what the same share everywhere would leave
