"""Planish's own small set: networks for small images and keyword spotting, and SqueezeNet."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from planish.contract.architectures.base import ArchitectureConfig, Classes, image_input
from planish.contract.spec import InputDeclaration


def _cifar_depth(depth: int) -> int:
    if (depth - 2) % 6:
        raise ValueError("depth must be 6n + 2: 8, 14, 20, 32, 44, 56, 110, …")
    return depth


class CifarResNet(ArchitectureConfig):
    """ResNet for 32x32 images: three stages of basic blocks, parameter-free shortcuts."""

    architecture: ClassVar[str] = "cifar_resnet"
    source: ClassVar[str] = "He et al. 2016, arXiv:1512.03385, section 4.2"

    depth: Annotated[int, Field(ge=8, le=1202), AfterValidator(_cifar_depth)] = Field(
        20, description="Layers: 6n + 2."
    )
    num_classes: Classes = 10
    width: int = Field(16, ge=1, le=1024, description="Channels of the first stage.")
    shortcut: Literal["A"] = Field("A", description="A: subsampling and zero channels.")

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return one RGB image of 32x32."""
        return (image_input(3, 32, 32),)


class ResNet8(ArchitectureConfig):
    """Three residual blocks with BatchNorm folded in, from MLPerf Tiny; pixels from 0 to 255."""

    architecture: ClassVar[str] = "resnet8"
    source: ClassVar[str] = "MLPerf Tiny, arXiv:2106.07597, image classification"

    num_classes: Classes = 10

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return one RGB image of 32x32."""
        return (image_input(3, 32, 32),)


class DsCnn(ArchitectureConfig):
    """Depthwise separable CNN for keyword spotting, BatchNorm folded in, from MLPerf Tiny."""

    architecture: ClassVar[str] = "ds_cnn"
    source: ClassVar[str] = "Zhang et al. 2017, arXiv:1711.07128; MLPerf Tiny, arXiv:2106.07597"

    num_classes: Classes = 12
    width: int = Field(64, ge=1, le=1024, description="Channels of every layer.")
    blocks: int = Field(4, ge=1, le=64, description="Depthwise and pointwise pairs.")

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return 49 frames of 10 MFCC."""
        return (image_input(1, 49, 10),)


class SqueezeNet(ArchitectureConfig):
    """SqueezeNet 1.1: fire modules that squeeze to 1x1 and expand to 1x1 and 3x3."""

    architecture: ClassVar[str] = "squeezenet1_1"
    source: ClassVar[str] = "Iandola et al. 2016, arXiv:1602.07360; version 1.1 of its repository"

    num_classes: Classes = 1000
    dropout: float = Field(0.5, ge=0, lt=1, description="Before the last convolution.")

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return one RGB image of 224x224."""
        return (image_input(3, 224, 224),)


OWN = (CifarResNet, ResNet8, DsCnn, SqueezeNet)
