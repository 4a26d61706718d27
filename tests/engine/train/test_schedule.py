from __future__ import annotations

import pytest
import torch

from planish.contract.recipe import Train
from worker.engine.train.schedule import learning_rate


def rates(schedule: str, steps: int = 100, lr: float = 0.1, warmup: float = 0.0) -> list[float]:
    train = Train(schedule=schedule, lr=lr, warmup=warmup)
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


def test_linear_falls_in_equal_steps():
    values = rates("linear")
    assert values == pytest.approx([0.1 * (100 - step) / 100 for step in range(100)])


def test_step_falls_to_a_tenth_after_half_and_after_three_quarters():
    values = rates("step")
    assert values == pytest.approx([0.1] * 50 + [0.01] * 25 + [0.001] * 25)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "constant"])
def test_warm_up_rises_in_equal_steps_and_the_schedule_takes_the_rest(schedule):
    values = rates(schedule, warmup=0.2)
    assert values[:20] == pytest.approx([0.1 * (step + 1) / 21 for step in range(20)])
    assert values[20:] == pytest.approx(rates(schedule, steps=80))


def test_one_cycle_has_a_warm_up_of_its_own():
    assert rates("one_cycle", warmup=0.5) == rates("one_cycle")


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "linear", "constant"])
def test_a_run_of_one_step_works(schedule):
    (rate,) = rates(schedule, steps=1)
    assert 0 < rate <= 0.1
