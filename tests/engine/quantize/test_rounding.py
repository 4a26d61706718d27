"""Bias correction, learned rounding and the walk that both ride on."""

from __future__ import annotations

import torch
from torch import nn

from planish.contract.recipe import Quantize
from tests.engine.passes.models import canonical, context, noise_splits
from tests.engine.quantize.conftest import Trained
from tests.zoo import seeded
from worker.engine.load.dataset import Dataset
from worker.engine.model import Model
from worker.engine.passes import quantize
from worker.engine.quantize.adaround import learn_rounding
from worker.engine.quantize.bias_correction import correct_biases
from worker.engine.quantize.pairs import pairs_of, rounding
from worker.engine.quantize.prepared import Prepared, observe, prepare
from worker.engine.quantize.walk import Site, walk

LAYERS = ("0", "2", "4")


def convnet() -> Model:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)
        )

    return canonical(*seeded(build, (2, 3, 8, 8)))


def calibrated(model: Model, samples: Dataset, **params: object) -> Prepared:
    prepared = prepare(model, Quantize(**params), LAYERS)
    observe(prepared, [inputs for inputs, _ in samples.batches(32)])
    return prepared


def answers(prepared: Prepared, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.no_grad(), rounding(pairs_of(prepared.graph).values()):
        return prepared.graph(*inputs)


def test_a_calibrated_graph_computes_in_float_until_its_pairs_round() -> None:
    model = convnet()
    samples = noise_splits(model).train
    prepared = calibrated(model.clone(), samples)
    inputs = model.example(4)
    with torch.no_grad():
        want = model.module(*inputs)
        assert torch.allclose(prepared.graph(*inputs), want, atol=1e-6)
    assert not torch.allclose(answers(prepared, inputs), want, atol=1e-6)


def test_the_walk_meets_every_layer_once_with_what_both_sides_compute() -> None:
    model = convnet()
    samples = noise_splits(model).train
    prepared = calibrated(model.clone(), samples)
    seen: dict[str, Site] = {}
    walk(prepared, samples, lambda site: seen.setdefault(site.layer, site))
    assert tuple(seen) == LAYERS
    inputs, _ = samples.prepare(torch.arange(len(samples)).numpy())
    with torch.no_grad():
        first = model.module.get_submodule("0")(*inputs)
    assert torch.allclose(seen["0"].wanted, first, atol=1e-6)


def test_bias_correction_takes_the_mean_error_away() -> None:
    model = convnet()
    with torch.no_grad():  # rounding that errs in one direction
        for name in LAYERS:
            layer = model.module.get_submodule(name)
            layer.weight[:, 0, 0, 0] = layer.weight.abs().max() * 8
    samples = noise_splits(model, samples=300).train
    inputs, _ = samples.prepare(torch.arange(len(samples)).numpy())
    with torch.no_grad():
        want = model.module(*inputs)
    prepared = calibrated(model.clone(), samples, granularity="tensor")
    before = (answers(prepared, inputs) - want).mean((0, 2, 3)).abs()
    assert correct_biases(prepared, samples) == 3
    after = (answers(prepared, inputs) - want).mean((0, 2, 3)).abs()
    assert after.max() < before.max() / 3


def test_learned_rounding_beats_nearest_and_stays_on_the_grid() -> None:
    model = convnet()
    samples = noise_splits(model, samples=120).train
    inputs, _ = samples.prepare(torch.arange(len(samples)).numpy())
    with torch.no_grad():
        want = model.module(*inputs)
    prepared = calibrated(model.clone(), samples, granularity="tensor", dtype="int8")
    start = {layer: prepared.weight(node).clone() for layer, node in prepared.calls()}
    before = float((answers(prepared, inputs) - want).square().mean())
    done = learn_rounding(prepared, samples, seed=0)
    after = float((answers(prepared, inputs) - want).square().mean())
    assert after < before
    assert all(item.learned <= item.nearest for item in done)
    for layer, node in prepared.calls():
        scale = prepared.pair(node, 1).scale
        steps = prepared.weight(node) / scale
        assert torch.allclose(steps, steps.round(), atol=1e-3)
        assert (prepared.weight(node) - start[layer]).abs().max() <= scale * 1.001


def test_same_seed_same_rounding() -> None:
    model = convnet()
    samples = noise_splits(model).train
    found = []
    for _ in range(2):
        prepared = calibrated(model.clone(), samples, granularity="tensor")
        learn_rounding(prepared, samples, seed=5)
        found.append(prepared.weights())
    assert all(torch.equal(found[0][name], found[1][name]) for name in LAYERS)


def test_layers_without_a_bias_get_one_to_correct(digits_net: Trained) -> None:
    net = nn.Sequential(nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 4, bias=False))
    model = canonical(net.eval(), (torch.randn(2, 64),))
    params = Quantize(algorithm="bias_correction", granularity="tensor")
    splits = noise_splits(model, samples=200)
    outcome = quantize.run(model, params, context(model, params, splits=splits))
    assert outcome.facts["biases_corrected"] == 2
    assert {"0.bias", "2.bias"} <= outcome.model.module.state_dict().keys()
