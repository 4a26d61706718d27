"""A network that nobody trained yet: an architecture by name, its weights drawn from a seed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from planish.contract.architectures.published import PublishedConfig
from planish.contract.spec import ModelSpec
from planish.gate.inputs import architecture_inputs
from worker.engine.load.architectures.build import build_network, export_network
from worker.engine.load.architectures.published import check_size, outline
from worker.engine.load.pt2 import input_spec
from worker.engine.load.remodularize import remodularize
from worker.engine.model import Model

MOST_WEIGHTS = 1_000_000_000
"""Of a network that starts at random; nothing but its config bounds it."""


def construct_model(spec: ModelSpec, seed: int, part: str = "student") -> Model:
    """Return a network of a named architecture with random weights, in canonical form.

    Convolutions are drawn as He et al. 2015 do (arXiv:1502.01852, section 2.2, fan out), without
    biases; other layers as torch draws them. Same seed, same weights; the caller's random state
    stays as it is.

    Args:
        spec: names the architecture.
        seed: all weights come from it.
        part: where it stands in the job, for the pointers of errors.

    Raises:
        ArchitectureRequired, UnknownArchitecture, InvalidModel: see `architecture_inputs`.
    """
    config, signatures = architecture_inputs(spec, part)
    inputs = tuple(map(input_spec, signatures))
    if isinstance(config, PublishedConfig):
        check_size(outline(lambda: build_network(config)), MOST_WEIGHTS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(config)
        for layer in network.modules():
            _draw(layer)
    return Model(remodularize(export_network(network, inputs)), inputs)


def _draw(layer: nn.Module) -> None:
    if not isinstance(layer, _ConvNd):
        return
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
