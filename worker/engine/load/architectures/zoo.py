"""Networks of timm, torchvision and plugins; never with weights of theirs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

from torch import nn

from planish.contract.architectures import ArchitectureConfig, plugins
from planish.contract.architectures.zoo import TimmConfig, TorchvisionConfig
from planish.contract.errors import ArchitectureUnavailable, UnknownArchitecture

_SIZED = ("vit_", "deit", "beit_", "cait_", "swin", "mixer_", "gmlp_", "resmlp_", "xcit_", "levit_")
"""Names of timm whose networks have a position, or a place, for each part of the image."""


def build_timm(config: TimmConfig) -> nn.Module:
    """Return a network of timm.

    Raises:
        ArchitectureUnavailable: timm is not installed.
        UnknownArchitecture: this version of it has no such name.
    """
    timm = _imported("timm", "planish[timm]")
    if not timm.is_model(config.architecture):
        raise UnknownArchitecture(f"timm {timm.__version__} has no {config.architecture!r}")
    sized = {"img_size": config.image_size} if config.architecture.startswith(_SIZED) else {}
    network: nn.Module = timm.create_model(
        config.architecture,
        pretrained=False,
        num_classes=config.num_classes,
        in_chans=config.in_chans,
        drop_rate=config.drop_rate,
        **sized,
    )
    return network


def build_torchvision(config: TorchvisionConfig) -> nn.Module:
    """Return a network of torchvision.

    Raises:
        ArchitectureUnavailable: torchvision is not installed.
        UnknownArchitecture: this version of it has no such name.
    """
    models = _imported("torchvision.models", "planish[torchvision]")
    if config.architecture not in models.list_models(module=models):
        raise UnknownArchitecture(f"torchvision has no classifier {config.architecture!r}")
    sized = {"image_size": config.image_size} if config.architecture.startswith("vit_") else {}
    network: nn.Module = models.get_model(
        config.architecture, weights=None, num_classes=config.num_classes, **sized
    )
    return network


def build_added(config: ArchitectureConfig) -> nn.Module:
    """Return a network of a plugin.

    Raises:
        ArchitectureUnavailable: this worker has not got the plugin, or cannot import it.
    """
    for library, plugin in plugins().items():
        for known, network in plugin.architectures.values():
            if known is type(config):
                module, _, function = network.partition(":")
                build: Callable[[ArchitectureConfig], nn.Module] = getattr(
                    _imported(module, f"the plugin {library!r}"), function
                )
                return build(config)
    raise ArchitectureUnavailable(f"this worker has no plugin with {config.architecture!r}")


def _imported(module: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # torchvision of another torch raises all
        raise ArchitectureUnavailable(
            f"this worker cannot import {module}: {str(error)[:200]}; install {what} on it, or "
            "send a .pt2"
        ) from None
