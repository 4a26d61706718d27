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
from worker.engine.quantize.equalization import equalize
from worker.engine.quantize.streams import streams


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
    after, found = equalize(digits_net.scaled)
    assert len(found) >= 6
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


class Residual(nn.Module):
    """Two layers make the channels of one stream, three read them; one of the sums is an output."""

    def __init__(self, *, shown: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.up, self.down = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.side = nn.Conv2d(4, 2, 1)
        self.last = nn.Linear(4 * 16, 5)
        self.shown = shown

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = torch.relu(self.stem(x))
        y = x + self.down(torch.relu(self.up(x)))
        outputs = self.last(y.flatten(1)), self.side(y)
        return (*outputs, y) if self.shown else outputs


def test_a_residual_stream_is_scaled_as_one() -> None:
    before = canonical(*seeded(lambda: Residual(shown=False), (2, 3, 4, 4)))
    with torch.no_grad():  # scale the stream: what makes it, and what reads it
        factor = torch.tensor([100.0, 1.0, 0.05, 7.0])
        for name in ("stem", "down"):
            layer = before.module.get_submodule(name)
            layer.weight.mul_(factor[:, None, None, None])
            layer.bias.mul_(factor)
        for name in ("up", "side"):
            before.module.get_submodule(name).weight.div_(factor[:, None, None])
        before.module.get_submodule("last").weight.div_(factor.repeat_interleave(16))
    after, found = equalize(before)
    assert {(stream.makers, stream.readers) for stream in found} == {
        (("stem", "down"), ("up", "last", "side")),
        (("up",), ("down",)),
    }
    made = torch.stack([ranges(after, name, (1, 2, 3)) for name in ("stem", "down")]).amax(0)
    assert made.max() / made.min() < 10
    want = outputs(before)
    assert (outputs(after) - want).abs().max() < 1e-5 * want.abs().max()


def test_a_stream_that_is_an_output_is_left_alone() -> None:
    model = canonical(*seeded(lambda: Residual(shown=True), (2, 3, 4, 4)))
    assert [stream.words() for stream in streams(model)] == ["up → down"]


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
    after, found = equalize(before)
    assert [stream.words() for stream in found] == ["0 → 4"]
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
    after, found = equalize(before)
    assert len(found) == 1
    assert (outputs(after) - outputs(before)).abs().max() < 1e-5 * outputs(before).abs().max()
