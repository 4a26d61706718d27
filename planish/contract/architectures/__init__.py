"""The architectures that bare weights can name: their config, inputs and source; no code of torch.

Planish's own small set, the types of transformers, names of timm and torchvision, and what
operators add by the entry point `planish.architectures`.
"""

from planish.contract.architectures.base import (
    OWN_LIBRARY,
    Answer,
    ArchitectureConfig,
    ArchitectureEntry,
    image_input,
)
from planish.contract.architectures.find import (
    ARCHITECTURES,
    CLASSES,
    PUBLISHED,
    all_architectures,
    find_architecture,
)
from planish.contract.architectures.own import CifarResNet, DsCnn, ResNet8, SqueezeNet
from planish.contract.architectures.plugins import GROUP, ArchitecturePlugin, plugins

__all__ = [
    "ARCHITECTURES",
    "CLASSES",
    "GROUP",
    "OWN_LIBRARY",
    "PUBLISHED",
    "Answer",
    "ArchitectureConfig",
    "ArchitectureEntry",
    "ArchitecturePlugin",
    "CifarResNet",
    "DsCnn",
    "ResNet8",
    "SqueezeNet",
    "all_architectures",
    "find_architecture",
    "image_input",
    "plugins",
]
