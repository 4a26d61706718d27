from __future__ import annotations

import pytest
import torch

from planish.contract.recipe import Train
from worker.engine.train.schedule import learning_rate


def rates(schedule: str, steps: int = 100, lr: float = 0.1) -> list[float]:
    train = Train(schedule=schedule, lr=lr)
    return [learning_rate(train, step, steps) for step in range(steps)]


def test_one_cycle_is_torchs_one_cycle():
    """Torch counts its last step as the end of the fall, ours ends one step later."""
    steps = 1000
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=steps + 1, pct_start=0.3, cycle_momentum=False
    )
    for rate in rates("one_cycle", steps):
        assert rate == pytest.approx(theirs.get_last_lr()[0], abs=3e-4)
        optimizer.step()
        theirs.step()


def test_one_cycle_starts_low_peaks_at_lr_and_ends_near_nothing():
    values = rates("one_cycle")
    assert values[0] == pytest.approx(0.1 / 25)
    assert max(values) == values[30] == pytest.approx(0.1)
    assert values[-1] < 0.1 / 500


def test_cosine_falls_from_lr_towards_zero():
    values = rates("cosine")
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.1)
    assert values[50] == pytest.approx(0.05)


def test_constant_is_constant():
    assert set(rates("constant")) == {0.1}


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_a_run_of_one_step_works(schedule):
    (rate,) = rates(schedule, steps=1)
    assert 0 < rate <= 0.1
