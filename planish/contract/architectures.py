"""The architectures that bare weights can name: their config, inputs and source; no code of torch.

Each config class is one architecture. Its docstring is the summary shown to people; `inputs` says
what a network of this config takes.
"""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from planish.contract.errors import UnknownArchitecture
from planish.contract.problem import FieldError
from planish.contract.spec import Architecture, InputDeclaration
from planish.contract.validation import field_errors

LIBRARY = "planish"
INPUT = "input"

Classes = Annotated[int, Field(ge=1, le=1_000_000, description="Number of outputs.")]


class ArchitectureConfig(BaseModel, ABC):
    """Base of all configs: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    architecture: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return what a network of this config takes."""


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
        return (_image(3, 32, 32),)


class ResNet8(ArchitectureConfig):
    """Three residual blocks with BatchNorm folded in, from MLPerf Tiny; pixels from 0 to 255."""

    architecture: ClassVar[str] = "resnet8"
    source: ClassVar[str] = "MLPerf Tiny, arXiv:2106.07597, image classification"

    num_classes: Classes = 10

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return one RGB image of 32x32."""
        return (_image(3, 32, 32),)


class DsCnn(ArchitectureConfig):
    """Depthwise separable CNN for keyword spotting, BatchNorm folded in, from MLPerf Tiny."""

    architecture: ClassVar[str] = "ds_cnn"
    source: ClassVar[str] = "Zhang et al. 2017, arXiv:1711.07128; MLPerf Tiny, arXiv:2106.07597"

    num_classes: Classes = 12
    width: int = Field(64, ge=1, le=1024, description="Channels of every layer.")
    blocks: int = Field(4, ge=1, le=64, description="Depthwise and pointwise pairs.")

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return 49 frames of 10 MFCC."""
        return (_image(1, 49, 10),)


class SqueezeNet(ArchitectureConfig):
    """SqueezeNet 1.1: fire modules that squeeze to 1x1 and expand to 1x1 and 3x3."""

    architecture: ClassVar[str] = "squeezenet1_1"
    source: ClassVar[str] = "Iandola et al. 2016, arXiv:1602.07360; version 1.1 of its repository"

    num_classes: Classes = 1000
    dropout: float = Field(0.5, ge=0, lt=1, description="Before the last convolution.")

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return one RGB image of 224x224."""
        return (_image(3, 224, 224),)


@dataclass(frozen=True)
class ArchitectureEntry:
    """One line of the catalogue."""

    library: str
    name: str
    config: type[ArchitectureConfig]

    @property
    def summary(self) -> str:
        """What it is, in a sentence."""
        return inspect.cleandoc(self.config.__doc__ or "")

    @property
    def source(self) -> str:
        """Paper and section."""
        return self.config.source

    @property
    def inputs(self) -> tuple[InputDeclaration, ...]:
        """What a network of the default config takes."""
        return self.config().inputs()


ARCHITECTURES = tuple(
    ArchitectureEntry(LIBRARY, config.architecture, config)
    for config in (CifarResNet, ResNet8, DsCnn, SqueezeNet)
)


def find_architecture(wanted: Architecture, part: str = "model") -> ArchitectureConfig:
    """Return the checked config of a named architecture.

    Args:
        wanted: as the spec says it.
        part: the part of the spec that it stands in, for the pointers of errors.

    Raises:
        UnknownArchitecture: no such library or name (the nearest is named), or a config key or
            value that it does not take.
    """
    place = f"/{part}/architecture"
    if wanted.library != LIBRARY:
        detail = f"unknown library {wanted.library!r}; known: {LIBRARY}"
        raise UnknownArchitecture(detail, (FieldError(pointer=f"{place}/library", detail=detail),))
    names = [entry.name for entry in ARCHITECTURES]
    if wanted.name not in names:
        near = difflib.get_close_matches(wanted.name, names, 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        detail = f"unknown architecture {wanted.name!r}{hint}; known: {', '.join(names)}"
        raise UnknownArchitecture(detail, (FieldError(pointer=f"{place}/name", detail=detail),))
    config = ARCHITECTURES[names.index(wanted.name)].config
    try:
        return config.model_validate(wanted.config)
    except ValidationError as error:
        errors = tuple(
            FieldError(pointer=f"{place}/config{e.pointer}", detail=e.detail)
            for e in field_errors(error, config)
        )
        detail = "; ".join(f"{e.pointer.rpartition('/')[2]}: {e.detail}" for e in errors[:5])
        raise UnknownArchitecture(f"{wanted.name}: {detail}", errors) from None


def _image(channels: int, height: int, width: int) -> InputDeclaration:
    return InputDeclaration(name=INPUT, shape=("batch", channels, height, width), dtype="float32")
