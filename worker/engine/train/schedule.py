"""How the learning rate moves over the steps of a run."""

from __future__ import annotations

import math

from planish.contract.recipe import Train

WARM_UP_SHARE = 0.3
START_DIVISOR = 25.0
END_DIVISOR = 1e4


def learning_rate(train: Train, step: int, steps: int) -> float:
    """Return the learning rate of step `step` (from 0) of `steps`.

    one_cycle: cosine rise from lr / 25 over the first 30 % of the steps, then cosine fall to
    lr / 10,000 (Smith and Topin 2018, arXiv:1708.07120, in the cosine form of torch's OneCycleLR).
    The others begin after the warm-up, in which the rate rises in equal steps (Goyal et al. 2017,
    arXiv:1706.02677, section 2.2). cosine: fall from lr to 0. linear: the same on a straight line.
    step: lr, a tenth of it after half of the steps, a hundredth after three quarters. constant: lr.
    """
    if train.schedule == "one_cycle":
        return _one_cycle(train.lr, step, steps)
    rising = round(train.warmup * steps)
    if step < rising:
        return train.lr * (step + 1) / (rising + 1)
    return train.lr * _fall(train.schedule, (step - rising) / (steps - rising))


def _one_cycle(lr: float, step: int, steps: int) -> float:
    peak = WARM_UP_SHARE * steps
    if step < peak:
        return _cosine(lr / START_DIVISOR, lr, step / peak)
    return _cosine(lr, lr / END_DIVISOR, (step - peak) / (steps - peak))


def _fall(schedule: str, share: float) -> float:
    """Return the factor of lr after a share of the steps."""
    if schedule == "cosine":
        return _cosine(1.0, 0.0, share)
    if schedule == "linear":
        return 1.0 - share
    if schedule == "step":
        return 1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01
    return 1.0


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
