"""Channels are followed through the wirings that real networks have, and every cut is proven."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish.contract.recipe import Prune
from tests.engine.passes.models import canonical, context
from tests.zoo import seeded, small_residual_cnn, tiny_transformer
from worker.engine.model import Model, first_output
from worker.engine.passes import Outcome, entry_for
from worker.engine.passes.layers import out_channels, weighted_layers
from worker.engine.sparsity import Sparsity

TOKENS = torch.arange(24).reshape(2, 12) % 20


def pruned(model: Model, params: Prune) -> Outcome:
    return entry_for(params).run(model, params, context(model, params))


def halved(module: nn.Module, example: tuple[torch.Tensor, ...]) -> dict[str, int]:
    """Prune half of all channels, run at another batch size, and return the widths."""
    thin = pruned(canonical(module, example), Prune(round_to=1)).model
    with torch.no_grad():
        assert len(first_output(thin.module(*thin.example(5)))) == 5
    return {name: out_channels(m) for name, m in weighted_layers(thin.module).items()}


def test_transposed_convolutions_with_and_without_groups():
    net = lambda: nn.Sequential(  # noqa: E731  a builder for `seeded`
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 16, 2, 2),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 2, 2, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 3, 1),
    )
    assert halved(*seeded(net, (2, 1, 4, 4))) == {"0": 4, "2": 8, "4": 4, "6": 4, "7": 3}


def test_depthwise_convolutions_that_widen_follow_their_input():
    net = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=8), nn.ReLU(), nn.Conv2d(16, 3, 1)
    )
    assert halved(*seeded(net, (2, 1, 6, 6))) == {"0": 4, "2": 8, "4": 3}


class Dense(nn.Module):
    """Each layer reads all before it; one of them is split and put together again."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.three, self.head = nn.Conv2d(14, 8, 3, padding=1), nn.Linear(22, 3)

    def forward(self, x):
        a = torch.relu(self.one(x))
        b = torch.relu(self.two(a))
        left, right = b.chunk(2, 1)
        both = torch.cat([a, right, left], 1)
        c = torch.relu(self.three(both))
        return self.head(torch.cat([both, c], 1).mean((2, 3)))


def test_concatenations_and_parts_in_another_order():
    assert halved(*seeded(Dense, (2, 1, 6, 6))) == {"one": 3, "two": 4, "three": 4, "head": 3}


class Squeeze(nn.Module):
    """Channels are scaled by a gate; a linear unit gates one half by the other."""

    def __init__(self):
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(1, 8, 3), nn.Linear(8, 4), nn.Linear(4, 8)
        self.wide, self.head = nn.Linear(8, 12), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        x = (x * gate[:, :, None, None]).mean((2, 3))
        return self.head(F.glu(self.wide(x), 1))


def test_gates_shrink_with_what_they_scale():
    widths = halved(*seeded(Squeeze, (2, 1, 6, 6)))
    assert widths == {"conv": 4, "down": 2, "up": 4, "wide": 6, "head": 3}


def test_the_hidden_width_of_a_transformer_goes_with_its_positions_and_norms():
    thin = pruned(canonical(*tiny_transformer(width=32, heads=4)), Prune(round_to=1)).model
    assert thin.module.embed.embedding_dim == thin.module.positions.embedding_dim == 16
    assert thin.module.block.norm1.normalized_shape == (16,)
    assert thin.module.block.up.in_features == 16


def test_attention_with_one_fused_projection_loses_whole_heads():
    net = lambda: nn.Sequential(  # noqa: E731
        nn.Linear(8, 16), nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), nn.Linear(16, 3)
    )
    module, example = seeded(net, (2, 5, 8))
    widths = halved(module, example)
    assert widths["1.self_attn.in_proj"] == 24
    assert widths["1.linear1"] == 16
    assert widths["0"] == widths["1.self_attn.out_proj"] == 8


class Grouped(nn.Module):
    """A decoder block as language models have it: fewer key heads, root mean square norms."""

    def __init__(self, repeat: bool):
        super().__init__()
        self.repeat = repeat
        self.embed = nn.Embedding(20, 32)
        self.scale = nn.Parameter(torch.rand(32) + 0.5)
        self.q, self.k, self.v = nn.Linear(32, 32), nn.Linear(32, 16), nn.Linear(32, 16)
        self.out, self.gate, self.up = nn.Linear(32, 32), nn.Linear(32, 48), nn.Linear(32, 48)
        self.down, self.head = nn.Linear(48, 32), nn.Linear(32, 20, bias=False)
        self.head.weight = self.embed.weight

    def norm(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.scale

    def heads(self, x, count):
        return x.view(x.shape[0], x.shape[1], count, 8).transpose(1, 2)

    def forward(self, ids):
        x = self.embed(ids)
        y = self.norm(x)
        q, k, v = self.heads(self.q(y), 4), self.heads(self.k(y), 2), self.heads(self.v(y), 2)
        if self.repeat:
            n, h, t, d = k.shape
            k, v = (z[:, :, None].expand(n, h, 2, t, d).reshape(n, h * 2, t, d) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=not self.repeat)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        y = self.norm(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.head(self.norm(x))


@pytest.mark.parametrize("repeat", [True, False])
def test_query_heads_go_with_the_key_head_they_share(repeat):
    module, _ = seeded(lambda: Grouped(repeat))
    widths = halved(module, (TOKENS,))
    assert widths == {
        "embed": 16, "q": 16, "k": 8, "v": 8, "out": 16, "gate": 24, "up": 24, "down": 16,
        "head": 20,
    }  # fmt: skip


class Product(nn.Module):
    """Attention as products and a softmax; a matrix that is no layer."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 16) for _ in range(3))
        self.matrix = nn.Parameter(torch.randn(16, 3))

    def forward(self, x):
        q, k, v = (f(x).view(x.shape[0], 5, 4, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return y.transpose(1, 2).reshape(x.shape[0], 5, 16) @ self.matrix


def test_attention_written_as_products_and_matrices_that_are_no_layers():
    assert halved(*seeded(Product, (2, 5, 6))) == {"q": 8, "k": 8, "v": 8}


def test_what_no_rule_is_known_for_keeps_its_channels_and_is_named():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(torch.relu(self.second(self.first(x).sort(1)[0])))

    result = pruned(canonical(*seeded(Sorted, (2, 4))), Prune(round_to=1))
    why = {layer.name: layer.why for layer in result.skipped}
    assert why["first"] == "channels are not followed through sort"
    assert out_channels(result.model.module.second) == 4


def test_zeros_of_kept_weights_and_their_names_survive():
    model = canonical(*small_residual_cnn())
    weight = model.module.layer1.conv1.weight
    with torch.no_grad():
        weight[:, ::2] = 0.0
    names = ("layer1.conv1.weight",)
    model = replace(model, sparsity=Sparsity(weights=names, growth=None))
    thin = pruned(model, Prune(round_to=1)).model
    assert thin.sparsity == model.sparsity
    rows = model.module.layer1.conv1.weight.flatten(1)
    assert float((thin.module.layer1.conv1.weight == 0).float().mean()) > 0.3
    assert rows.shape[1] == 2 * thin.module.layer1.conv1.weight.flatten(1).shape[1]
