"""From a named config to a network in canonical form."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import fx, nn

from planish.contract.architectures import (
    ArchitectureConfig,
    CifarResNet,
    DsCnn,
    ResNet8,
    SqueezeNet,
)
from worker.engine.load.architectures import cifar_resnet, ds_cnn, resnet8, squeezenet
from worker.engine.load.pt2 import read_pt2
from worker.engine.model import InputSpec

# One line for each class of `planish.contract.architectures.ARCHITECTURES`.
_NETWORKS: dict[type[ArchitectureConfig], Callable[..., nn.Module]] = {
    CifarResNet: cifar_resnet.Network,
    ResNet8: resnet8.Network,
    DsCnn: ds_cnn.Network,
    SqueezeNet: squeezenet.Network,
}


def build_network(config: ArchitectureConfig) -> nn.Module:
    """Return the network of a config in eval mode; its weights mean nothing yet."""
    return _NETWORKS[type(config)](config).eval()


def export_network(network: nn.Module, inputs: tuple[InputSpec, ...]) -> fx.GraphModule:
    """Return a network of ours as a graph of ATen calls.

    It goes through a file and the reader of uploads, so that there is one way into the engine.

    Args:
        network: takes one tensor for each of `inputs`.
        inputs: the first dimension is the batch, the others are numbers.
    """
    example = tuple(
        torch.zeros([2, *(int(size) for size in item.shape[1:])], dtype=item.dtype)
        for item in inputs
    )
    batch = torch.export.Dim("batch")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pt2"
        dynamic = tuple({0: batch} for _ in inputs)
        torch.export.save(torch.export.export(network, example, dynamic_shapes=dynamic), path)
        return read_pt2(path)[0]
