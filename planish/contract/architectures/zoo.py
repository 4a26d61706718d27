"""Networks of timm and torchvision, by name and a few scalars; never with their own weights."""

from __future__ import annotations

import re
from functools import cache
from typing import ClassVar

from pydantic import Field

from planish.contract.architectures.base import ArchitectureConfig, Classes, image_input
from planish.contract.spec import InputDeclaration

TIMM, TORCHVISION = "timm", "torchvision"

TIMM_NAMES = (
    "resnet|resnetv2_|resnext|wide_resnet|seresnet|seresnext|ecaresnet|res2net|regnet[xyz]_|"
    "densenet|vgg|inception_v[34]|xception|mobilenetv[1-4]|efficientnet_|efficientnetv2_|"
    "tf_efficientnet|mnasnet_|fbnet|ghostnet|repvgg_|rexnet|hrnet_|dla|dpn|squeezenet|"
    "convnext|convmixer_|mixer_|resmlp_|gmlp_|vit_|deit_|deit3_|beit_|cait_|xcit_|swin_|"
    "poolformer|efficientformer|levit_|mobilevit|tiny_vit_|edgenext"
)
TORCHVISION_NAMES = (
    "alexnet|resnet|resnext|wide_resnet|vgg|densenet|squeezenet|"
    "mobilenet_v|mnasnet|shufflenet_v2_|efficientnet_|regnet_|convnext_|vit_|swin_"
)
_REST = r"[a-z0-9_]{0,64}"


class TimmConfig(ArchitectureConfig):
    """A network of timm by its name; `pretrained` is always off."""

    library: ClassVar[str] = TIMM
    architecture: ClassVar[str] = rf"^({TIMM_NAMES}){_REST}$"
    source: ClassVar[str] = "Wightman 2019, github.com/huggingface/pytorch-image-models"

    num_classes: Classes = 1000
    in_chans: int = Field(3, ge=1, le=256, description="Channels of the images.")
    image_size: int = Field(224, ge=1, le=4096, description="Height and width.")
    drop_rate: float = Field(0.0, ge=0, lt=1, description="Before the classifier.")

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return images of `image_size`."""
        return (image_input(self.in_chans, self.image_size, self.image_size),)


class TorchvisionConfig(ArchitectureConfig):
    """A classifier of torchvision by its name; `weights` is always None."""

    library: ClassVar[str] = TORCHVISION
    architecture: ClassVar[str] = rf"^({TORCHVISION_NAMES}){_REST}$"
    source: ClassVar[str] = "torchvision.models, github.com/pytorch/vision"

    num_classes: Classes = 1000
    image_size: int = Field(224, ge=1, le=4096, description="Height and width.")

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return RGB images of `image_size`."""
        return (image_input(3, self.image_size, self.image_size),)


ZOO: tuple[type[ArchitectureConfig], ...] = (TimmConfig, TorchvisionConfig)


@cache
def named(library: type[ArchitectureConfig], name: str) -> type[ArchitectureConfig] | None:
    """Return the config class of one network of a zoo, None where the name is not on its list."""
    if re.fullmatch(library.architecture.removeprefix("^").removesuffix("$"), name) is None:
        return None
    return type(library.__name__, (library,), {"architecture": name, "__doc__": library.__doc__})
