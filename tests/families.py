"""Twelve families of networks, small: what a service for any architecture has to take.

As in `tests.zoo`: seeded weights, each function returns (module, example) with a batch of 2.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from tests import transformers_zoo, zoo
from tests.zoo import Net, seeded


class DenseBlock(nn.Module):
    """Each layer reads all that came before it, concatenated, as in DenseNet."""

    def __init__(self, width: int, growth: int, depth: int) -> None:
        super().__init__()
        widths = [width + growth * index for index in range(depth)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in widths)
        self.convs = nn.ModuleList(nn.Conv2d(w, growth, 3, 1, 1, bias=False) for w in widths)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width + growth * depth, H, W)."""
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return x


class Dense(nn.Module):
    """Two dense blocks with a transition between them; classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.block1, self.block2 = DenseBlock(8, 4, 2), DenseBlock(8, 4, 2)
        self.transition = nn.Conv2d(16, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, 5)."""
        x = F.avg_pool2d(self.transition(self.block1(self.stem(x))), 2)
        return self.head(F.relu(self.norm(self.block2(x))).mean((2, 3)))


class Grouped(nn.Module):
    """A residual block around a convolution of four groups, as in ResNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        self.down = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.mix = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(16)
        )
        self.up = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, 5)."""
        x = F.relu(self.stem(x))
        x = F.relu(x + self.up(F.relu(self.mix(F.relu(self.down(x))))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class UNet(nn.Module):
    """Down, up by a transposed convolution, and a skip connection; one mask for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.leave = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits of a mask, (N, 1, H, W)."""
        x = self.enter(image)
        return self.leave(torch.cat([x, self.up(self.down(x))], 1))


class Recurrent(nn.Module):
    """Embedded tokens through two recurrent layers, a class from the last step."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], *, both_ways: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 12)
        self.cell = kind(12, 16, num_layers=2, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(32 if both_ways else 16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits, (N, 4), of int64 ids (N, T)."""
        steps, _ = self.cell(self.embed(ids))
        return self.head(steps[:, -1])


def _tokens(module: nn.Module, vocabulary: int, length: int = 9) -> Net:
    ids = torch.randint(0, vocabulary, (2, length), generator=torch.Generator().manual_seed(0))
    return module, (ids,)


def dense() -> Net:
    """Concatenating blocks; input (N, 3, 8, 8)."""
    return seeded(Dense, (2, 3, 8, 8))


def grouped() -> Net:
    """Grouped convolutions; input (N, 3, 8, 8)."""
    return seeded(Grouped, (2, 3, 8, 8))


def unet() -> Net:
    """Transposed convolution and a skip; input (N, 3, 8, 8)."""
    return seeded(UNet, (2, 3, 8, 8))


def lstm() -> Net:
    """Two LSTM layers that read both ways; input (N, 9) int64."""
    return _tokens(seeded(lambda: Recurrent(nn.LSTM, both_ways=True))[0], 30)


def gru() -> Net:
    """Two GRU layers; input (N, 9) int64."""
    return _tokens(seeded(lambda: Recurrent(nn.GRU, both_ways=False))[0], 30)


FAMILIES: dict[str, Callable[[], Net]] = {
    "resnet": zoo.small_residual_cnn,
    "densenet": dense,
    "mobilenet": zoo.depthwise,
    "resnext": grouped,
    "unet": unet,
    "vit": transformers_zoo.tiny_vit,
    "bert": transformers_zoo.tiny_bert,
    "llama": transformers_zoo.tiny_llama,
    "lstm": lstm,
    "gru": gru,
    "multi_io": zoo.two_inputs,
    "shared": zoo.tied,
}
SEQUENCES = ("llama",)
"""Families whose second dimension may have any size, too."""


def export_family(name: str, path: Path) -> Path:
    """Export a family as its users would: every batch dynamic, and the sequence where it may be."""
    module, example = FAMILIES[name]()
    batch, sequence = Dim("batch"), Dim("sequence", min=2, max=64)
    shapes = {0: batch, 1: sequence} if name in SEQUENCES else {0: batch}
    with warnings.catch_warnings():
        # Exporting a recurrent layer assigns the layer's own list of its weights; torch notes it.
        warnings.simplefilter("ignore", UserWarning)
        program = torch.export.export(
            module, example, dynamic_shapes=tuple(shapes for _ in example)
        )
    torch.export.save(program, path)
    return path
