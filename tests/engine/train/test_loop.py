from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from planish.contract.errors import InvalidRecipe, TrainingDiverged
from planish.contract.job import EventType
from planish.contract.recipe import Train
from tests.engine.passes.models import (
    CPU,
    canonical,
    digit_splits,
    noise_splits,
    same_weights,
    weights,
    zoo_model,
)
from worker.engine.load.dataset import Dataset
from worker.engine.model import Model
from worker.engine.progress import Silent
from worker.engine.train import loop, trainer
from worker.engine.train.loop import Run, fit
from worker.engine.train.losses import cross_entropy
from worker.engine.train.optimizer import make_optimizer


class Listener(Silent):
    """Keeps what it hears."""

    def __init__(self):
        self.updates, self.events = [], []

    def update(self, fraction, message):
        self.updates.append((fraction, message))

    def event(self, kind, data):
        self.events.append((kind, data))


def a_run(train: Train, data: Dataset, validation: Dataset | None = None, **other) -> Run:
    settings = {"op": "retrain", "step": 2, "seed": 0, "device": CPU, "progress": Silent()}
    return Run(train=train, data=data, validation=validation, **{**settings, **other})


def trained(train: Train, **other) -> tuple[Model, tuple]:
    splits = digit_splits()
    model = zoo_model("small_residual_cnn")
    run = a_run(train, splits.train.head(600), splits.validation, **other)
    return model, fit(model, cross_entropy, run)


FAST = Train(epochs=3, batch_size=16, lr=0.05)


def test_a_network_learns_digits():
    _, epochs = trained(FAST)
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert epochs[-1].loss < 0.5 * epochs[0].loss
    assert epochs[-1].accuracy > 0.85
    assert (epochs[0].op, epochs[0].step) == ("retrain", 2)


def test_same_seed_same_bytes_with_dropout_and_augmentation():
    train = Train(epochs=1, batch_size=64, augment="crop_flip", channels_last=True)
    first, second, other = (trained(train, seed=s)[0] for s in (1, 1, 2))
    assert same_weights(weights(first), weights(second))
    assert not same_weights(weights(first), weights(other))


def test_training_leaves_global_randomness_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    trained(Train(epochs=1))
    assert torch.equal(torch.rand(3), wanted)


def test_batchnorm_learns_statistics_and_the_model_comes_back_in_eval_mode():
    model, _ = trained(Train(epochs=1, channels_last=True))
    before = zoo_model("small_residual_cnn").module.get_submodule("bn1")
    after = model.module.get_submodule("bn1")
    assert not torch.equal(before.running_mean, after.running_mean)
    assert int(after.num_batches_tracked) == int(before.num_batches_tracked) + 5
    assert not any(m.training for m in model.module.modules())
    assert all(p.is_contiguous() and p.grad is None for p in model.module.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_every_optimizer_and_schedule_lowers_the_loss(optimizer, schedule):
    lr = 0.05 if optimizer == "sgd" else 0.003
    _, epochs = trained(
        FAST.model_copy(update={"optimizer": optimizer, "lr": lr, "schedule": schedule})
    )
    assert epochs[-1].loss < epochs[0].loss


def test_weight_decay_spares_biases_and_normalizations():
    module = zoo_model("small_residual_cnn").module
    decayed, free = make_optimizer(module, Train(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0
    assert all(p.dim() > 1 for p in decayed["params"])
    assert {id(p) for p in free["params"]} >= {id(module.get_submodule("bn1").weight)}


def test_frozen_parameters_are_not_trained():
    model = zoo_model("mlp")
    frozen = model.module.get_submodule("0").weight.requires_grad_(False)
    before = frozen.detach().clone()
    fit(model, cross_entropy, a_run(Train(epochs=1), noise_splits(model).train))
    assert torch.equal(frozen, before)


def test_the_best_epoch_on_validation_data_is_kept():
    class Spoiler:
        """Cross entropy that turns round after the first epoch."""

        def __init__(self):
            self.calls = 0

        def __call__(self, logits, inputs, targets):
            self.calls += 1
            loss = cross_entropy(logits, inputs, targets)
            return loss if self.calls <= 38 else -loss.clamp(max=20)

    splits = digit_splits()
    model = zoo_model("small_residual_cnn")
    train = Train(epochs=2, batch_size=16, lr=0.05, schedule="constant")
    epochs = fit(model, Spoiler(), a_run(train, splits.train.head(600), splits.validation))
    assert epochs[1].accuracy < epochs[0].accuracy
    inputs, targets = splits.validation.prepare(torch.arange(len(splits.validation)).numpy())
    with torch.no_grad():
        correct = (model.module(*inputs).argmax(1) == targets).float().mean()
    assert float(correct) == pytest.approx(epochs[0].accuracy)


def test_without_validation_data_the_last_epoch_is_kept_and_no_accuracy_is_claimed():
    model = zoo_model("mlp")
    epochs = fit(model, cross_entropy, a_run(Train(epochs=2), noise_splits(model).train))
    assert [epoch.accuracy for epoch in epochs] == [None, None]


def test_validation_without_labels_ranks_by_loss():
    model = zoo_model("mlp")
    splits = noise_splits(model)
    unlabelled = replace(splits.validation, targets=None)
    epochs = fit(
        model,
        lambda logits, _inputs, _targets: logits.square().mean(),
        a_run(Train(epochs=2), splits.train, unlabelled),
    )
    assert [epoch.accuracy for epoch in epochs] == [None, None]


def explosion(logits, _inputs, _targets):
    return -logits.square().mean()


def test_a_run_that_diverges_at_once_says_where_and_what_to_do_and_gives_the_model_back():
    model = zoo_model("two_inputs")
    before = weights(model)
    train = Train(epochs=2, lr=10, schedule="constant", batch_size=1)
    with pytest.raises(TrainingDiverged) as error:
        fit(model, explosion, a_run(train, noise_splits(model, samples=300).train))
    assert "epoch 1, step " in error.value.detail
    assert "set train.lr (now 10) to a tenth" in error.value.detail
    assert same_weights(weights(model), before)


def test_a_run_that_diverges_later_keeps_the_best_epoch_and_says_so():
    class Explodes:
        """Cross entropy that becomes NaN in the third epoch."""

        calls = 0

        def __call__(self, logits, inputs, targets):
            self.calls += 1
            loss = cross_entropy(logits, inputs, targets)
            return loss if self.calls <= 22 else loss * float("nan")

    splits, model = digit_splits(), zoo_model("small_residual_cnn")
    run = a_run(Train(epochs=4, batch_size=64), splits.train.head(600), splits.validation)
    trained = loop.train(model, Explodes(), run)
    assert len(trained.epochs) == 2
    (warning,) = trained.warnings
    assert "became nan in epoch 3, step 23" in warning
    assert f"weights of epoch {trained.best_epoch} stay" in warning
    assert all(torch.isfinite(value).all() for value in weights(model).values())


def test_weights_that_break_in_the_last_step_are_not_kept():
    """The loss is 0, its gradient 0 times infinity."""
    model = zoo_model("two_inputs")

    def flat_with_a_wall(logits, _inputs, _targets):
        return (logits - logits.detach()).abs().sum().sqrt()

    with pytest.raises(TrainingDiverged, match="a weight"):
        fit(model, flat_with_a_wall, a_run(Train(epochs=1), noise_splits(model).train.head(9)))


def test_every_step_may_tell_progress_and_every_epoch_is_an_event(monkeypatch):
    assert trainer.UPDATE_SECONDS < 0.5
    monkeypatch.setattr(trainer, "UPDATE_SECONDS", 0.0)
    listener = Listener()
    trained(Train(epochs=3, batch_size=64), progress=listener)
    training = [message for _, message in listener.updates if "loss" in message]
    assert len(training) == 3 * 10
    assert training[0].startswith("epoch 1/3, loss ")
    fractions = [fraction for fraction, _ in listener.updates]
    assert fractions == sorted(fractions)
    assert all(0 < fraction <= 1 for fraction in fractions)
    assert [kind for kind, _ in listener.events] == [EventType.EPOCH] * 3
    assert set(listener.events[0][1]) >= {"epoch", "epochs", "loss", "accuracy", "lr"}


def test_augmenting_what_is_no_image_is_refused():
    model = zoo_model("mlp")
    with pytest.raises(InvalidRecipe, match="one image input"):
        fit(model, cross_entropy, a_run(Train(augment="crop"), noise_splits(model).train))


def test_batchnorm_with_batches_of_one_is_refused_before_it_trains():
    model = zoo_model("mlp")
    with pytest.raises(InvalidRecipe, match="batch_size to 2 or more"):
        fit(model, cross_entropy, a_run(Train(batch_size=1), noise_splits(model).train))


def test_a_last_batch_of_one_sample_is_no_trouble():
    model = zoo_model("mlp")
    train = noise_splits(model, samples=90).train.head(33)
    fit(model, cross_entropy, a_run(Train(epochs=1, batch_size=32), train))


def test_the_graph_trains_like_the_module_it_came_from():
    """Plain SGD over the same batches gives the same loss, step by step."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )
    model = canonical(module.eval(), (torch.randn(2, 1, 8, 8),))
    data = digit_splits().train.head(64)
    train = Train(
        epochs=4, batch_size=64, lr=0.1, momentum=0.9, weight_decay=0, schedule="constant"
    )
    ours = [epoch.loss for epoch in fit(model, cross_entropy, a_run(train, data))]
    optimizer = torch.optim.SGD(module.train().parameters(), lr=0.1, momentum=0.9)
    (inputs,), targets = data.prepare(torch.arange(64).numpy())
    for loss in ours:
        value = nn.functional.cross_entropy(module(inputs), targets)
        assert loss == pytest.approx(value.item(), rel=1e-4)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
