"""Vision transformers: ViT and DeiT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from planish.contract.architectures.base import Answer, Classes, image_input
from planish.contract.architectures.published import (
    BASE,
    IMAGE_CLASSES,
    Activation,
    Dropout,
    Epsilon,
    Heads,
    Inner,
    Layers,
    PublishedConfig,
    Width,
)
from planish.contract.spec import InputDeclaration

PIXELS = "pixel_values"
WITH_TEACHER = "image_classification_with_teacher"


class PatchConfig(PublishedConfig):
    """Base of vision transformers: an image as patches, learnt positions."""

    tokens: ClassVar[int]

    hidden_size: Width = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Heads = 12
    intermediate_size: Inner = 3072
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Dropout = 0.0
    attention_probs_dropout_prob: Dropout = 0.0
    layer_norm_eps: Epsilon = 1e-12
    image_size: int = Field(224, ge=1, le=4096, description="Height and width.")
    patch_size: int = Field(16, ge=1, le=1024)
    num_channels: int = Field(3, ge=1, le=256)
    qkv_bias: bool = True
    num_labels: Classes = 1000

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.patch_size > self.image_size:
            raise ValueError(f"patch_size {self.patch_size} is more than image_size")
        return self

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return images of `image_size`."""
        return (image_input(self.num_channels, self.image_size, self.image_size, PIXELS),)

    def accepts(self, stated: Sequence[InputDeclaration]) -> bool:
        """Tell whether these are images of this size: each patch has a position of its own."""
        return [(i.shape, i.dtype) for i in stated] == [(i.shape, i.dtype) for i in self.inputs()]

    def input_words(self) -> str:
        """Say what may differ."""
        return "the name may differ"

    def answer(self) -> Answer | None:
        """Return the classes, or the hidden states of all patches and tokens."""
        if self.head_name != BASE:
            return (self.num_labels,)
        return ((self.image_size // self.patch_size) ** 2 + self.tokens, self.hidden_size)


class VisionTransformer(PatchConfig):
    """ViT: an image as patches, a class token and learnt positions."""

    architecture: ClassVar[str] = "vit"
    source: ClassVar[str] = "Dosovitskiy et al. 2021, arXiv:2010.11929"
    classes: ClassVar[Mapping[str, str]] = {
        BASE: "ViTModel",
        IMAGE_CLASSES: "ViTForImageClassification",
    }
    tokens: ClassVar[int] = 1

    head: Literal["base", "image_classification"] = "image_classification"


class DeiT(PatchConfig):
    """DeiT: ViT with a distillation token; with its teacher's head the mean of both answers."""

    architecture: ClassVar[str] = "deit"
    source: ClassVar[str] = "Touvron et al. 2021, arXiv:2012.12877"
    classes: ClassVar[Mapping[str, str]] = {
        BASE: "DeiTModel",
        IMAGE_CLASSES: "DeiTForImageClassification",
        WITH_TEACHER: "DeiTForImageClassificationWithTeacher",
    }
    tokens: ClassVar[int] = 2

    head: Literal["base", "image_classification", "image_classification_with_teacher"] = (
        "image_classification"
    )


VISION = (VisionTransformer, DeiT)
