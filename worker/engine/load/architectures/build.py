"""From a named config to a network in canonical form."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from planish.contract.architectures import (
    ArchitectureConfig,
    CifarResNet,
    DsCnn,
    ResNet8,
    SqueezeNet,
)
from planish.contract.architectures.published import PublishedConfig
from planish.contract.architectures.zoo import TimmConfig, TorchvisionConfig
from worker.engine.load.architectures import cifar_resnet, ds_cnn, resnet8, squeezenet
from worker.engine.load.architectures.asked import Asked
from worker.engine.load.architectures.published import build_published
from worker.engine.load.architectures.zoo import build_added, build_timm, build_torchvision
from worker.engine.load.pt2 import read_pt2
from worker.engine.model import InputSpec

_LENGTH = 7
"""Tokens of the example: neither the batch's size, nor 0 or 1, which exports take for fixed."""

# One line for each class of `planish.contract.architectures.ARCHITECTURES`.
_NETWORKS: dict[type[ArchitectureConfig], Callable[..., nn.Module]] = {
    CifarResNet: cifar_resnet.Network,
    ResNet8: resnet8.Network,
    DsCnn: ds_cnn.Network,
    SqueezeNet: squeezenet.Network,
}


def build_network(config: ArchitectureConfig) -> nn.Module:
    """Return the network of a config in eval mode; its weights mean nothing yet.

    Raises:
        ArchitectureUnavailable: this worker lacks the library that builds it.
        UnknownArchitecture: the library has no network of this name.
    """
    own = _NETWORKS.get(type(config))
    if own is not None:
        return own(config).eval()
    if isinstance(config, PublishedConfig):
        return build_published(config).eval()
    if isinstance(config, TimmConfig):
        return build_timm(config).eval()
    if isinstance(config, TorchvisionConfig):
        return build_torchvision(config).eval()
    return build_added(config).eval()


def export_network(network: nn.Module, inputs: tuple[InputSpec, ...]) -> fx.GraphModule:
    """Return a network of a library as a graph of ATen calls.

    It goes through a file and the reader of uploads, so that there is one way into the engine.

    Args:
        network: takes one tensor for each of `inputs`.
        inputs: the first dimension is the batch; others are numbers, or names of sizes that vary.
    """
    longest = network.ready(inputs) if isinstance(network, Asked) else None
    shapes = tuple(_dimensions(item, longest) for item in inputs)
    example = tuple(_example(item) for item in inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pt2"
        dynamic = (shapes,) if isinstance(network, Asked) else shapes
        torch.export.save(torch.export.export(network, example, dynamic_shapes=dynamic), path)
        return read_pt2(path)[0]


def _dimensions(item: InputSpec, longest: int | None) -> dict[int, torch.export.Dim]:
    most = {} if longest is None else {"max": longest}
    return {
        place: torch.export.Dim(size, **(most if place else {}))
        for place, size in enumerate(item.shape)
        if isinstance(size, str)
    }


def _example(item: InputSpec) -> Tensor:
    """Return what the graph is traced with: ones hide nothing where they are a mask."""
    shape = [
        (_LENGTH if place else 2) if isinstance(size, str) else size
        for place, size in enumerate(item.shape)
    ]
    return torch.ones(shape, dtype=item.dtype)
