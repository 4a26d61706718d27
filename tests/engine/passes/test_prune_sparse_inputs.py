"""wanda and SparseGPT look at what a layer is given; both against plain references."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planish.contract.recipe import Prune
from tests.engine.passes.models import CPU, canonical, context, noise_splits
from tests.zoo import seeded
from worker.engine.passes import prune
from worker.engine.passes.prune.ranking import by_row, wanda
from worker.engine.passes.prune.sparse_layers import SparseLayer
from worker.engine.passes.prune.sparsegpt import (
    DAMPING,
    eliminate,
    hessian,
    inverse_factor,
    pattern_of,
    saliency,
    share_of_each_block,
)
from worker.engine.passes.prune.walk import walk

LAYERS = {
    "linear": (nn.Linear(6, 4), (3, 5, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (2, 4, 9)),
    "conv2d": (nn.Conv2d(3, 8, (3, 2), stride=(1, 2), padding=(1, 0)), (2, 3, 5, 6)),
    "same": (nn.Conv2d(2, 4, 3, padding="same", dilation=2), (2, 2, 7, 7)),
    "grouped": (nn.Conv2d(6, 9, 3, groups=3), (2, 6, 5, 5)),
    "conv3d": (nn.Conv3d(2, 3, 2, padding=1), (2, 2, 3, 4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_rows_times_columns_are_the_layer(name):
    module, shape = LAYERS[name]
    layer, x = SparseLayer(name, module), torch.randn(shape)
    rows = layer.rows(layer.weight)
    parts = zip(layer.columns(x), rows.chunk(layer.groups), strict=True)
    product = torch.cat([columns @ part.T for columns, part in parts], dim=1) + module.bias
    expected = module(x)
    if not isinstance(module, nn.Linear):
        expected = expected.movedim(1, -1)
    assert torch.allclose(product, expected.reshape(product.shape), atol=1e-5)
    assert torch.equal(layer.shaped(rows), layer.weight)


@pytest.mark.parametrize("groups", [1, 2])
@torch.no_grad()
def test_rows_of_a_transposed_convolution_are_its_outputs(groups):
    module = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=groups, bias=False)
    layer, x = SparseLayer("up", module), torch.randn(2, 4, 3, 3)
    rows = layer.rows(layer.weight)
    assert torch.equal(layer.shaped(rows), layer.weight)
    rows[1] = 0.0
    module.weight.copy_(layer.shaped(rows))
    silent = module(x).abs().sum((0, 2, 3)) == 0
    assert silent.tolist() == [False, True, False, False, False, False]
    assert layer.columns(x).shape == (groups, 2 * 9, rows.shape[1])


def test_wanda_weighs_by_the_norm_of_the_inputs_and_compares_within_a_row():
    linear = nn.Linear(3, 2, bias=False)
    linear.weight.data = torch.tensor([[3.0, -1.0, 2.0], [0.1, 0.2, -0.3]])
    x = torch.tensor([[0.0, 3.0, 1.0], [1.0, 4.0, 0.0]])
    score = wanda(SparseLayer("", linear), x)
    assert torch.allclose(score, torch.tensor([[3.0, 5.0, 2.0], [0.1, 1.0, 0.3]]))
    assert by_row(score).argsort().tolist() == [[2, 0, 1], [0, 2, 1]]


@torch.no_grad()
def test_wanda_of_a_convolution_is_wanda_of_its_unfolded_inputs():
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    x = torch.randn(5, 3, 8, 8)
    unfolded = F.unfold(x, 3, padding=1, stride=2)
    expected = conv.weight.flatten(1).abs() * unfolded.square().sum((0, 2)).sqrt()
    assert torch.allclose(wanda(SparseLayer("", conv), x), expected, rtol=1e-4)


def layer_and_inputs(width: int = 12, outputs: int = 4, samples: int = 50) -> tuple[Tensor, Tensor]:
    """Return weights and correlated inputs, in double precision."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(width, width, generator=generator, dtype=torch.double)
    x = torch.randn(samples, width, generator=generator, dtype=torch.double) @ mix
    return torch.randn(outputs, width, generator=generator, dtype=torch.double), x


def damped(x: Tensor) -> Tensor:
    h = x.T @ x
    return h + DAMPING * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)


def brute_force(rows: Tensor, gone: Tensor, h: Tensor) -> Tensor:
    """Take weights away one by one, each made up for by least squares on the columns behind it."""
    weights = rows.clone()
    for row, j in itertools.product(range(len(rows)), range(rows.shape[1])):
        if gone[row, j]:
            lost = weights[row, j].clone()
            weights[row, j] = 0.0
            behind = slice(j + 1, None)
            weights[row, behind] += torch.linalg.lstsq(
                h[behind, behind], h[behind, j, None] * lost
            ).solution[:, 0]
    return weights


@pytest.mark.parametrize("block", [1, 4, 12])
def test_sparsegpt_is_least_squares_done_column_by_column(block):
    rows, x = layer_and_inputs()
    found = eliminate(rows, inverse_factor(x.T @ x), share_of_each_block(24, 12), block)
    gone = found == 0
    assert int(gone.sum()) == 24
    assert torch.allclose(found, brute_force(rows, gone, damped(x)), atol=1e-8)


def test_sparsegpt_of_the_first_columns_is_the_least_squares_optimum():
    rows, x = layer_and_inputs()
    first = torch.zeros(4, 12, dtype=torch.bool)
    first[:, :5] = True
    found = eliminate(rows, inverse_factor(x.T @ x), lambda _, at: first[:, at : at + 12])
    h = damped(x)
    best = torch.linalg.solve(h[5:, 5:], h[5:] @ rows.T).T
    assert (found[:, :5] == 0).all()
    assert torch.allclose(found[:, 5:], best, atol=1e-8)


def test_sparsegpt_errs_less_than_magnitude_on_correlated_inputs():
    rows, x = layer_and_inputs(64, 32, 400)
    found = eliminate(rows, inverse_factor(x.T @ x), share_of_each_block(1024, 64), 16)
    magnitude = rows.masked_fill(rows.abs() <= rows.abs().flatten().median(), 0.0)
    assert int((found == 0).sum()) == int((magnitude == 0).sum()) == 1024
    errors = [float((x @ (rows - other).T).square().sum()) for other in (found, magnitude)]
    assert errors[0] < 0.65 * errors[1]


def test_saliency_is_the_error_of_the_best_correction():
    rows, x = layer_and_inputs(6, 1)
    h = damped(x)
    score = saliency(rows, inverse_factor(x.T @ x))
    fixed = brute_force(rows, torch.tensor([[True] + [False] * 5]), h) - rows
    assert float(score[0, 0]) == pytest.approx(float((fixed @ h @ fixed.T)[0, 0]))


def test_patterns_are_chosen_with_all_corrections_before_them():
    rows, x = layer_and_inputs(14, 3)
    found = eliminate(rows, inverse_factor(x.T @ x), pattern_of(2, 4), 4)
    assert ((found[:, :12].reshape(-1, 4) != 0).sum(1) == 2).all()
    assert (found[:, 12:] != 0).all()
    assert torch.allclose(found, brute_force(rows, found == 0, damped(x)), atol=1e-8)


def test_inputs_that_are_always_zero_do_no_harm():
    linear = nn.Linear(4, 2)
    h = hessian(SparseLayer("", linear), torch.zeros(5, 4))
    found = eliminate(linear.weight.detach(), inverse_factor(h[0]), share_of_each_block(4, 4))
    assert torch.isfinite(found).all()
    assert int((found == 0).sum()) == 4


def test_each_layer_is_corrected_for_what_the_layers_before_it_lost():
    """Behind a pruned layer, the second is fitted to the inputs that it really gets."""
    model = canonical(
        *seeded(lambda: nn.Sequential(nn.Linear(16, 16, False), nn.Linear(16, 16, False)), (2, 16))
    )
    splits = noise_splits(model, 200)
    asked = Prune(structure="unstructured", method="sparsegpt", samples=100)
    result = prune.run(model, asked, context(model, asked, splits=splits)).model.module
    x = splits.calibration.head(100).prepare(range(100))[0][0]
    first, second = (result.get_parameter(f"{i}.weight").detach() for i in (0, 1))
    given = (x @ first.T).double()
    before = model.module.get_parameter("1.weight").detach()
    expected = brute_force(before.double(), second == 0, damped(given))
    assert torch.allclose(second.double(), expected, atol=1e-4)


def test_a_walk_stops_once_at_every_layer_and_uses_as_many_samples_as_there_are():
    model = canonical(*seeded(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), (2, 4)))
    layers = {n: SparseLayer(n, model.module.get_submodule(n)) for n in ("0", "1")}
    seen: list[tuple[str, int]] = []
    data = noise_splits(model, 40).calibration
    used = walk(model, layers, data, 1000, CPU, lambda la, x: seen.append((la.name, len(x))))
    assert seen == [("0", len(data)), ("1", len(data))]
    assert used == len(data)
