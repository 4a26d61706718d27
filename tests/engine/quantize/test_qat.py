"""Training with the rounding in the loop ends in the same integer graph as static."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from planish.contract.errors import InvalidRecipe, NothingChanged
from planish.contract.recipe import Quantize, Train
from tests.engine.passes.models import context, noise_splits, zoo_model
from tests.engine.quantize.conftest import Trained
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.model import Model
from worker.engine.passes import Outcome, quantize
from worker.engine.save.onnx import save_onnx

TRAIN = Train(epochs=2, lr=0.0005, schedule="cosine", batch_size=64)


def trained(net: Trained, model: Model, **params: object) -> Outcome:
    asked = Quantize(mode="qat", train=TRAIN, **params)
    return quantize.run(model.clone(), asked, context(model, asked, splits=net.splits))


@pytest.fixture(scope="module")
def outcome(digits_net: Trained) -> Outcome:
    return trained(digits_net, digits_net.plain, granularity="tensor")


def test_the_artifact_has_integer_weights_and_runs_on_integer_kernels(
    outcome: Outcome, tmp_path: Path
) -> None:
    save_onnx(outcome.model, tmp_path / "qat.onnx")
    graph = read_runtime_graph(tmp_path / "qat.onnx")
    assert graph.integer_layers == len(outcome.layers) > 0
    assert graph.float_layers == ()
    assert graph.operators["QLinearConv"] == len(outcome.layers) - 1
    stored = {t.name: t.data_type for t in onnx.load(tmp_path / "qat.onnx").graph.initializer}
    for layer in outcome.layers:
        assert stored[f"{layer.name}.weight"] == onnx.TensorProto.INT8


def test_training_is_not_worse_than_static(digits_net: Trained, outcome: Outcome) -> None:
    asked = Quantize(granularity="tensor", algorithm="rtn")
    static = quantize.run(
        digits_net.plain.clone(), asked, context(digits_net.plain, asked, splits=digits_net.splits)
    )
    assert outcome.facts["before_training"]["sqnr_db"] == static.facts["sqnr_db"]
    assert outcome.facts["after_training"]["sqnr_db"] >= static.facts["sqnr_db"]
    noise = 4 / len(digits_net.splits.sealed)
    assert digits_net.accuracy(outcome.model) >= digits_net.accuracy(static.model) - noise


def test_weights_were_trained_and_integers_are_theirs(outcome: Outcome) -> None:
    assert [epoch.epoch for epoch in outcome.training] == [1, 2]
    assert outcome.facts["integers"]["different"] == 0
    assert outcome.facts["integers"]["weights_checked"] > 0


def test_the_model_that_came_in_stays(digits_net: Trained) -> None:
    before = {k: v.clone() for k, v in digits_net.plain.module.state_dict().items()}
    after = digits_net.plain.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_same_seed_same_integers(digits_net: Trained, outcome: Outcome) -> None:
    again = trained(digits_net, digits_net.plain, granularity="tensor")
    first, second = (o.model.module.state_dict() for o in (outcome, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_collapsed_network_is_equalized_before_it_is_trained(digits_net: Trained) -> None:
    outcome = trained(digits_net, digits_net.scaled)
    assert outcome.facts["treatment"].startswith("cross_layer_equalization")
    assert digits_net.accuracy(outcome.model) >= digits_net.accuracy(digits_net.scaled) - 0.012


def test_outputs_that_are_no_classes_are_learned_by_their_distance() -> None:
    model = zoo_model("mlp")
    params = Quantize(mode="qat", train=TRAIN)
    splits = noise_splits(model, samples=120, labels=False)
    outcome = quantize.run(model, params, context(model, params, splits=splits))
    assert outcome.facts["integers"]["different"] == 0


def test_without_data_there_is_nothing_to_train_on() -> None:
    model = zoo_model("mlp")
    params = Quantize(mode="qat")
    with pytest.raises(InvalidRecipe, match="data"):
        quantize.run(model, params, context(model, params))


def test_nothing_to_quantize_is_an_error() -> None:
    model = zoo_model("mlp")
    params = Quantize(mode="qat", keep_float=("*",))
    splits = noise_splits(model, samples=60)
    with pytest.raises(NothingChanged):
        quantize.run(model, params, context(model, params, splits=splits))


def test_a_plan_names_the_layers_and_the_training() -> None:
    model = zoo_model("mlp")
    params = Quantize(mode="qat", train=TRAIN)
    splits = noise_splits(model, samples=60)
    _, plan = quantize.plan(model, params, context(model, params, splits=splits))
    assert plan.layers_changed > 0
    assert plan.facts["epochs"] == 2
