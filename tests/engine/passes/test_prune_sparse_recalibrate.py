"""BatchNorm statistics after pruning are those of the pruned network."""

from __future__ import annotations

import numpy as np
import torch

from tests.engine.passes.models import CPU, digit_splits, weights, zoo_model
from worker.engine.passes.prune.recalibrate import recalibrate


def test_statistics_become_those_of_the_data():
    model = zoo_model("small_residual_cnn")
    data = digit_splits().calibration.head(100)
    first = model.module.get_submodule("conv1")
    inputs, _ = data.prepare(np.arange(100))
    with torch.no_grad():
        seen = first(*inputs)
    assert recalibrate(model, data, 100, CPU)
    norm = model.module.get_submodule("bn1")
    assert torch.allclose(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, seen.var((0, 2, 3)), rtol=1e-4)
    assert not any(layer.training for layer in model.module.modules())


def test_only_statistics_change_and_the_momentum_comes_back():
    model = zoo_model("small_residual_cnn")
    before = weights(model)
    momentum = model.module.get_submodule("bn1").momentum
    recalibrate(model, digit_splits().calibration, 64, CPU)
    changed = {n for n, w in weights(model).items() if not torch.equal(w, before[n])}
    assert changed
    assert {name.rpartition(".")[2] for name in changed} <= {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert model.module.get_submodule("bn1").momentum == momentum


def test_nothing_to_do_is_said():
    data = digit_splits().calibration
    assert not recalibrate(zoo_model("tiny_transformer"), data, 64, CPU)
    assert not recalibrate(zoo_model("small_residual_cnn"), data, 1, CPU)


def test_an_untouched_network_keeps_the_statistics_that_it_learnt():
    """Those of the samples differ: images were augmented, or are of another kind."""
    model = zoo_model("small_residual_cnn")
    before = weights(model)
    data = digit_splits().calibration
    assert recalibrate(model, data, 100, CPU, zoo_model("small_residual_cnn"))
    for name, value in weights(model).items():
        if name.endswith(("running_mean", "running_var")):
            assert torch.allclose(value, before[name], rtol=1e-4, atol=1e-5), name


def test_a_dead_channel_puts_out_its_shift():
    before, after = zoo_model("small_residual_cnn"), zoo_model("small_residual_cnn")
    after.module.get_parameter("conv1.weight").data[3] = 0.0
    recalibrate(after, digit_splits().calibration, 100, CPU, before)
    norm = after.module.get_submodule("bn1").requires_grad_(False)
    assert norm(torch.zeros(1, 16, 1, 1))[0, 3] == norm.bias[3]


def test_a_scaled_layer_is_normalized_as_before():
    before, after = zoo_model("small_residual_cnn"), zoo_model("small_residual_cnn")
    after.module.get_parameter("conv1.weight").data.mul_(0.5)
    recalibrate(after, digit_splits().calibration, 100, CPU, before)
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(after.module(x), before.module(x), atol=1e-3)
