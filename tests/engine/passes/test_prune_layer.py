from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from planish.contract.errors import InvalidRecipe, NothingChanged
from planish.contract.recipe import Prune, Quantize
from tests.engine.passes.layer_nets import read
from tests.engine.passes.models import (
    canonical,
    context,
    noise_splits,
    same_weights,
    weights,
    zoo_model,
)
from worker.engine.load.dataset import Dataset, Source
from worker.engine.load.splits import Splits
from worker.engine.model import Model, first_output
from worker.engine.passes import Outcome, entry_for
from worker.engine.passes.prune.blocks import find_blocks
from worker.engine.passes.prune.depth import estimated_count
from worker.engine.passes.prune.influence import Effect, by_effect, gather
from worker.engine.passes.prune.removal import remove_blocks

CPU = torch.device("cpu")


def prune(**params) -> Prune:
    return Prune(structure="layer", samples=32, **params)


def shortened(model: Model, params: Prune, splits: Splits | None, seed: int = 0) -> Outcome:
    return entry_for(params).run(model, params, context(model, params, splits=splits, seed=seed))


def removed(result: Outcome) -> list[str]:
    return [block["name"] for block in result.facts["removed"]]


def emptied(name: str, layers: list[str]) -> Model:
    """Return a network in which the branch of a residual block gives (nearly) nothing."""
    model = read(name).clone()
    with torch.no_grad():
        for layer in layers:
            for parameter in model.module.get_submodule(layer).parameters():
                parameter.mul_(1e-4)
    return model


def left(model: Model) -> list[str]:
    return [block.name for block in find_blocks(model).blocks]


@pytest.mark.parametrize("method", ["kl", "block_influence"])
@pytest.mark.parametrize(
    ("net", "layers", "block"),
    [
        ("resnet20", ["layer2.1.bn2"], "layer2.1"),
        ("mobilenet", ["0.4.conv.7"], "0.4.conv"),
        ("steps", ["steps.2.down"], "steps.2"),
    ],
)
def test_a_block_that_does_nothing_goes_first(net, layers, block, method):
    model = emptied(net, layers)
    splits = noise_splits(model, 60)
    result = shortened(model, prune(method=method, blocks=1), splits)
    assert removed(result) == [block]
    assert result.facts["removed"][0]["score"] < 1e-3
    assert block not in left(result.model)


def test_a_transformer_layer_that_does_nothing_goes_first():
    names = ("attention.o_proj", "mlp.fc2")
    path = "model.vit.layers.1"
    inside = dict(read("vit").module.get_submodule(path).named_modules())
    last = [f"{path}.{n}" for n in inside if n.endswith(("o_proj", "fc2", "output.dense"))]
    assert len(last) == len(names)
    model = emptied("vit", last)
    result = shortened(model, prune(blocks=1), noise_splits(model, 40))
    assert removed(result) == ["model.vit.layers.1"]


def test_the_score_is_the_divergence_of_the_shortened_model_from_the_whole_one():
    model = read("steps")
    splits = noise_splits(model, 60)
    result = shortened(model, prune(blocks=2, recalibrate=False), splits)
    (x,), _ = splits.calibration.prepare(np.arange(32))
    with torch.no_grad():
        whole = first_output(model.module(x)).log_softmax(-1)
        short = first_output(result.model.module(x)).log_softmax(-1)
    expected = float((whole.exp() * (whole - short)).sum(-1).mean())
    assert result.facts["removed"][1]["score"] == pytest.approx(expected, abs=2e-6)


def test_removal_is_greedy_one_block_after_the_other():
    model = read("resnet20")
    splits = noise_splits(model, 40)
    samples = gather(model.module, splits.calibration, 24, "classification", CPU)
    effect = Effect(model.module, samples, "classification")
    gone, rest = [], list(find_blocks(model).blocks)
    for block, score in list(by_effect(effect, rest))[:3]:
        scores = effect.without(gone, rest)
        assert score == pytest.approx(min(scores.values()), rel=1e-4)
        gone.append(block)
        rest.remove(block)


def test_for_other_tasks_the_score_is_the_relative_squared_error():
    model = read("steps")
    samples = gather(model.module, noise_splits(model, 60).calibration, 32, "regression", CPU)
    block = find_blocks(model).blocks[0]
    score = Effect(model.module, samples, "regression").without((), [block])[block]
    short = remove_blocks(model, [block])
    with torch.no_grad():
        whole = torch.cat([first_output(model.module(*inputs)) for inputs in samples.batches])
        other = torch.cat([first_output(short.module(*inputs)) for inputs in samples.batches])
    assert score == pytest.approx(float((other - whole).square().sum() / whole.square().sum()))


def test_padding_of_a_language_model_does_not_count():
    model = read("llama")
    ids = np.random.default_rng(0).integers(0, 40, (12, 12))
    targets = np.where(np.arange(12) < 6, ids, -100)
    source = Source(ids, (12,), torch.int64)
    block = find_blocks(model).blocks[1]

    def score(data: Dataset) -> float:
        samples = gather(model.module, data, 12, "language_modeling", CPU)
        return Effect(model.module, samples, "language_modeling").without((), [block])[block]

    half = score(Dataset((source,), np.arange(12), targets))
    (x,), _ = Dataset((source,), np.arange(12)).prepare(np.arange(12))
    with torch.no_grad():
        p = first_output(model.module(x)).log_softmax(-1)[:, :6]
        q = first_output(remove_blocks(model, [block]).module(x)).log_softmax(-1)[:, :6]
    assert half == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)


@pytest.mark.parametrize(("sparsity", "count"), [(0.01, 1), (0.35, 2), (0.5, 4), (0.99, 6)])
def test_a_share_is_rounded_to_a_count_that_removes_some_and_leaves_some(sparsity, count):
    model = read("resnet20")
    result = shortened(model, prune(method="random", sparsity=sparsity), None)
    assert result.facts["blocks_found"] == 7
    assert result.facts["blocks_removed"] == count
    assert len(left(result.model)) == 7 - count


def test_the_report_tells_what_went_and_why_the_rest_stayed():
    model = read("resnet20")
    result = shortened(model, prune(blocks=2, ignore=("layer1.*",)), noise_splits(model, 40))
    gone = removed(result)
    assert not any(name.startswith("layer1") for name in gone)
    changed = {layer.name: layer.what for layer in result.layers}
    assert changed[f"{gone[0]}.conv1"] == f"removed with block {gone[0]}"
    why = {layer.name: layer.why for layer in result.skipped}
    assert why["layer1.0"] == "named in ignore"
    assert why["layer2.0"] == "its output has another shape than its input"
    kept = "the model's answers need it more than those removed"
    assert [name for name, reason in why.items() if reason == kept] == [
        name for name in ("layer2.1", "layer2.2", "layer3.1", "layer3.2") if name not in gone
    ]
    params, macs = result.facts["params"], result.facts["macs"]
    assert params[1] == sum(p.numel() for p in result.model.module.parameters()) < params[0]
    assert macs[1] < macs[0]


def test_the_given_model_stays_as_it_was():
    model = read("resnet20").clone()
    before = weights(model)
    result = shortened(model, prune(blocks=3), noise_splits(model, 40))
    assert result.facts["recalibrated"] is True
    assert same_weights(before, weights(model))


def test_batchnorm_statistics_are_estimated_anew_only_if_wanted():
    model = read("mobilenet")
    splits = noise_splits(model, 40)
    plain = shortened(model, prune(blocks=1, recalibrate=False), splits)
    again = shortened(model, prune(blocks=1), splits)
    kept = {n: v for n, v in weights(model).items() if n in weights(plain.model)}
    assert same_weights(weights(plain.model), kept)
    assert not same_weights(weights(again.model), kept)
    assert removed(plain) == removed(again)


def test_the_same_seed_chooses_the_same_blocks_at_random():
    model = read("resnet20")
    chosen = [removed(shortened(model, prune(method="random"), None, seed)) for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize("net", ["recurrent", "concat"])
def test_a_model_without_blocks_is_refused_with_the_reason(net):
    model = read(net) if net == "recurrent" else zoo_model(net)
    with pytest.raises(NothingChanged, match=r"no block to remove: .* shape of its input"):
        shortened(model, prune(blocks=1), noise_splits(model, 20))


def test_more_blocks_than_there_are_is_refused():
    model = read("resnet20")
    with pytest.raises(InvalidRecipe, match="blocks is 8, and the model has 7"):
        shortened(model, prune(blocks=8), noise_splits(model, 20))


def test_ranking_on_data_without_data_is_refused():
    with pytest.raises(InvalidRecipe, match="ranks blocks by kl on data"):
        shortened(read("steps"), prune(blocks=1), None)


@pytest.mark.parametrize("amount", [{"blocks": 3}, {"sparsity": 0.5}])
def test_a_plan_names_the_candidates_and_hands_on_a_model_of_the_right_depth(amount):
    model, params = read("resnet20"), prune(**amount)
    ctx = context(model, params, Quantize(), splits=None)
    shorter, plan = entry_for(params).plan(model, params, ctx)
    count = plan.facts["blocks_removed"]
    assert count == amount.get("blocks", 4)
    assert len(left(shorter)) == 7 - count
    assert [layer.name for layer in plan.layers] == left(model)
    assert plan.layers_changed == count


def test_a_share_of_the_time_becomes_a_count_of_equal_blocks():
    equal = (layer for _ in range(9) for layer in (nn.Linear(64, 64), nn.Tanh()))
    model = canonical(nn.Sequential(*equal, nn.Linear(64, 4)).eval(), (torch.randn(2, 64),))
    blocks = find_blocks(model).blocks
    assert len(blocks) == 8
    count = estimated_count(model, blocks, lambda n: blocks[:n], 0.5)
    assert 3 <= count <= 7


def test_blocks_go_until_the_measured_latency_is_reached():
    model = read("steps")
    splits = noise_splits(model, 30)
    result = shortened(model, prune(target_latency=0.9), splits)
    measured = result.facts["latency_measured"]
    count = result.facts["blocks_removed"]
    assert result.facts["latency_share"] == measured[str(count)]
    assert result.facts["latency_share"] <= 0.9 or "warning" in result.facts
    assert all(share > 0.9 for n, share in measured.items() if int(n) < count)
