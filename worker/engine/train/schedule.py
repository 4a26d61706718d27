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
    cosine: fall from lr to 0. constant: lr.
    """
    if train.schedule == "constant":
        return train.lr
    if train.schedule == "cosine":
        return _cosine(train.lr, 0.0, step / steps)
    peak = WARM_UP_SHARE * steps
    if step < peak:
        return _cosine(train.lr / START_DIVISOR, train.lr, step / peak)
    return _cosine(train.lr, train.lr / END_DIVISOR, (step - peak) / (steps - peak))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
