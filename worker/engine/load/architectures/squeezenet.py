"""SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planish.contract.architectures import SqueezeNet


class Fire(nn.Module):
    """Squeeze to few channels by 1x1, expand by 1x1 and by 3x3, side by side."""

    def __init__(self, before: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 2 * expanded, H, W)."""
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class Network(nn.Module):
    """Convolution, eight fire modules with pooling between, a 1x1 convolution for the classes."""

    def __init__(self, config: SqueezeNet) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2),
            nn.ReLU(),
            _pool(),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            _pool(),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            _pool(),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(config.dropout), nn.Conv2d(512, config.num_classes, 1), nn.ReLU()
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name of the model's input
        """Return logits, (N, num_classes), of images (N, 3, 224, 224)."""
        logits: Tensor = self.classifier(self.features(input)).mean((2, 3))
        return logits


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)
