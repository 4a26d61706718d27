"""Zeros of a sparse model survive whatever pass comes after."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from planish.contract.checks import check_recipe
from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import (
    Distill,
    Params,
    Prune,
    Quantize,
    Retrain,
    Simplify,
    Train,
)
from planish.contract.spec import Spec
from tests.engine.passes.models import context, digit_splits, noise_splits, zoo_model
from worker.engine.measure.size import count_parameters
from worker.engine.model import Model
from worker.engine.passes import Outcome, entry_for

SPARSE = Prune(structure="unstructured", sparsity=0.75, recalibrate=False)
TRAIN = Train(epochs=1, batch_size=64, lr=0.01)
CUBIC = Train(epochs=3, batch_size=128, lr=0.01)


def apply(model: Model, params: Params) -> Outcome:
    ctx = context(model, params, splits=digit_splits(), teacher=zoo_model("small_residual_cnn"))
    return entry_for(params).run(model, params, ctx)


def chain(*recipe: Params) -> Model:
    model = zoo_model("small_residual_cnn")
    for params in recipe:
        model = apply(model, params).model
    return model


def zeros(model: Model) -> dict[str, Tensor]:
    return {
        name: weight.detach() == 0
        for name, weight in model.module.named_parameters()
        if model.sparsity is not None and name in model.sparsity.weights
    }


def share(model: Model) -> float:
    masks = list(zeros(model).values())
    return sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)


@pytest.mark.parametrize(
    "training",
    [
        Retrain(train=TRAIN),
        Distill(alpha=1.0, train=Train(epochs=1, batch_size=64, lr=0.01, ema_decay=0.9)),
        Retrain(train=Train(epochs=1, batch_size=64, optimizer="adamw", weight_decay=0.1)),
    ],
    ids=["sgd", "average", "adamw"],
)
def test_training_keeps_every_zero_and_moves_the_rest(training):
    sparse = chain(SPARSE)
    before = {n: (w == 0, w.detach().clone()) for n, w in sparse.module.named_parameters()}
    after = apply(sparse, training).model
    assert after.sparsity is not None
    for name, mask in zeros(after).items():
        gone, weight = before[name]
        assert torch.equal(mask & gone, gone), name
        assert not torch.equal(after.module.get_parameter(name), weight), name
    assert share(after) == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize("method", ["magnitude", "taylor", "wanda", "sparsegpt"])
def test_cubic_ends_with_exactly_what_was_asked(method):
    asked = Prune(
        structure="unstructured", sparsity=0.75, method=method, schedule="cubic", samples=64
    )
    model = chain(asked, Retrain(train=CUBIC))
    for name, mask in zeros(model).items():
        assert int(mask.sum()) == round(0.75 * mask.numel()), name
    assert model.sparsity.growth is None


def test_cubic_over_all_layers_and_in_a_pattern_ends_so_too():
    whole = Prune(structure="unstructured", sparsity=0.75, scope="global", schedule="cubic")
    assert share(chain(whole, Retrain(train=CUBIC))) == pytest.approx(0.75, abs=1e-4)
    pattern = chain(Prune(structure="n:m", schedule="cubic"), Retrain(train=CUBIC))
    rows = pattern.module.get_parameter("linear.weight")
    assert ((rows.reshape(-1, 4) != 0).sum(1) == 2).all()


def test_later_training_holds_what_an_earlier_one_grew():
    asked = Prune(structure="unstructured", sparsity=0.75, schedule="cubic")
    grown = chain(asked, Retrain(train=CUBIC))
    masks = {name: mask.clone() for name, mask in zeros(grown).items()}
    again = apply(grown, Retrain(train=TRAIN)).model
    assert all(torch.equal(mask, masks[name]) for name, mask in zeros(again).items())


def test_folding_keeps_the_zeros_and_their_names():
    sparse = chain(SPARSE)
    before = {name: mask.clone() for name, mask in zeros(sparse).items()}
    folded = apply(sparse, Simplify()).model
    assert all(torch.equal(mask, before[name]) for name, mask in zeros(folded).items())


def test_a_thinner_network_is_as_sparse_and_is_held():
    model = chain(SPARSE, Prune(sparsity=0.5, method="random", round_to=1, recalibrate=False))
    before = share(model)
    assert before > 0.6
    masks = {name: mask.clone() for name, mask in zeros(model).items()}
    after = apply(model, Retrain(train=TRAIN)).model
    assert all(torch.equal(mask & masks[n], masks[n]) for n, mask in zeros(after).items())


@pytest.mark.parametrize(
    "params",
    [
        Quantize(samples=64),
        Quantize(samples=64, dtype="uint8"),
        Quantize(samples=64, algorithm="adaround", keep_float=("layer*",)),
        Quantize(mode="qat", samples=64, train=Train(epochs=1, lr=0.001)),
    ],
    ids=["int8", "uint8", "adaround", "qat"],
)
def test_integers_keep_the_zeros(params):
    sparse = chain(SPARSE)
    gone = sum(int(mask.sum()) for mask in zeros(sparse).values())
    quantized = apply(sparse, params).model
    assert quantized.quantization is not None
    count = count_parameters(quantized)
    assert count.total - count.nonzero >= gone


def test_gptq_keeps_the_zeros():
    model = zoo_model("tiny_transformer")
    splits = noise_splits(model)
    sparse = entry_for(SPARSE).run(model, SPARSE, context(model, SPARSE, splits=splits)).model
    gone = sum(int(mask.sum()) for mask in zeros(sparse).values())
    asked = Quantize(mode="weight_only", algorithm="gptq", samples=32)
    quantized = entry_for(asked).run(sparse, asked, context(sparse, asked, splits=splits)).model
    count = count_parameters(quantized)
    assert count.total - count.nonzero >= gone


def test_nothing_else_is_cut_before_training_has_removed_what_was_chosen():
    cubic = Prune(structure="unstructured", schedule="cubic")
    between = Spec(recipe=(cubic, Prune(), Retrain()))
    with pytest.raises(InvalidRecipe, match="put distill or retrain between it and prune"):
        check_recipe(between, has_data=True, has_targets=True)
    for recipe in ((Prune(), cubic, Retrain()), (cubic, Retrain(), Prune())):
        check_recipe(Spec(recipe=recipe), has_data=True, has_targets=True)
