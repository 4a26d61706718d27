"""Gradients of the loss on the calibration part, weight by weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from planish.contract.errors import InvalidRecipe
from tests.engine.passes.models import (
    CPU,
    digit_splits,
    noise_splits,
    same_weights,
    weights,
    zoo_model,
)
from worker.engine.passes.prune.gradients import loss_gradients, weight_scores


def test_gradients_are_those_of_the_task_loss_on_the_first_samples():
    model, splits = zoo_model("small_residual_cnn"), digit_splits()
    before = weights(model)
    batches = list(loss_gradients(model, splits, "classification", 48, CPU))
    assert len(batches) == 2
    inputs, targets = splits.calibration.prepare(np.arange(24))
    F.cross_entropy(model.module(*inputs), targets).backward()
    expected = {n: p.grad for n, p in model.module.named_parameters()}
    assert batches[0].keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(batches[0][name], gradient, atol=1e-6), name
    assert same_weights(before, weights(model))


def test_scores_add_up_sizes_so_that_signs_do_not_cancel():
    model = zoo_model("small_residual_cnn")
    weight = model.module.get_parameter("linear.weight")
    ones = torch.ones_like(weight)
    batches = [{"linear.weight": ones}, {"linear.weight": -2 * ones}]
    assert torch.equal(weight_scores(model, iter(batches), "gradient")["linear.weight"], 3 * ones)
    taylor = weight_scores(model, iter(batches), "taylor")["linear.weight"]
    assert torch.allclose(taylor, 3 * weight.abs())


def test_frozen_weights_have_gradients_too_and_stay_frozen():
    model = zoo_model("small_residual_cnn")
    weight = model.module.get_parameter("conv1.weight").requires_grad_(False)
    (batch,) = loss_gradients(model, digit_splits(), "classification", 8, CPU)
    assert batch["conv1.weight"].abs().sum() > 0
    assert not weight.requires_grad


def test_without_labels_there_is_no_loss():
    model = zoo_model("small_residual_cnn")
    for splits in (None, noise_splits(model, labels=False)):
        with pytest.raises(InvalidRecipe, match="targets"):
            next(loss_gradients(model, splits, "classification", 8, CPU))
