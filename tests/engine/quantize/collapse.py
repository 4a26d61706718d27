"""A MobileNet-type network, and the scaling that makes its int8 collapse without changing it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def unit(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return convolution, BatchNorm, ReLU."""
    conv = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


class InvertedResidual(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down without activation, added where shapes agree."""

    def __init__(self, before: int, after: int, stride: int, factor: int) -> None:
        super().__init__()
        inner = before * factor
        self.up = unit(before, inner, 1)
        self.depthwise = unit(inner, inner, 3, stride, groups=inner)
        self.down = nn.Conv2d(inner, after, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.added = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, after, H / stride, W / stride)."""
        y = self.norm(self.down(self.depthwise(self.up(x))))
        return x + y if self.added else y


class SmallMobileNet(nn.Module):
    """Inverted residual blocks as in MobileNetV2 (Sandler et al. 2018), with ReLU."""

    def __init__(self, channels: int, widths: tuple[int, ...], classes: int, factor: int) -> None:
        super().__init__()
        self.stem = unit(channels, widths[0], 3)
        pairs = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.blocks = nn.Sequential(
            *(InvertedResidual(a, b, 1 if a == b else 2, factor) for a, b in pairs)
        )
        self.head = unit(widths[-1], 4 * widths[-1], 1)
        self.classifier = nn.Linear(4 * widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, classes)."""
        return self.classifier(self.head(self.blocks(self.stem(x))).mean((2, 3)))

    def inner(self) -> Iterator[tuple[nn.BatchNorm2d, nn.Conv2d]]:
        """Yield each normalization whose channels one convolution alone reads, with that one."""
        for block in self.blocks:
            yield block.up[1], block.depthwise[0]
            yield block.depthwise[1], block.down


def scale_channels(net: SmallMobileNet, powers: float, seed: int = 0) -> None:
    """Multiply inner channels by 2^u, u uniform in +-powers, and divide where they are read.

    ReLU between lets positive factors through, so the function stays up to float rounding. One
    scale for a tensor then has to hold channels that differ by up to 4^powers.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm, reader in net.inner():
            factor = _draw(norm.num_features, powers, generator)
            _multiply(norm, factor)
            depthwise = reader.groups > 1
            reader.weight.div_(factor[:, None, None, None] if depthwise else factor[:, None, None])


def scale_streams(net: SmallMobileNet, powers: float, seed: int = 0) -> None:
    """As `scale_channels`, and the channels that flow from block to block as well.

    A residual stream has several layers that make it and several that read it; all take part.
    """
    scale_channels(net, powers, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    made = net.stem[1]
    with torch.no_grad():
        factor = _draw(made.num_features, powers, generator)
        _multiply(made, factor)
        for block in net.blocks:
            block.up[0].weight.div_(factor[:, None, None])
            if not block.added:
                factor = _draw(block.norm.num_features, powers, generator)
            _multiply(block.norm, factor)
        net.head[0].weight.div_(factor[:, None, None])


def _draw(count: int, powers: float, generator: torch.Generator) -> Tensor:
    return 2 ** ((2 * torch.rand(count, generator=generator) - 1) * powers)


def _multiply(norm: nn.BatchNorm2d, factor: Tensor) -> None:
    norm.weight.mul_(factor)
    norm.bias.mul_(factor)


def train(net: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, rate: float) -> None:
    """Train with momentum, one cycle, batches of 64; leave the network in eval mode."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), rate, 0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * -(-len(labels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(inputs[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    net.eval()
