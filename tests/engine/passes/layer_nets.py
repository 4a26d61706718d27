"""Networks with blocks, as users export them."""

from __future__ import annotations

import warnings
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planish.contract.architectures import CifarResNet
from tests.engine.passes.models import canonical
from tests.zoo import Net, seeded
from worker.engine.load.architectures.cifar_resnet import Network
from worker.engine.model import Model

IDS = torch.arange(24).reshape(2, 12) % 40


def cifar_resnet(depth: int = 20) -> nn.Module:
    """Return a residual network for 32x32 images with (depth - 2) / 6 blocks in each stage."""
    return seeded(lambda: Network(CifarResNet(depth=depth, width=4)))[0]


@cache
def read(name: str) -> Model:
    """Return one of the networks below (or a ResNet) in canonical form; do not change it."""
    if name.startswith("resnet"):
        return canonical(cifar_resnet(int(name[6:])), (torch.randn(2, 3, 32, 32),))
    with warnings.catch_warnings():
        # torch.export notes that LSTM keeps a second list of its weights.
        warnings.filterwarnings("ignore", ".*assigned during export", UserWarning)
        return canonical(*globals()[name]())


class Inverted(nn.Module):
    """MobileNetV2's block: 1x1 up, depthwise 3x3, 1x1 down; added to its input if that fits."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inner = 2 * before
        self.adds = before == after and stride == 1
        self.conv = nn.Sequential(
            *(nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            *(nn.BatchNorm2d(inner), nn.ReLU6()),
            *(nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, after, H / stride, W / stride)."""
        return x + self.conv(x) if self.adds else self.conv(x)


def mobilenet() -> Net:
    """Stem, six inverted residuals of which three keep the shape, and a head."""
    sizes = [(8, 8, 2), (8, 8, 1), (8, 12, 2), (12, 12, 1), (12, 12, 1), (12, 16, 1)]

    def build() -> nn.Module:
        stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        features = nn.Sequential(stem, *(Inverted(*size) for size in sizes))
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
        return nn.Sequential(features, head)

    return seeded(build, (2, 3, 32, 32))


def plain_chain() -> Net:
    """Convolutions without shortcuts, then depthwise and pointwise ones in pairs."""
    pair = lambda: (nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())  # noqa: E731  # three calls in one place

    def build() -> nn.Module:
        start = (nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU())
        same = (nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
        return nn.Sequential(*start, *same, *pair(), *pair(), *tail)

    return seeded(build, (2, 3, 8, 8))


class Step(nn.Module):
    """A residual step on features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width)."""
        return x + self.down(F.gelu(self.up(x)))


class Steps(nn.Module):
    """Residual steps; gives logits, what went into the head, and what one step computed inside."""

    def __init__(self, count: int, told: int | None = None) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.steps = nn.ModuleList(Step(8) for _ in range(count))
        self.head = nn.Linear(8, 4)
        self.told = told

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` (N, 4), ``features`` (N, 8) and perhaps ``inner`` (N, 16)."""
        x = torch.tanh(self.stem(x))
        inner = {}
        for index, step in enumerate(self.steps):
            if index == self.told:
                inner["inner"] = torch.relu(step.up(x))
                x = x + step.down(inner["inner"])
            else:
                x = step(x)
        return {"logits": self.head(x), "features": x, **inner}


def steps() -> Net:
    """Four residual steps, two outputs."""
    return seeded(lambda: Steps(4), (2, 6))


def steps_told() -> Net:
    """Three residual steps; the values inside the second are an output, too."""
    return seeded(lambda: Steps(3, told=1), (2, 6))


class Recurrent(nn.Module):
    """Two LSTMs of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 8)
        self.first, self.second = (nn.LSTM(8, 8, batch_first=True) for _ in range(2))
        self.head = nn.Linear(8, 4)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits, (N, 4), of ids (N, T)."""
        x = self.embed(ids)
        x = self.second(self.first(x)[0])[0]
        return self.head(x[:, -1])


def recurrent() -> Net:
    """Recurrent layers over tokens."""
    return seeded(Recurrent)[0], (IDS,)


class Overwriting(nn.Module):
    """A residual step whose sum is then partly overwritten through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.step, self.last = nn.Linear(6, 8), Step(8), Step(8)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 8)."""
        x = self.step(self.stem(x))
        x[:, :4].mul_(2.0)
        return self.last(x)


def overwriting() -> Net:
    """In-place writes behind a block; input (N, 6)."""
    return seeded(Overwriting, (2, 6))


class OfText(nn.Module):
    """A transformers model over tokens whose answer is one of its outputs."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return that output."""
        answer: Tensor = self.model(input_ids, attention_mask=attention_mask)[self.output]
        return answer


class OfImages(nn.Module):
    """A transformers model over images whose answer is its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the logits."""
        answer: Tensor = self.model(pixel_values)["logits"]
        return answer


def bert() -> Net:
    """Three post-norm layers that share a mask; inputs ids and mask, (N, 12) int64."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=40,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
    )
    module, _ = seeded(lambda: OfText(BertModel(config), "last_hidden_state"))
    return module, (IDS, torch.ones_like(IDS))


def vit() -> Net:
    """Three pre-norm layers over patches; input (N, 3, 16, 16)."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
    )
    return seeded(lambda: OfImages(ViTForImageClassification(config)), (2, 3, 16, 16))


def llama() -> Net:
    """Three layers with rotary positions and grouped keys; input ids (N, 12) int64."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=16,
        use_cache=False,
    )
    return seeded(lambda: OfText(LlamaForCausalLM(config), "logits"))[0], (IDS,)
