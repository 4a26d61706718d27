"""DS-CNN for keyword spotting (Zhang et al. 2017, arXiv:1711.07128), BatchNorm folded in."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from planish.contract.architectures import DsCnn


class Network(nn.Module):
    """A stem and pairs of depthwise (``dw0`` …) and pointwise (``pw0`` …) convolutions."""

    def __init__(self, config: DsCnn) -> None:
        super().__init__()
        width = config.width
        self.blocks = config.blocks
        self.stem = nn.Conv2d(1, width, (10, 4), 2)
        for index in range(config.blocks):
            self.add_module(f"dw{index}", nn.Conv2d(width, width, 3, padding=1, groups=width))
            self.add_module(f"pw{index}", nn.Conv2d(width, width, 1))
        self.fc = nn.Linear(width, config.num_classes)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name of the model's input
        """Return logits, (N, num_classes), of MFCC frames (N, 1, 49, 10)."""
        x = F.relu(self.stem(F.pad(input, (1, 1, 4, 5))))
        for index in range(self.blocks):
            x = F.relu(self.get_submodule(f"dw{index}")(x))
            x = F.relu(self.get_submodule(f"pw{index}")(x))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits
