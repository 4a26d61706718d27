"""What holds for every pass on every network."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_leaves

from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Distill, Params, Prune, Retrain, Simplify, Train
from tests.engine.passes.models import (
    NETS,
    context,
    noise_splits,
    same_weights,
    weights,
    zoo_model,
)
from worker.engine.load.splits import Splits
from worker.engine.model import Model, first_output
from worker.engine.passes import Outcome, entry_for

TRAIN = Train(epochs=1, batch_size=16)
PASSES: tuple[Params, ...] = (
    Prune(round_to=1),
    Prune(method="random", scope="global", round_to=1),
    Distill(alpha=1.0, train=TRAIN),
    Retrain(train=TRAIN),
    Simplify(),
)


REFUSED = {
    ("two_inputs", "prune"),  # every layer feeds an output
    ("in_place", "prune"),
    ("tied", "retrain"),  # one output row per token, labels per sample
}
CASES = [(net, params) for net in NETS for params in PASSES if (net, params.op) not in REFUSED]


def splits_for(model: Model) -> Splits:
    with torch.no_grad():
        per_sample = first_output(model.module(*model.example())).dim() == 2
    return noise_splits(model, classes=3, labels=per_sample)


def output_shapes(model: Model, batch: int) -> list[torch.Size]:
    with torch.no_grad():
        return [t.shape for t in tree_leaves(model.module(*model.example(batch)))]


def outcome(name: str, params: Params) -> Outcome:
    model = zoo_model(name)
    ctx = context(model, params, splits=splits_for(model))
    teacher = weights(ctx.teacher)
    result = entry_for(params).run(model, params, ctx)
    assert same_weights(teacher, weights(ctx.teacher)), "the teacher was changed"
    assert not ctx.teacher.module.training
    return result


@pytest.mark.parametrize(("name", "op"), sorted(REFUSED))
def test_what_cannot_work_is_refused_with_a_reason(name, op):
    for params in PASSES:
        if params.op == op:
            with pytest.raises(InvalidRecipe):
                outcome(name, params)


@pytest.mark.parametrize(("name", "params"), CASES, ids=lambda v: v if isinstance(v, str) else v.op)
class TestEveryPass:
    def test_keeps_output_shapes_at_every_batch_size(self, name, params):
        result = outcome(name, params)
        for batch in (1, 2, 3):
            assert output_shapes(result.model, batch) == output_shapes(zoo_model(name), batch)

    def test_gives_the_same_bytes_for_the_same_seed(self, name, params):
        first, second = outcome(name, params), outcome(name, params)
        assert same_weights(weights(first.model), weights(second.model))
        assert first.facts == second.facts

    def test_hands_over_a_model_in_eval_mode_without_gradients(self, name, params):
        model = outcome(name, params).model
        assert not any(layer.training for layer in model.module.modules())
        assert all(p.grad is None for p in model.module.parameters())

    def test_says_what_it_changed_and_changes_nothing_else(self, name, params):
        result = outcome(name, params)
        changed = not same_weights(weights(zoo_model(name)), weights(result.model))
        assert result.changed == changed
        assert bool(result.layers) == changed
        assert changed or result.skipped

    def test_plans_what_it_does(self, name, params):
        result = outcome(name, params)
        model = zoo_model(name)
        before = weights(model)
        ctx = context(model, params, splits=splits_for(model))
        planned, plan = entry_for(params).plan(model, params, ctx)
        assert same_weights(before, weights(model)), "a plan must not touch the model"
        assert plan.layers == result.layers
        assert plan.layers_skipped == result.skipped
        shapes = {k: v.shape for k, v in planned.module.state_dict().items()}
        assert shapes == {k: v.shape for k, v in result.model.module.state_dict().items()}
