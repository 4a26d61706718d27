"""Pruning of single weights: the right ones go, exactly as many as asked, and no layer dies."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from planish.contract.errors import InvalidRecipe, NothingChanged
from planish.contract.recipe import Prune
from tests.engine.passes.models import (
    NETS,
    canonical,
    context,
    digit_splits,
    noise_splits,
    same_weights,
    weights,
    zoo_model,
)
from tests.zoo import seeded
from worker.engine.load.splits import Splits
from worker.engine.model import Model
from worker.engine.passes import Outcome, prune

METHODS = ("magnitude", "gradient", "taylor", "wanda", "sparsegpt", "random")


def pruned(model: Model, splits: Splits | None = None, **params) -> Outcome:
    asked = Prune.model_validate({"structure": "unstructured", "samples": 64, **params})
    return prune.run(model, asked, context(model, asked, splits=splits))


def zeros(model: Model) -> dict[str, int]:
    found = model.module.named_parameters()
    return {name: int((w == 0).sum()) for name, w in found if name.endswith("weight")}


def layer_of(model: Model, name: str = "0") -> torch.Tensor:
    return model.module.get_parameter(f"{name}.weight").detach()


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_removes_exactly_the_share_of_every_layer(self, method):
        model, splits = zoo_model("small_residual_cnn"), digit_splits()
        result = pruned(model, splits, method=method, sparsity=0.7)
        found = dict(result.model.module.named_parameters())
        assert result.model.sparsity.weights
        for name in result.model.sparsity.weights:
            assert int((found[name] == 0).sum()) == round(0.7 * found[name].numel()), name
        assert result.facts["sparsity"] == pytest.approx(0.7, abs=1e-3)
        assert set(result.facts["nonzero_share"]) == {layer.name for layer in result.layers}

    def test_removes_exactly_the_share_of_all_layers_together_and_lets_none_die(self, method):
        model, splits = zoo_model("small_residual_cnn"), digit_splits()
        result = pruned(model, splits, method=method, sparsity=0.9, scope="global")
        assert result.facts["zeros"] == round(0.9 * result.facts["weights"])
        assert min(result.facts["nonzero_share"].values()) > 0
        assert len(set(result.facts["nonzero_share"].values())) > 1

    def test_leaves_the_given_model_and_all_that_is_no_kernel_alone(self, method):
        model = zoo_model("small_residual_cnn")
        before = weights(model)
        result = pruned(model, digit_splits(), method=method, recalibrate=False)
        assert same_weights(before, weights(model))
        kernels = {f"{layer.name}.weight" for layer in result.layers}
        changed = {n for n, w in weights(result.model).items() if not torch.equal(w, before[n])}
        assert changed == kernels

    def test_keeps_zeros_of_an_earlier_pruning(self, method):
        first = pruned(zoo_model("small_residual_cnn"), method="random", sparsity=0.3).model
        second = pruned(first, digit_splits(), method=method, sparsity=0.5, ignore=["linear"]).model
        for name, weight in first.module.named_parameters():
            later = second.module.get_parameter(name)
            assert not later[weight == 0].any() or "weight" not in name, name
        assert second.sparsity.weights == first.sparsity.weights
        wanted = round(0.5 * layer_of(first, "conv1").numel())
        # wanda takes as many from each row, though one may have lost more than that before.
        assert zeros(second)["conv1.weight"] - wanted in range(9 if method == "wanda" else 1)

    @pytest.mark.parametrize(("kept", "of"), [(2, 4), (4, 8), (1, 3)])
    def test_keeps_exactly_n_of_each_m_neighbours(self, method, kept, of):
        model, splits = zoo_model("small_residual_cnn"), digit_splits()
        result = pruned(model, splits, structure="n:m", pattern=f"{kept}:{of}", method=method)
        for layer in result.layers:
            rows = layer_of(result.model, layer.name).flatten(1)
            width = rows.shape[1] // of * of
            groups = rows[:, :width].reshape(-1, of)
            assert ((groups != 0).sum(1) == kept).all(), layer.name
            assert (rows[:, width:] != 0).all()
            assert ("of each row stay" in layer.what) == (width < rows.shape[1])


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("structure", "method"), [("unstructured", "sparsegpt"), ("n:m", "wanda")])
def test_every_kind_of_network_keeps_answering(net, structure, method):
    model = zoo_model(net)
    splits = noise_splits(model, labels=False)
    result = pruned(model, splits, structure=structure, method=method, sparsity=0.5)
    with torch.no_grad():
        for batch in (1, 3):
            before, after = (
                tree_leaves(m.module(*model.example(batch))) for m in (model, result.model)
            )
            assert [t.shape for t in after] == [t.shape for t in before]
            assert all(t.isfinite().all() for t in after)
    assert not any(layer.training for layer in result.model.module.modules())


def test_magnitude_removes_the_smallest():
    model = zoo_model("small_residual_cnn")
    before = layer_of(model, "linear").abs()
    after = layer_of(pruned(model, sparsity=0.25).model, "linear")
    assert before[after == 0].max() <= before[after != 0].min()
    assert torch.equal(after[after != 0], layer_of(model, "linear")[after != 0])


def test_threshold_keeps_what_is_above_a_share_of_the_largest():
    model = zoo_model("small_residual_cnn")
    result = pruned(model, threshold_ratio=0.3)
    for layer in result.layers:
        before, after = (layer_of(m, layer.name) for m in (model, result.model))
        assert torch.equal(after != 0, before.abs() > 0.3 * before.abs().max()), layer.name


def test_a_threshold_for_all_layers_leaves_a_layer_of_small_weights_alive():
    model = zoo_model("small_residual_cnn")
    layer_of(model, "linear").mul_(1e-6)
    result = pruned(model, threshold_ratio=0.3, scope="global")
    limit = 0.3 * max(float(layer_of(model, la.name).abs().max()) for la in result.layers)
    before, after = (layer_of(m, "conv1") for m in (model, result.model))
    assert torch.equal(after != 0, before.abs() > limit)
    assert 0 < int((layer_of(result.model, "linear") != 0).sum()) < 20
    assert "kept alive" in next(la.what for la in result.layers if la.name == "linear")


def test_random_is_seeded():
    model = zoo_model("mlp")
    same = [weights(pruned(model, method="random").model) for _ in range(2)]
    assert same_weights(*same)
    asked = Prune(structure="unstructured", method="random")
    other = prune.run(model, asked, context(model, asked, seed=1)).model
    assert not same_weights(same[0], weights(other))


def test_statistics_of_batchnorm_follow_only_if_asked():
    model, splits = zoo_model("small_residual_cnn"), digit_splits()
    for asked in (True, False):
        result = pruned(model, splits, recalibrate=asked)
        mean = result.model.module.get_submodule("bn1").running_mean
        assert torch.equal(mean, model.module.get_submodule("bn1").running_mean) != asked
        assert result.facts["recalibrated"] == asked
    assert not pruned(model).facts["recalibrated"], "no data came"


def test_layers_that_stay_are_named_with_the_reason():
    why = {la.name: la.why for la in pruned(zoo_model("depthwise"), ignore=["stem*"]).skipped}
    assert {why[n] for n in why if n.startswith("stem")} == {"named in ignore"}
    assert [w.split(":")[0] for n, w in why.items() if n.startswith("block")] == [
        "a depthwise kernel"
    ] * 2
    skipped = pruned(zoo_model("tied")).skipped
    assert {la.name: la.why for la in skipped} == {
        "embed": "shares its weight with head",
        "head": "shares its weight with embed",
    }
    skipped = pruned(zoo_model("tiny_transformer")).skipped
    assert {la.why for la in skipped} == {
        "rows of an embedding are looked up; zeros in them take part in no product"
    }


def test_rows_narrower_than_a_group_keep_all():
    result = pruned(zoo_model("two_inputs"), structure="n:m", pattern="4:8")
    assert {la.name: la.why for la in result.skipped} == {
        "side": "its rows of 5 weights are shorter than a group of 8"
    }


def test_nothing_to_remove_is_an_error_with_the_reason():
    model = zoo_model("mlp")
    with pytest.raises(NothingChanged, match="rounding keeps all of its 512 weights"):
        pruned(model, sparsity=1e-6)
    with pytest.raises(NothingChanged, match="zero already"):
        pruned(pruned(model, sparsity=0.6).model, sparsity=0.5)
    with pytest.raises(NothingChanged, match="named in ignore"):
        pruned(model, ignore=["*"])


def test_one_weight_of_a_tiny_layer_stays():
    model = canonical(*seeded(lambda: nn.Linear(2, 1, bias=False), (2, 2)))
    result = pruned(model, sparsity=0.9)
    assert list(zeros(result.model).values()) == [1]
    assert result.layers[0].what.endswith("(kept alive)")


def test_methods_that_rank_on_data_say_what_they_miss():
    model = zoo_model("mlp")
    with pytest.raises(InvalidRecipe, match="send a data file"):
        pruned(model, method="wanda")
    with pytest.raises(InvalidRecipe, match="targets"):
        pruned(model, noise_splits(model, labels=False), method="taylor")


def test_it_is_said_that_zeros_do_not_make_the_model_faster():
    warning = pruned(zoo_model("mlp")).facts["warning"]
    assert warning == (
        "ONNX Runtime computes zeros like any other number: the file compresses better, the model "
        "runs no faster"
    )


def test_cubic_removes_nothing_yet_and_says_what_will_go():
    model, splits = zoo_model("small_residual_cnn"), digit_splits()
    result = pruned(model, splits, method="taylor", schedule="cubic", sparsity=0.8)
    assert same_weights(weights(model), weights(result.model))
    assert result.layers[0].what == "79.9% of 144 weights will be zero"
    growth = result.model.sparsity.growth
    assert growth.zeros["linear.weight"] == round(0.8 * 320)
    assert growth.scores.keys() == growth.zeros.keys()


@pytest.mark.parametrize("method", ["sparsegpt", "gradient", "random"])
def test_plans_show_the_same_layers_without_a_look_at_data(method):
    model, splits = zoo_model("small_residual_cnn"), digit_splits()
    asked = Prune(structure="unstructured", method=method, samples=64)
    planned, plan = prune.plan(model, asked, context(model, asked))
    done = prune.run(model, asked, context(model, asked, splits=splits))
    assert (plan.layers, plan.layers_skipped) == (done.layers, done.skipped)
    assert plan.facts["method"] == method
    assert zeros(planned) == zeros(done.model)


def test_plans_of_patterns_show_the_same_layers():
    model, asked = zoo_model("small_residual_cnn"), Prune(structure="n:m")
    planned, plan = prune.plan(model, asked, context(model, asked))
    assert plan.layers == prune.run(model, asked, context(model, asked)).layers
    assert plan.facts["pattern"] == "2:4"
    assert planned.sparsity is not None
