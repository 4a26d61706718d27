from __future__ import annotations

import torch
from torch import nn

from planish.contract.recipe import Train
from tests.engine.passes.models import weights
from tests.engine.train.runs import plain_net, trained
from worker.engine.train.compiled import Compiled


class Broken(nn.Module):
    """Computes, but cannot be compiled whole."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return 2 * x


def test_a_module_that_cannot_be_compiled_runs_as_it_is_and_says_so():
    module = Compiled(Broken(), wanted=True)
    assert torch.equal(module(torch.ones(3)), torch.full((3,), 2.0))
    (warning,) = module.warnings
    assert warning.startswith("torch.compile failed (")
    module(torch.ones(3))
    assert len(module.warnings) == 1


def test_a_compiled_run_is_the_eager_one_up_to_rounding():
    """Batches of two sizes; the last of an epoch is smaller."""
    params = Train(epochs=2, batch_size=50, lr=0.05)
    eager, _ = trained(params)
    compiled, run = trained(params.model_copy(update={"compile": True}), plain_net)
    assert run.warnings == ()
    ours, theirs = weights(eager), weights(compiled)
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) < 1e-4
