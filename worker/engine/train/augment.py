"""Random shifts and flips, drawn anew for each image of a batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Augmentation = Literal["none", "crop", "crop_flip"]


def augment(images: Tensor, kind: Augmentation, generator: Generator) -> Tensor:
    """Return a randomly changed copy of a batch.

    Args:
        images: (N, C, H, W).
        kind: crop shifts each image by up to 1/8 of its side, zeros come in; crop_flip also mirrors
            each image with probability 1/2.
        generator: on the CPU; all randomness comes from it.
    """
    if kind == "none":
        return images
    images = _shift(images, generator)
    if kind == "crop":
        return images
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    mirrored = mirrored.to(images.device)[:, None, None, None]
    return torch.where(mirrored, images.flip(3), images)


def _shift(images: Tensor, generator: Generator) -> Tensor:
    count, channels, height, width = images.shape
    up, left = -(-height // 8), -(-width // 8)
    padded = F.pad(images, (left, left, up, up))
    rows = _window(count, height, up, generator).to(images.device)
    columns = _window(count, width, left, generator).to(images.device)
    image = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _window(count: int, size: int, margin: int, generator: Generator) -> Tensor:
    """Return (count, size) indices into a side that was padded by `margin` at both ends."""
    start = torch.randint(0, 2 * margin + 1, (count, 1), generator=generator)
    return start + torch.arange(size)
