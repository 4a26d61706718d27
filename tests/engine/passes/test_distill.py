from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Distill, Prune, Retrain, Train
from tests.engine.passes.models import (
    canonical,
    context,
    digit_splits,
    noise_splits,
    same_weights,
    weights,
    zoo_model,
)
from tests.zoo import small_residual_cnn
from worker.engine.load.splits import Splits
from worker.engine.model import Model, first_output
from worker.engine.passes import entry_for

TRAIN = Train(epochs=4, batch_size=64, lr=0.05)


def agreement(a: Model, b: Model) -> float:
    inputs, _ = digit_splits().sealed.prepare(torch.arange(300).numpy())
    with torch.no_grad():
        left, right = (first_output(m.module(*inputs)).argmax(1) for m in (a, b))
    return float((left == right).float().mean())


def without_labels(splits: Splits) -> Splits:
    return replace(
        splits,
        train=replace(splits.train, targets=None),
        validation=replace(splits.validation, targets=None),
    )


def test_a_pruned_student_learns_its_teachers_answers_without_labels():
    teacher = zoo_model("small_residual_cnn")
    splits = digit_splits()
    retrain = Retrain(train=TRAIN)
    teacher = (
        entry_for(retrain).run(teacher, retrain, context(teacher, retrain, splits=splits)).model
    )
    before = weights(teacher)
    prune, distill = Prune(round_to=1), Distill(alpha=1.0, train=TRAIN)
    student = entry_for(prune).run(teacher, prune, context(teacher, prune)).model
    shaken = agreement(student, teacher)
    ctx = context(student, distill, splits=without_labels(splits), teacher=teacher)
    result = entry_for(distill).run(student, distill, ctx)
    assert agreement(result.model, teacher) > max(shaken, 0.85)
    assert same_weights(before, weights(teacher))
    assert all(epoch.op == "distill" and epoch.accuracy is None for epoch in result.training)
    assert result.facts["temperature"] == 4.0
    assert result.facts["steps"] == 4 * result.facts["samples"] // 64 + 4


def test_a_teacher_with_other_outputs_is_refused_in_plan_and_run():
    student = zoo_model("small_residual_cnn")
    teacher = canonical(*small_residual_cnn(classes=7))
    params = Distill(train=TRAIN)
    ctx = context(student, params, splits=digit_splits(), teacher=teacher)
    for work in (entry_for(params).run, entry_for(params).plan):
        with pytest.raises(InvalidRecipe, match=r"teacher's output is \(7,\).*model's \(10,\)"):
            work(student, params, ctx)


def test_a_teacher_with_other_inputs_is_refused():
    params = Distill(train=TRAIN)
    ctx = context(
        zoo_model("mlp"), params, splits=digit_splits(), teacher=zoo_model("small_residual_cnn")
    )
    with pytest.raises(InvalidRecipe, match="other inputs"):
        entry_for(params).run(zoo_model("mlp"), params, ctx)


def test_labels_are_needed_where_alpha_leaves_room_for_them():
    model = zoo_model("small_residual_cnn")
    params = Distill(train=TRAIN)
    ctx = context(model, params, splits=without_labels(digit_splits()))
    with pytest.raises(InvalidRecipe) as error:
        entry_for(params).run(model, params, ctx)
    assert error.value.errors[0].pointer == "/recipe/0/alpha"


@pytest.mark.parametrize("params", [Distill(), Retrain()])
def test_training_without_data_is_refused(params):
    model = zoo_model("mlp")
    with pytest.raises(InvalidRecipe, match="send a data file"):
        entry_for(params).run(model, params, context(model, params))


def test_retraining_without_labels_is_refused():
    model = zoo_model("mlp")
    params = Retrain()
    splits = without_labels(noise_splits(model))
    with pytest.raises(InvalidRecipe, match="array named targets"):
        entry_for(params).plan(model, params, context(model, params, splits=splits))


def test_the_facts_name_the_epoch_that_was_kept():
    model = zoo_model("small_residual_cnn")
    params = Retrain(train=TRAIN)
    result = entry_for(params).run(model, params, context(model, params, splits=digit_splits()))
    accuracies = [epoch.accuracy for epoch in result.training]
    assert result.facts["validation_accuracy"] == max(accuracies)
    assert accuracies[result.facts["best_epoch"] - 1] == max(accuracies)
