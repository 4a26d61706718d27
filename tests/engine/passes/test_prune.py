from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish.contract.errors import InvalidRecipe, NothingChanged
from planish.contract.recipe import Prune, Quantize
from planish.contract.spec import Target
from tests.engine.passes.models import canonical, context, same_weights, weights, zoo_model
from tests.zoo import seeded, small_residual_cnn, tiny_transformer
from worker.engine.model import Model, first_output
from worker.engine.passes import Outcome, entry_for
from worker.engine.passes.layers import operator_name, out_channels, weighted_layers
from worker.engine.passes.prune.alignment import preferred_multiple


def pruned(model: Model, params: Prune, *later, seed: int = 0) -> Outcome:
    return entry_for(params).run(model, params, context(model, params, *later, seed=seed))


def widths(model: Model) -> dict[str, int]:
    return {name: out_channels(m) for name, m in weighted_layers(model.module).items()}


def why(result: Outcome) -> dict[str, str]:
    return {layer.name: layer.why for layer in result.skipped}


def silence(model: Model, readers: dict[str, list[int]]) -> torch.Tensor:
    """Run the model with the weights that read the given input channels set to zero."""
    model = model.clone()
    with torch.no_grad():
        for name, channels in readers.items():
            model.module.get_submodule(name).weight[:, channels] = 0
        return first_output(model.module(*model.example()))


def test_half_the_channels_go_and_residual_sums_still_fit():
    model = zoo_model("small_residual_cnn")
    result = pruned(model, Prune(round_to=1))
    assert widths(result.model) == {
        "conv1": 8,
        "layer1.conv1": 8,
        "layer1.conv2": 8,
        "layer2.conv1": 16,
        "layer2.conv2": 16,
        "layer2.shortcut.0": 16,
        "linear": 10,
    }
    assert result.facts["channels"]["layer2.conv1"] == [32, 16]
    assert result.facts["params"][0] > 3 * result.facts["params"][1]
    assert result.facts["macs"][0] > 3 * result.facts["macs"][1]
    assert why(result) == {"linear": "its channels are the model's output"}


def test_the_thin_network_computes_what_the_wide_one_does_without_those_channels():
    module, example = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 5, 3)
        ),
        (2, 2, 8, 8),
    )
    model = canonical(module, example)
    thin = pruned(model, Prune(round_to=1)).model
    norms = model.module.get_submodule("0").weight.flatten(1).norm(dim=1)
    kept = thin.module.get_submodule("0").weight.flatten(1).norm(dim=1)
    gone = [i for i, norm in enumerate(norms) if not torch.isclose(kept, norm).any()]
    assert len(gone) == 6
    with torch.no_grad():
        got = first_output(thin.module(*model.example()))
    torch.testing.assert_close(got, silence(model, {"3": gone}), rtol=1e-4, atol=1e-5)


def test_running_statistics_of_kept_channels_are_untouched():
    model = zoo_model("small_residual_cnn")
    thin = pruned(model, Prune(round_to=1)).model.module.get_submodule("bn1")
    wide = model.module.get_submodule("bn1")
    assert set(thin.running_mean.tolist()) < set(wide.running_mean.tolist())
    assert int(thin.num_batches_tracked) == int(wide.num_batches_tracked)


def test_the_model_it_was_given_stays_as_it_was():
    model = zoo_model("depthwise")
    before = weights(model)
    pruned(model, Prune(round_to=1))
    assert same_weights(before, weights(model))


def test_attention_heads_are_removed_whole_and_views_follow():
    model = zoo_model("tiny_transformer")
    result = pruned(model, Prune(round_to=1, ignore=("embed",)))
    after = widths(result.model)
    assert after["block.q"] == after["block.k"] == after["block.v"] == 8
    assert after["block.up"] == 16
    assert after["block.out"] == 16
    out = result.model.module.get_submodule("block.out").weight
    wide = model.module.get_submodule("block.out").weight
    first = torch.equal(out, wide[:, :8])
    assert first or torch.equal(out, wide[:, 8:])
    gone_up = [
        i
        for i, column in enumerate(model.module.get_submodule("block.down").weight.T)
        if not any(
            torch.equal(column, c) for c in result.model.module.get_submodule("block.down").weight.T
        )
    ]
    gone = {"block.out": list(range(8, 16) if first else range(8)), "block.down": gone_up}
    with torch.no_grad():
        got = first_output(result.model.module(*model.example()))
    torch.testing.assert_close(got, silence(model, gone), rtol=1e-4, atol=1e-5)


class Padded(nn.Module):
    """A stage of 8 channels, then one of 16, whose shortcut adds four zero channels each side."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.wide(F.relu(self.inner(x)))
        y = F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.head(y.mean((2, 3)))


def pads(model: Model) -> list[int]:
    (node,) = (n for n in model.module.graph.nodes if operator_name(n) == "pad")
    return list(node.args[1][-2:])


def test_channels_behind_a_shortcut_padded_with_zeros_go_and_the_padding_follows():
    model = canonical(*seeded(Padded, (2, 1, 8, 8)))
    with torch.no_grad():
        model.module.wide.weight[:3] *= 0.01  # padded places of the wide stage
    thin = pruned(model, Prune(round_to=1, sparsity=0.25)).model
    assert widths(thin) == {"stem": 6, "inner": 6, "wide": 12, "head": 3}
    assert pads(thin) == [2, 4]


def test_the_narrow_stage_decides_about_the_channels_that_a_padded_shortcut_shares():
    thin = pruned(canonical(*seeded(Padded, (2, 1, 8, 8))), Prune(round_to=8, sparsity=0.5)).model
    assert widths(thin) == {"stem": 8, "inner": 8, "wide": 8, "head": 3}
    assert pads(thin) == [0, 0]


def test_a_softmax_over_channels_is_left_alone():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(torch.relu(self.second(self.first(x).softmax(1))))

    result = pruned(canonical(*seeded(Gate, (2, 6))), Prune(round_to=1))
    assert widths(result.model) == {"first": 8, "second": 4, "head": 3}
    assert "softmax mixes" in why(result)["first"]


def test_a_channel_shuffle_loses_as_much_in_each_half():
    class Shuffle(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            y = self.first(x)
            n, c, h, w = y.shape
            y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            return self.head(torch.relu(self.second(y)).mean((2, 3)))

    result = pruned(canonical(*seeded(Shuffle, (2, 2, 4, 4))), Prune(round_to=1, sparsity=0.3))
    assert widths(result.model) == {"first": 6, "second": 6, "head": 3}


def test_flattened_maps_lose_all_positions_of_a_channel():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8 * 4 * 4, 3)

        def forward(self, x):
            return self.head(F.relu(self.conv(x)).view(x.shape[0], 8 * 4 * 4))

    result = pruned(canonical(*seeded(Flat, (2, 1, 6, 6))), Prune(round_to=1))
    assert widths(result.model)["conv"] == 4
    assert result.model.module.get_submodule("head").in_features == 4 * 16


def test_grouped_convolutions_lose_as_many_channels_in_each_group():
    module, example = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 16, 1),
            nn.GroupNorm(2, 16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, groups=4),
            nn.ReLU(),
            nn.Conv2d(16, 3, 1),
        ),
        (2, 2, 8, 8),
    )
    result = pruned(canonical(module, example), Prune(round_to=1, sparsity=0.4))
    after = widths(result.model)
    assert after["0"] in (8, 12)
    assert after["3"] in (8, 12)
    assert result.model.module.get_submodule("3").groups == 4


def test_kept_channels_are_the_nearest_multiple_and_never_none():
    def build(width):
        return seeded(
            lambda: nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4)), (2, 8)
        )

    for width, sparsity, round_to, kept in (
        (64, 0.4, 16, 32),  # 38.4: 32 is nearer than 48
        (64, 0.3, 16, 48),  # 44.8
        (48, 0.5, 16, 32),  # 24 lies between: more is kept
        (64, 0.99, 16, 16),
        (10, 0.99, 1, 1),
        (10, 0.5, 1, 5),
    ):
        result = pruned(canonical(*build(width)), Prune(sparsity=sparsity, round_to=round_to))
        assert widths(result.model)["0"] == kept
        said = result.layers[0].what
        assert said.startswith(f"{width} → {kept} channels")
        assert ("the least" in said) == (sparsity == 0.99)


def test_multiples_come_from_the_target_unless_given():
    model = canonical(*small_residual_cnn(width=32))
    result = pruned(model, Prune(sparsity=0.4), Quantize())
    assert result.facts["round_to"] == 16
    assert all(width % 16 == 0 for name, width in widths(result.model).items() if name != "linear")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_every_runtime_likes_sixteen_channels(runtime):
    assert preferred_multiple(Target(runtime=runtime)) == 16


def test_a_layer_narrower_than_a_multiple_stays_and_the_rest_is_pruned():
    module, example = seeded(
        lambda: nn.Sequential(
            nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 4)
        ),
        (2, 8),
    )
    result = pruned(canonical(module, example), Prune(round_to=16))
    assert widths(result.model) == {"0": 12, "2": 32, "4": 4}
    assert why(result)["0"] == "round_to 16 is more than its 12 channels"


def test_removing_nothing_is_an_error_that_names_the_reasons():
    with pytest.raises(NothingChanged) as error:
        pruned(zoo_model("small_residual_cnn"), Prune(sparsity=0.1))
    assert "rounding to multiples of 16 keeps all 16 channels" in error.value.detail
    assert "linear: its channels are the model's output" in error.value.detail
    assert "set round_to below 16" in error.value.detail
    assert error.value.errors[0].pointer == "/recipe/0"


def test_ignored_layers_stay_with_everything_tied_to_them():
    result = pruned(zoo_model("small_residual_cnn"), Prune(round_to=1, ignore=("layer2.sh*",)))
    after = widths(result.model)
    assert after["layer2.shortcut.0"] == after["layer2.conv2"] == 32
    assert after["layer2.conv1"] == 16
    assert why(result)["layer2.shortcut.0"] == "named in ignore"
    assert "tied to those of a layer" in why(result)["layer2.conv2"]


def test_a_pattern_that_matches_nothing_is_refused_with_near_names():
    with pytest.raises(InvalidRecipe) as error:
        pruned(zoo_model("small_residual_cnn"), Prune(ignore=("linear", "layer2.conv3")))
    assert "layer2.conv" in error.value.detail
    assert error.value.errors[0].pointer == "/recipe/0/ignore/1"


def test_one_ranking_over_all_layers_spares_important_ones():
    module, example = seeded(
        lambda: nn.Sequential(
            nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
        ),
        (2, 8),
    )
    with torch.no_grad():
        module[0].weight[:24] *= 0.01
        module[2].weight[:, :24] *= 0.01
    after = widths(pruned(canonical(module, example), Prune(scope="global", round_to=1)).model)
    assert after["0"] < 16 < after["2"]
    assert after["0"] + after["2"] == 32


def test_random_pruning_depends_on_the_seed_alone():
    model = zoo_model("mlp")
    params = Prune(method="random", round_to=1)
    first, again, other = (pruned(model, params, seed=s).model for s in (1, 1, 2))
    assert same_weights(weights(first), weights(again))
    assert not same_weights(weights(first), weights(other))


def test_tied_weights_shrink_together_and_stay_one():
    result = pruned(zoo_model("tied"), Prune(round_to=1))
    assert widths(result.model) == {"embed": 4, "mix": 4, "head": 20}
    module = result.model.module
    assert module.get_submodule("embed").weight is module.get_submodule("head").weight


def test_frozen_parameters_stay_frozen():
    model = zoo_model("mlp")
    frozen = model.module.get_submodule("0").weight
    frozen.requires_grad_(False)
    result = pruned(model, Prune(round_to=1))
    assert not result.model.module.get_submodule("0").weight.requires_grad
    assert result.model.module.get_submodule("3").weight.requires_grad


def test_wider_transformers_keep_working_at_other_batch_sizes():
    model = canonical(*tiny_transformer(width=32, heads=4))
    thin = pruned(model, Prune(round_to=1)).model
    for batch in (1, 5):
        with torch.no_grad():
            assert first_output(thin.module(*thin.example(batch))).shape == (batch, 4)
