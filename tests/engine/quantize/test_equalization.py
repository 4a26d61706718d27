"""Scales move between layers, and the function stays."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.engine.passes.models import NETS, canonical, zoo_model
from tests.engine.quantize.conftest import Trained, folded
from tests.zoo import seeded
from worker.engine.model import Model, first_output
from worker.engine.quantize.equalization import coupled_layers, equalize


def outputs(model: Model) -> Tensor:
    with torch.no_grad():
        return first_output(model.module(*model.example(8, seed=3)))


def ranges(model: Model, layer: str, dims: tuple[int, ...]) -> Tensor:
    return model.module.get_submodule(layer).weight.detach().abs().amax(dims)


@pytest.mark.parametrize("name", NETS)
def test_the_function_of_every_zoo_network_stays(name: str) -> None:
    before = folded(zoo_model(name))
    after, _ = equalize(before)
    assert (outputs(after) - outputs(before)).abs().max() < 1e-5 * outputs(
        before
    ).abs().max() + 1e-6


def test_scaled_channels_are_balanced_again(digits_net: Trained) -> None:
    after, pairs = equalize(digits_net.scaled)
    assert len(pairs) >= 6
    made = ranges(after, "blocks.0.up.0", (1, 2, 3))
    read = ranges(after, "blocks.0.depthwise.0", (1, 2, 3))
    assert torch.allclose(made, read, rtol=0.02)
    before = ranges(digits_net.scaled, "blocks.0.up.0", (1, 2, 3))
    assert before.max() / before.min() > 100 * (made.max() / made.min())
    want = outputs(digits_net.scaled)
    assert (outputs(after) - want).abs().max() < 1e-5 * want.abs().max()


def test_the_original_is_left_alone(digits_net: Trained) -> None:
    before = copy.deepcopy(digits_net.scaled.module.state_dict())
    equalize(digits_net.scaled)
    after = digits_net.scaled.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Fork(nn.Module):
    """The first layer's output is read twice; the second pair is coupled by a flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Conv2d(4, 4, 1)
        self.last = nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.left(x)) + self.right(x)
        return self.last(torch.relu(x).flatten(1))


def test_a_value_with_two_readers_couples_nobody() -> None:
    model = canonical(*seeded(Fork, (2, 3, 4, 4)))
    assert list(coupled_layers(model.module)) == []


def test_a_linear_layer_behind_flattened_channels_is_coupled() -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 5),
        )

    before = canonical(*seeded(build, (2, 3, 4, 4)))
    after, pairs = equalize(before)
    assert [(pair.first, pair.second) for pair in pairs] == [("0", "4")]
    made = ranges(after, "0", (1, 2, 3))
    read = ranges(after, "4", (0,)).reshape(4, 4).amax(1)
    assert torch.allclose(made, read, rtol=0.01)
    assert (outputs(after) - outputs(before)).abs().max() < 1e-5


@pytest.mark.parametrize("between", [nn.ReLU6(), nn.GELU(), nn.Sigmoid()])
def test_no_scale_passes_what_is_not_homogeneous(between: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), between, nn.Conv2d(4, 4, 1)).eval()
    model = canonical(net, (torch.randn(2, 3, 4, 4),))
    assert equalize(model)[1] == ()


def test_grouped_convolutions_keep_their_function() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4))

    before = canonical(*seeded(build, (2, 4, 5, 5)))
    with torch.no_grad():
        before.module.get_submodule("0").weight[3] *= 50
    after, pairs = equalize(before)
    assert len(pairs) == 1
    assert (outputs(after) - outputs(before)).abs().max() < 1e-5 * outputs(before).abs().max()
