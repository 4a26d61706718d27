"""ResNet-8 of MLPerf Tiny (arXiv:2106.07597), BatchNorm folded into its convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from planish.contract.architectures import ResNet8


class Network(nn.Module):
    """A stem and three residual blocks of 16, 32 and 64 channels."""

    def __init__(self, config: ResNet8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.b1_conv1 = nn.Conv2d(16, 16, 3, padding=1)
        self.b1_conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.b2_conv1 = nn.Conv2d(16, 32, 3, 2)
        self.b2_conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.b2_skip = nn.Conv2d(16, 32, 1, 2)
        self.b3_conv1 = nn.Conv2d(32, 64, 3, 2)
        self.b3_conv2 = nn.Conv2d(64, 64, 3, padding=1)
        self.b3_skip = nn.Conv2d(32, 64, 1, 2)
        self.fc = nn.Linear(64, config.num_classes)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name of the model's input
        """Return logits, (N, num_classes), of images (N, 3, 32, 32) with values 0 to 255."""
        x = F.relu(self.stem(input))
        x = F.relu(self.b1_conv2(F.relu(self.b1_conv1(x))) + x)
        y = self.b2_conv2(F.relu(self.b2_conv1(_pad_same(x))))
        x = F.relu(y + self.b2_skip(x))
        y = self.b3_conv2(F.relu(self.b3_conv1(_pad_same(x))))
        x = F.relu(y + self.b3_skip(x))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def _pad_same(x: Tensor) -> Tensor:
    """Pad right and below, as TensorFlow's SAME does for stride 2 on even sizes."""
    return F.pad(x, (0, 1, 0, 1))
