"""``python -m worker.demo_model FOLDER``: really trains a small network on really scanned digits.

1,797 handwritten digits of 43 people, 8x8 pixels, come with scikit-learn (UCI Optical Recognition
of Handwritten Digits). Writes what a user of Planish would send: ``digits.pt2`` (an exported
program with a dynamic batch), ``train.npz`` and ``test.npz`` (uint8 images of 0..16, labels).
Prints one JSON line: accuracy on the test digits and seconds of training.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

SEED = 7
TEST_SAMPLES = 450
EPOCHS = 12
BATCH = 32
PEAK_LR = 0.05
SCALE = 1 / 16  # pixels are 0..16


class Block(nn.Module):
    """conv-bn-relu-conv-bn, added to its input (or a 1x1 convolution of it)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, after, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitNet(nn.Module):
    """A residual network for 8x8 images; input (N, 1, 8, 8), logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 64, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(64)
        self.block1 = Block(64, 64, 1)
        self.block2 = Block(64, 96, 2)
        self.block3 = Block(96, 96, 1)
        self.head = nn.Linear(96, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits."""
        x = F.relu(self.bn(self.stem(image)))
        x = self.block3(self.block2(self.block1(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def main(folder: Path) -> None:
    """Train, export and write the data."""
    began = time.perf_counter()
    torch.set_num_threads(1)  # threads cost more than they bring on networks of this size
    torch.manual_seed(SEED)
    images, labels = _digits()
    train, test = images[TEST_SAMPLES:], images[:TEST_SAMPLES]
    train_labels, test_labels = labels[TEST_SAMPLES:], labels[:TEST_SAMPLES]
    net = DigitNet()
    _fit(net, _tensor(train), torch.from_numpy(train_labels))
    with torch.no_grad():
        correct = int((net(_tensor(test)).argmax(1).numpy() == test_labels).sum())
    _export(net, folder / "digits.pt2")
    np.savez(folder / "train.npz", image=train, targets=train_labels)
    np.savez(folder / "test.npz", image=test, targets=test_labels)
    seconds = round(time.perf_counter() - began, 1)
    told = {"correct": correct, "total": len(test), "seconds": seconds}
    sys.stdout.write(json.dumps(told) + "\n")


def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the scans as (N, 1, 8, 8) and their labels, shuffled."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(labels))
    return images.reshape(-1, 1, 8, 8).astype(np.uint8)[order], labels.astype(np.int64)[order]


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).float() * SCALE


def _fit(net: nn.Module, images: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.SGD(net.parameters(), PEAK_LR, 0.9, weight_decay=5e-4, nesterov=True)
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps)
    net.train()
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(labels)), BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images[rows]), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            schedule.step()
    net.eval()


def _export(net: nn.Module, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=4096)
    example = torch.zeros(2, 1, 8, 8)
    program = torch.export.export(net, (example,), dynamic_shapes={"image": {0: batch}})
    torch.export.save(program, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
