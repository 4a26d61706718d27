"""Use the engine as a plain library: no server, no queue.

    python examples/engine_only.py [OUT_DIR]

Trains a small residual CNN on scikit-learn's handwritten digits, exports it, and lets the engine
prune, distill and quantize it. Needs `pip install 'planish[worker,demo]'` and a checkout.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import JsonValue
from sklearn.datasets import load_digits
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from planish.contract.job import EventType
from planish.contract.recipe import Distill, Prune, Quantize, Train
from planish.contract.spec import DataSpec, Preprocess, Spec
from worker.engine import JobInputs, optimize
from worker.engine.report.words import headline


class Network(nn.Module):
    """A little residual network for 8x8 images."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, 10)."""
        x = F.relu(self.stem(x))
        y = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(x + self.norm2(self.conv2(y)))
        return self.head(x.mean((2, 3)))


class Printer:
    """Shows the stages of the job."""

    def stage(self, name: str, step: int, steps: int) -> None:
        """Print a stage when it begins."""
        print(f"[{step}/{steps}] {name}")

    def update(self, fraction: float, message: str) -> None:
        """Leave fractions out."""

    def event(self, kind: EventType, data: dict[str, JsonValue]) -> None:
        """Print epochs and warnings."""
        if kind is EventType.EPOCH:
            print(f"      epoch {data['epoch']}: loss {data['loss']:.3f}")
        elif kind is EventType.WARNING:
            print(f"      {data['message']}")


def train(images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Train for real: 8 epochs of Adam."""
    torch.manual_seed(0)
    network, targets = Network(), torch.from_numpy(labels)
    inputs = torch.from_numpy(images / np.float32(16))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(8):
        for rows in torch.randperm(len(targets)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    return network.eval()


def main() -> None:
    """Train, export, optimize, and say what came out."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "engine-out")
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images.reshape(-1, 1, 8, 8).astype(np.uint8)[order], labels[order]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "digits.pt2")
        data, test_data = Path(folder, "train.npz"), Path(folder, "test.npz")
        network = train(images[:1300], labels[:1300])
        batch = torch.export.Dim("batch")
        example = (torch.randn(2, 1, 8, 8),)
        exported = torch.export.export(network, example, dynamic_shapes=({0: batch},))
        torch.export.save(exported, model)
        np.savez(data, inputs=images[:1300], targets=labels[:1300])
        np.savez(test_data, inputs=images[1300:], targets=labels[1300:])
        spec = Spec(
            data=DataSpec(preprocess=Preprocess(scale=1 / 16)),
            recipe=(
                Prune(sparsity=0.5, ignore=("stem",)),
                Distill(train=Train(epochs=8, optimizer="adam", lr=0.003)),
                Quantize(mode="static"),
            ),
        )
        report = optimize(JobInputs(None, spec, model, data, test_data), out, Printer())
    print(headline(report))
    print(f"report: {out / 'report.html'}")


if __name__ == "__main__":
    main()
