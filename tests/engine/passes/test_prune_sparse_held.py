"""Zeros stay zero through training, and the cubic schedule ends at exactly what was asked."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from worker.engine.masks import lowest, lowest_of_all, pattern
from worker.engine.sparsity import Growth, Sparsity, hold, settled

WEIGHTS = ("0.weight", "1.weight")


def two_layers() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5))


def trained(module: nn.Module, sparsity: Sparsity, first: int, last: int, steps: int) -> list[int]:
    """Take noisy steps as a run of `steps` would from `first` on; return the zeros after each."""
    held = hold(module, sparsity, steps)
    zeros = []
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for weight in module.parameters():
            weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
        held.enforce(step)
        zeros.append(sum(int((w == 0).sum()) for w in module.parameters()))
    return zeros


def test_zeros_are_put_back_after_every_step():
    module = two_layers()
    module[0].weight.data[3] = 0.0
    zeros = trained(module, Sparsity(("0.weight", "gone.weight")), 0, 5, 5)
    assert zeros == [10] * 5
    assert (module[0].weight[3] == 0).all()


def test_averages_of_weights_get_the_zeros_too():
    module = two_layers()
    module[0].weight.data[3] = 0.0
    average = {"0.weight": torch.ones(20, 10), "1.weight": torch.ones(5, 20)}
    hold(module, Sparsity(WEIGHTS), 1).clean(average)
    assert (average["0.weight"][3] == 0).all()
    assert int(average["0.weight"].sum()) == 190
    assert int(average["1.weight"].sum()) == 100


def test_growth_follows_the_cubic_and_ends_after_two_thirds():
    growth = Growth({"0.weight": 100, "1.weight": 50}, "layer")
    zeros = trained(two_layers(), Sparsity(WEIGHTS, growth), 0, 30, 30)
    cubic = [1 - (1 - min((step + 1) / 20, 1)) ** 3 for step in range(30)]
    assert zeros == [round(s * 100) + round(s * 50) for s in cubic]
    assert zeros[19:] == [150] * 11


def test_growth_of_one_ranking_over_all_layers_ends_at_the_sum():
    module = two_layers()
    growth = Growth({"0.weight": 150, "1.weight": 75}, "global")
    assert trained(module, Sparsity(WEIGHTS, growth), 0, 9, 9)[-1] == 225
    assert all((w != 0).any() for w in module.parameters())


def test_growth_ranks_by_the_given_scores_among_the_candidates():
    module = two_layers()
    scores = {"0.weight": torch.arange(200.0).reshape(20, 10)}
    candidates = {"0.weight": torch.arange(200).reshape(20, 10) % 2 == 1}
    growth = Growth({"0.weight": 3}, "layer", scores, candidates)
    trained(module, Sparsity(WEIGHTS, growth), 0, 3, 3)
    assert (module[0].weight == 0).flatten().nonzero().flatten().tolist() == [1, 3, 5]


def test_a_run_that_resumes_ends_with_the_same_zeros():
    whole, parts = two_layers(), two_layers()
    sparsity = Sparsity(WEIGHTS, Growth({"0.weight": 120, "1.weight": 60}, "layer"))
    trained(whole, sparsity, 0, 30, 30)
    trained(parts, sparsity, 0, 11, 30)
    trained(parts, sparsity, 11, 30, 30)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 250])
def test_every_length_of_run_reaches_the_target(steps):
    module = two_layers()
    growth = Growth({"0.weight": 100, "1.weight": 50}, "layer")
    held = hold(module, Sparsity(WEIGHTS, growth), steps)
    for step in range(steps):
        assert not held.complete
        held.enforce(step)
        if held.complete:
            break
    assert held.complete
    assert step == math.ceil(steps * 2 / 3) - 1
    assert [int((module[i].weight == 0).sum()) for i in (0, 1)] == [100, 50]


def test_what_was_grown_is_only_held_afterwards():
    after = settled(Sparsity(WEIGHTS, Growth({"0.weight": 1}, "layer")))
    assert after is not None
    assert (after.weights, after.growth) == (WEIGHTS, None)
    assert settled(None) is None


def test_lowest_removes_exactly_as_many_also_among_equal_scores():
    score = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    assert lowest(score, 3).tolist() == [[False, False, True], [True, False, True]]
    assert not lowest(score, 0).any()


def test_one_ranking_over_all_layers_leaves_every_layer_alive():
    scores = {"weak": torch.full((10, 10), 1e-6), "strong": 1 + torch.rand(40, 10)}
    gone = lowest_of_all(scores, 250)
    assert sum(int(mask.sum()) for mask in gone.values()) == 250
    assert int((~gone["weak"]).sum()) == 5, "a tenth of an equal share: 0.1 * (1 - 0.5) * 100"


def test_pattern_keeps_the_largest_of_each_group_and_the_rest_of_a_row():
    rows = torch.tensor([[1.0, 2, 3, 4, 0], [9, 1, 9, 1, 0]])
    assert (~pattern(rows, 2, 4)).int().tolist() == [[0, 0, 1, 1, 1], [1, 0, 1, 0, 1]]
