"""Random shifts and flips, drawn anew for each image of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Augmentation = Literal["none", "crop", "crop_flip"]


@dataclass(frozen=True)
class Draw:
    """What happens to each image of a batch; drawn apart from the images, so any process can.

    Attributes:
        up: (N,) first row of each window into the padded image.
        left: (N,) first column.
        mirrored: (N,) whether left and right change places; None: never.
    """

    up: Tensor
    left: Tensor
    mirrored: Tensor | None

    def part(self, rows: slice | Tensor) -> Draw:
        """Return what happens to some of the images."""
        mirrored = None if self.mirrored is None else self.mirrored[rows]
        return Draw(self.up[rows], self.left[rows], mirrored)


def draw(count: int, sides: Sequence[int], kind: Augmentation, generator: Generator) -> Draw | None:
    """Draw the changes of a batch; None where there are none.

    Args:
        count: images.
        sides: height and width of an image, in pixels.
        kind: crop shifts each image by up to 1/8 of its side, zeros come in; crop_flip also mirrors
            each image with probability 1/2.
        generator: on the CPU; all randomness comes from it.
    """
    if kind == "none":
        return None
    up, left = (
        torch.randint(0, 2 * _margin(side) + 1, (count,), generator=generator) for side in sides
    )
    mirrored = torch.rand(count, generator=generator) < 0.5 if kind == "crop_flip" else None
    return Draw(up, left, mirrored)


def changed(images: Tensor, drawn: Draw | None) -> Tensor:
    """Return images (N, C, H, W) shifted and mirrored as drawn."""
    if drawn is None:
        return images
    count, _, height, width = images.shape
    rows, columns = _margin(height), _margin(width)
    padded = F.pad(images, (columns, columns, rows, rows))
    down = drawn.up[:, None] + torch.arange(height)
    across = drawn.left[:, None] + torch.arange(width)
    if drawn.mirrored is not None:
        across = torch.where(drawn.mirrored[:, None], across.flip(1), across)
    down, across = down.to(images.device), across.to(images.device)
    image = torch.arange(count, device=images.device)[:, None, None]
    # Channels last: every index then moves one whole pixel.
    pixels = padded.permute(0, 2, 3, 1)[image, down[:, :, None], across[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def augment(images: Tensor, kind: Augmentation, generator: Generator) -> Tensor:
    """Return a randomly changed copy of a batch; see `draw`."""
    return changed(images, draw(len(images), images.shape[2:], kind, generator))


def _margin(side: int) -> int:
    """Return how many pixels a window may move in each direction."""
    return -(-side // 8)
