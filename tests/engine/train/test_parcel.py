"""Models on their way to other processes: what trains there is what would have trained here."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.engine.passes.models import NETS, same_weights, weights, zoo_model
from tests.engine.train.runs import plain_net
from worker.engine.model import Model, first_output
from worker.engine.train.spread.parcel import read_model, write_model

MODELS = {name: partial(zoo_model, name) for name in NETS} | {
    "dropout": partial(plain_net, norm=True, dropout=0.4)
}


def step(model: Model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of one training step, and the gradients."""
    torch.manual_seed(7)
    module = model.module.train()
    loss = first_output(module(*model.example(4))).square().mean()
    loss.backward()
    gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    return loss.detach(), gradients


@pytest.mark.parametrize("name", MODELS)
def test_a_network_comes_out_of_its_parcel_as_it_went_in(tmp_path, name):
    model = MODELS[name]()
    before = weights(model)
    write_model(model, tmp_path, "model", training=True)
    assert same_weights(weights(model), before)
    assert not model.module.training
    again = read_model(tmp_path, "model")
    assert same_weights(weights(again), before)
    (ours, mine), (theirs, others) = step(model), step(again)
    torch.testing.assert_close(ours, theirs)
    assert mine.keys() == others.keys()
    for parameter in mine:
        torch.testing.assert_close(mine[parameter], others[parameter], atol=1e-6, rtol=1e-4)
    assert weights(model).keys() == weights(again).keys()
    for tensor, value in weights(model).items():  # BatchNorm learnt the same
        torch.testing.assert_close(value, weights(again)[tensor])
