"""Small networks that between them hold what real ones do; each function returns (module, example).

Weights are seeded, so that two calls give the same network. Examples have a batch of 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Example = tuple[Tensor, ...]
Net = tuple[nn.Module, Example]


def seeded(build: Callable[[], nn.Module], *shapes: Sequence[int], seed: int = 0) -> Net:
    """Build a module under a seed, with normal noise of the given shapes as its example."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build()
        _warm_statistics(module)
        return module.eval(), tuple(torch.randn(*shape) for shape in shapes)


def _warm_statistics(module: nn.Module) -> None:
    """Give BatchNorm layers statistics that are not 0 and 1, so that dropping them would show."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            layer.num_batches_tracked.fill_(7)


class ResidualBlock(nn.Module):
    """conv-bn-relu-conv-bn, added in place to its input (or a 1x1 convolution of it)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        same = before == after and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, (N, after, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)


class ResidualCNN(nn.Module):
    """A small residual network for 8x8 digits and other little images."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = ResidualBlock(width, width, 1)
        self.layer2 = ResidualBlock(width, 2 * width, 2)
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return self.linear(self.dropout(x.mean((2, 3))))


def small_residual_cnn(
    channels: int = 1, side: int = 8, width: int = 16, classes: int = 10, seed: int = 0
) -> Net:
    """Residual CNN with BatchNorm, in-place adds and dropout; input (N, channels, side, side)."""
    return seeded(
        lambda: ResidualCNN(channels, width, classes), (2, channels, side, side), seed=seed
    )


class Depthwise(nn.Module):
    """Inverted residual blocks: 1x1 up, depthwise 3x3, 1x1 down, with ReLU6."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(inplace=True)
        )
        self.block1 = self._block(width, width)
        self.block2 = self._block(width, width)
        self.head = nn.Linear(width, classes)

    @staticmethod
    def _block(before: int, after: int) -> nn.Sequential:
        inner = 2 * before
        return nn.Sequential(
            nn.Conv2d(before, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, classes)."""
        x = self.stem(x)
        x = x + self.block1(x)
        x = x + self.block2(x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def depthwise(width: int = 16, classes: int = 10) -> Net:
    """Depthwise separable network as in MobileNetV2; input (N, 3, 16, 16)."""
    return seeded(lambda: Depthwise(width, classes), (2, 3, 16, 16))


class Concat(nn.Module):
    """Two branches joined by concatenation, as in SqueezeNet and DenseNet."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(3, width, 1)
        self.left = nn.Conv2d(width, width, 1)
        self.right = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(2 * width)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.last = nn.Conv2d(2 * width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, classes)."""
        x = F.relu(self.squeeze(x))
        x = torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1)
        x = self.pool(F.relu(self.norm(x)))
        return self.last(x).mean((2, 3))


def concat(width: int = 8, classes: int = 10) -> Net:
    """Concatenating branches; input (N, 3, 12, 12)."""
    return seeded(lambda: Concat(width, classes), (2, 3, 12, 12))


def mlp(features: int = 16, width: int = 32, classes: int = 10) -> Net:
    """Linear layers with BatchNorm; input (N, features)."""
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(features, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(width, classes),
        ),
        (2, features),
    )


class EncoderBlock(nn.Module):
    """One pre-norm transformer encoder block with separate q, k and v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, width)."""
        y = self.norm1(x)
        y = F.scaled_dot_product_attention(
            self._split(self.q(y)), self._split(self.k(y)), self._split(self.v(y))
        )
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """Token embedding, learnt positions (a buffer of ids), one block, mean and head."""

    def __init__(self, vocabulary: int, length: int, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.register_buffer("position_ids", torch.arange(length)[None], persistent=False)
        self.block = EncoderBlock(width, heads)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits, (N, classes), of int64 token ids, (N, length)."""
        x = self.embed(ids) + self.positions(self.position_ids)
        return self.head(self.norm(self.block(x)).mean(1))


def tiny_transformer(
    vocabulary: int = 50, length: int = 12, width: int = 16, heads: int = 2, classes: int = 4
) -> Net:
    """Encoder over token ids; input (N, length) int64."""
    module, _ = seeded(lambda: Encoder(vocabulary, length, width, heads, classes))
    ids = torch.randint(0, vocabulary, (2, length), generator=torch.Generator().manual_seed(0))
    return module, (ids,)


class TwoInputs(nn.Module):
    """An image and a vector in, a dict of logits and features out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.side = nn.Linear(5, 4)
        self.head = nn.Linear(8, 3)

    def forward(self, image: Tensor, facts: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` (N, 3) and ``features`` (N, 8)."""
        image = F.relu(self.conv(image)).mean((2, 3))
        features = torch.cat([image, torch.tanh(self.side(facts))], 1)
        return {"logits": self.head(features), "features": features}


def two_inputs() -> Net:
    """Two inputs (N, 1, 6, 6) and (N, 5), a dict output."""
    return seeded(TwoInputs, (2, 1, 6, 6), (2, 5))


class Tied(nn.Module):
    """Embedding and output layer share one weight; one Linear is called twice."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return (N, T, vocabulary) of int64 ids (N, T)."""
        return self.head(torch.tanh(self.mix(torch.tanh(self.mix(self.embed(ids))))))


def tied() -> Net:
    """Tied weights and a layer called twice; input (N, 7) int64."""
    module, _ = seeded(lambda: Tied(20, 8))
    return module, (torch.arange(14).reshape(2, 7) % 20,)


class InPlace(nn.Module):
    """An in-place write through a view, which must stay one, beside one that need not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(8, 1, 1) * 1.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 8)."""
        y = self.conv(x)
        kept = y.clone()
        y[:, :4].add_(1.0)
        y.relu_()
        return (y * self.scale + kept).flatten(2).mean(2)


def in_place() -> Net:
    """In-place writes, one through a view; a bare parameter; input (N, 2, 5, 5)."""
    return seeded(InPlace, (2, 2, 5, 5))
