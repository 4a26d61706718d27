"""Images blended in pairs, and the targets of both (mixup).

Zhang et al. 2018, arXiv:1710.09412, section 2; with a teacher that answers for the blends
themselves: Beyer et al. 2022, arXiv:2106.05237, section 3.1 (function matching).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from worker.engine.train.augment import Draw, changed


@dataclass(frozen=True)
class Blended:
    """The targets of blended images.

    Attributes:
        targets: (N, ...) of the images that have the larger say on average.
        others: of those that were blended in.
        share: of the first, 0 to 1; the others have the rest.
    """

    targets: Tensor
    others: Tensor
    share: float

    def __getitem__(self, rows: slice) -> Blended:
        """Return the targets of some of the images."""
        return Blended(self.targets[rows], self.others[rows], self.share)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Blended:
        """Return the targets on a device."""
        first, second = (
            values.to(device, non_blocking=non_blocking) for values in (self.targets, self.others)
        )
        return Blended(first, second, self.share)

    def pin_memory(self) -> Blended:
        """Return the targets in memory that a GPU can read; a loader asks for it."""
        return Blended(self.targets.pin_memory(), self.others.pin_memory(), self.share)


Targets = Tensor | Blended | None


@dataclass(frozen=True)
class Blend:
    """What is blended into each image of a batch; drawn apart from the images.

    Attributes:
        partners: (N,) the sample that comes in.
        drawn: how it is shifted and mirrored first.
        share: of the image that was there, 0 to 1.
    """

    partners: Tensor
    drawn: Draw | None
    share: float

    def into(self, images: Tensor, partners: Tensor) -> Tensor:
        """Return images (N, C, H, W) with their partners, not yet changed, blended in."""
        return torch.lerp(changed(partners, self.drawn), images, self.share)


def draw_blend(
    indices: Tensor, drawn: Draw | None, own: slice, mixup: float, generator: Generator
) -> Blend:
    """Draw what comes into the images of one process: others of the same whole batch.

    Args:
        indices: samples of the whole batch.
        drawn: what happens to each of them.
        own: the images of this process.
        mixup: a of Beta(a, a), from which the share is drawn, above 0.
        generator: on the CPU; all randomness comes from it.
    """
    rows = torch.randperm(len(indices), generator=generator)[own]
    seed = int(torch.randint(1 << 62, (1,), generator=generator))
    share = float(np.random.default_rng(seed).beta(mixup, mixup))
    return Blend(indices[rows], None if drawn is None else drawn.part(rows), share)
