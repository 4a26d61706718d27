from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Train
from tests.engine.passes.models import digit_splits, same_weights, weights, zoo_model
from tests.engine.train.runs import a_run, plain_net, trained
from worker.engine.sparsity import Sparsity
from worker.engine.train.loop import train
from worker.engine.train.losses import cross_entropy, task_loss
from worker.engine.train.optimizer import make_optimizer

SHORT = Train(epochs=2, batch_size=60, lr=0.05, momentum=0.9)


def changed(**update) -> Train:
    return SHORT.model_copy(update=update)


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_accumulated_pieces_are_the_whole_batch():
    whole, _ = trained(SHORT)
    for pieces in (2, 7):
        parts, _ = trained(changed(accumulate=pieces))
        assert 0 < furthest(weights(whole), weights(parts)) < 1e-5


def test_pieces_of_unequal_length_weigh_by_the_tokens_that_count():
    """The mean over all tokens, not the mean of the pieces' means."""
    model = zoo_model("tiny_transformer")
    loss = task_loss("language_modeling")
    targets = torch.tensor([[1, 2, -100, -100], [1, 2, 3, 4]])
    assert loss.terms(targets) == 4
    logits = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    pieces = [loss(logits[i : i + 1], (), targets[i : i + 1]) for i in range(2)]
    weighted = (pieces[0] * 1 + pieces[1] * 3) / 4
    torch.testing.assert_close(loss(logits, (), targets), weighted)
    assert model is not None


def test_more_pieces_than_samples_are_refused():
    with pytest.raises(InvalidRecipe, match="larger batch_size"):
        trained(changed(accumulate=64))


def test_pieces_of_one_sample_are_refused_where_batchnorm_needs_two():
    with pytest.raises(InvalidRecipe, match="BatchNorm"):
        trained(changed(accumulate=60), partial(plain_net, norm=True))


def test_a_clipped_step_is_no_longer_than_the_limit_allows():
    before = weights(plain_net())
    plain = changed(epochs=1, batch_size=240, momentum=0.0, weight_decay=0.0, schedule="constant")
    model, _ = trained(plain.model_copy(update={"clip_norm": 1e-3}))
    moved = math.sqrt(sum(float((weights(model)[n] - before[n]).square().sum()) for n in before))
    assert moved == pytest.approx(0.05 * 1e-3, rel=1e-2)


def test_label_smoothing_is_torchs():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 4])
    wanted = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(task_loss("classification", 0.2)(logits, (), labels), wanted)


def test_averaged_weights_are_those_that_are_kept():
    """Golden: the average by hand over a run of one step each epoch."""
    decay, rate = 0.5, 0.05
    plain = changed(
        epochs=3, batch_size=240, momentum=0.0, weight_decay=0.0, schedule="constant", lr=rate
    )
    states = [
        weights(trained(plain.model_copy(update={"epochs": epochs}))[0]) for epochs in (1, 2, 3)
    ]
    average = weights(plain_net())
    for step, state in enumerate(states):
        now = min(decay, (1 + step) / (10 + step))
        average = {name: now * average[name] + (1 - now) * state[name] for name in average}
    model, _ = trained(plain.model_copy(update={"ema_decay": decay}))
    assert furthest(weights(model), average) < 1e-6


def test_averages_of_batchnorm_statistics_are_kept_too():
    net = partial(plain_net, norm=True)
    raw, averaged = (trained(changed(ema_decay=d), net)[0] for d in (None, 0.99))
    first = raw.module.get_submodule("1").running_mean
    second = averaged.module.get_submodule("1").running_mean
    assert not torch.equal(first, second)
    counts = [m.module.get_submodule("1").num_batches_tracked for m in (raw, averaged)]
    assert int(counts[0]) == int(counts[1]) == 8


@pytest.mark.parametrize("update", [{}, {"ema_decay": 0.9}, {"optimizer": "adamw", "lr": 0.01}])
def test_zeros_of_sparsity_stay_zero(update):
    model = plain_net()
    weight = model.module.get_submodule("5").weight
    with torch.no_grad():
        weight[weight.abs() < weight.abs().median()] = 0
    zeros = weight == 0
    sparsity = Sparsity(("5.weight",))
    train(model, cross_entropy, a_run(changed(**update), sparsity=sparsity))
    after = model.module.get_submodule("5").weight
    assert torch.equal(after == 0, zeros)


def test_batches_from_other_processes_are_the_same():
    params = changed(augment="crop_flip", accumulate=2)
    here, _ = trained(params)
    there, _ = trained(params.model_copy(update={"workers": 2}))
    assert same_weights(weights(here), weights(there))


def test_dropout_is_the_same_with_batches_from_other_processes():
    net = partial(plain_net, dropout=0.5)
    here, there = (trained(changed(workers=n), net)[0] for n in (0, 1))
    assert same_weights(weights(here), weights(there))
    other, _ = trained(SHORT, net, seed=1)
    assert not same_weights(weights(here), weights(other))


def test_early_stopping_ends_a_run_that_gets_no_better():
    splits = digit_splits()
    params = changed(epochs=30, lr=1e-9, early_stopping=2)
    _, run = trained(params, validation=splits.validation)
    assert len(run.epochs) == 3
    assert run.score_name == "accuracy"


def test_bf16_learns_and_the_weights_stay_float():
    model, run = trained(changed(amp="bf16", epochs=4))
    assert run.epochs[-1].loss < run.epochs[0].loss
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    exact, _ = trained(changed(epochs=4))
    assert furthest(weights(model), weights(exact)) > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_one_step_is_torchs_own(optimizer):
    """The fused kernels against the plain loops of torch."""
    params = changed(epochs=1, batch_size=240, optimizer=optimizer, schedule="constant")
    model, _ = trained(params)
    twin = plain_net().module.train()
    ours = make_optimizer(twin, params)
    plain = type(ours)(ours.param_groups, lr=0.05, foreach=False, fused=False)
    inputs, targets = a_run(params).data.prepare(torch.arange(240).numpy())
    cross_entropy(twin(*inputs), inputs, targets).backward()
    plain.step()
    twin_weights = {name: value.detach() for name, value in twin.state_dict().items()}
    assert furthest(weights(model), twin_weights) < 1e-5
