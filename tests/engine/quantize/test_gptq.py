"""GPTQ against rounding to nearest, and against the best that can be done."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from worker.engine.quantize.gptq import gptq, output_error
from worker.engine.quantize.grid import Grid, fit_grid, round_to_nearest


def _layer(seed: int, rows: int, columns: int, samples: int = 200) -> tuple[Tensor, Tensor]:
    """Return a weight and the Hessian of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator)
    inputs = torch.randn(samples, columns, generator=generator) @ mixing
    weight = torch.randn(rows, columns, generator=generator)
    return weight, (inputs.T @ inputs).double()


def _error(weight: Tensor, steps: Tensor, grid: Grid, hessian: Tensor) -> float:
    return output_error(weight, grid.values(steps, torch.arange(weight.shape[1])), hessian)


def _best(weight: Tensor, grid: Grid, hessian: Tensor) -> float:
    """Return the least error of all integers within two steps of rounding to nearest."""
    nearest = round_to_nearest(weight, grid)
    errors = []
    for moves in itertools.product((-2, -1, 0, 1, 2), repeat=weight.shape[1]):
        steps = (nearest + torch.tensor([moves], dtype=torch.int32)).clamp(grid.low, grid.high)
        errors.append(_error(weight, steps, grid, hessian))
    return min(errors)


def test_gptq_comes_near_the_best_of_all_roundings() -> None:
    ratios_nearest, ratios = [], []
    for seed in range(6):
        weight, hessian = _layer(seed, 1, 4)
        grid = fit_grid(weight, 4, None)
        best = _best(weight, grid, hessian)
        found = _error(weight, gptq(weight, hessian, grid), grid, hessian)
        nearest = _error(weight, round_to_nearest(weight, grid), grid, hessian)
        assert best <= found * (1 + 1e-6)
        ratios.append(found / best)
        ratios_nearest.append(nearest / best)
    assert sorted(ratios)[3] < 2 < sorted(ratios_nearest)[3]


@pytest.mark.parametrize(("bits", "group"), [(4, 16), (4, 32), (4, None), (8, None)])
def test_gptq_loses_less_of_the_output_than_rounding_to_nearest(
    bits: int, group: int | None
) -> None:
    weight, hessian = _layer(7, 24, 80)
    grid = fit_grid(weight, bits, group)
    nearest = _error(weight, round_to_nearest(weight, grid), grid, hessian)
    for act_order in (True, False):
        steps = gptq(weight, hessian, grid, act_order=act_order)
        assert grid.low <= int(steps.min()) <= int(steps.max()) <= grid.high
        assert _error(weight, steps, grid, hessian) < 0.7 * nearest


def test_without_correlation_gptq_rounds_to_nearest() -> None:
    weight, _ = _layer(1, 5, 16)
    grid = fit_grid(weight, 4, 16)
    steps = gptq(weight, torch.eye(16, dtype=torch.float64), grid)
    assert torch.equal(steps, round_to_nearest(weight, grid))


def test_inputs_that_are_always_zero_do_not_break_the_inverse() -> None:
    weight, hessian = _layer(2, 4, 12)
    hessian[3], hessian[:, 3] = 0, 0
    grid = fit_grid(weight, 4, None)
    steps = gptq(weight, hessian, grid)
    assert torch.equal(steps[:, 3], round_to_nearest(weight, grid)[:, 3])
