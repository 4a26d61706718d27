"""Which layers lose single weights, and how their kernels look as rows of a matrix product."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from worker.engine.passes.layers import matching_layers, weighted_layers

Reasons = dict[str, str]
MAX_COLUMN_BYTES = 128 << 20


@dataclass(frozen=True)
class SparseLayer:
    """A convolution or linear layer.

    As rows, its weight is (outputs, inputs): what one output sums over. For a convolution these are
    the (in / groups · kh · kw) values that its unfolded input holds, in that order.
    """

    name: str
    module: _ConvNd | nn.Linear

    @property
    def key(self) -> str:
        """Name of the weight in the state_dict."""
        return f"{self.name}.weight"

    @property
    def weight(self) -> Tensor:
        """The weight as it is now."""
        return self.module.weight.detach()

    @property
    def transposed(self) -> bool:
        """Whether this is a transposed convolution, which stores its inputs first."""
        return isinstance(self.module, _ConvTransposeNd)

    @property
    def groups(self) -> int:
        """Groups of a convolution; each reads its own part of the input."""
        return self.module.groups if isinstance(self.module, _ConvNd) else 1

    def rows(self, values: Tensor) -> Tensor:
        """Turn values of the weight's shape into (outputs, inputs)."""
        if not self.transposed:
            return values.flatten(1)
        per_group = values.reshape(self.groups, -1, *values.shape[1:]).transpose(1, 2)
        return per_group.flatten(0, 1).flatten(1)

    def shaped(self, rows: Tensor) -> Tensor:
        """Turn (outputs, inputs) back into the weight's shape."""
        shape = self.weight.shape
        if not self.transposed:
            return rows.reshape(shape)
        inputs, outputs = shape[0] // self.groups, shape[1]
        turned = rows.reshape(self.groups, outputs, inputs, *shape[2:]).transpose(1, 2)
        return turned.reshape(shape)

    def columns(self, inputs: Tensor) -> Tensor:
        """Return what each row of the weight is multiplied with, (groups, samples, inputs).

        Args:
            inputs: of the layer, the batch first. Positions of the output count as samples; of a
                transposed convolution, positions of the input.
        """
        if isinstance(self.module, nn.Linear):
            return inputs.reshape(1, -1, inputs.shape[-1])
        grouped = inputs.reshape(len(inputs), self.groups, -1, *inputs.shape[2:])
        if self.transposed:
            size = math.prod(self.module.kernel_size)
            flat = grouped.flatten(3).permute(1, 0, 3, 2).flatten(1, 2)
            return flat.repeat_interleave(size, dim=2)
        return _unfolded(self.module, grouped)

    def chunks(self, inputs: Tensor) -> list[Tensor]:
        """Divide inputs, so that the columns of each part stay within 128 MiB."""
        if isinstance(self.module, nn.Linear):
            return [inputs]
        per_sample = inputs[:1].numel() * math.prod(self.module.kernel_size) * 4
        return list(torch.split(inputs, max(1, MAX_COLUMN_BYTES // max(1, per_sample))))


def sparse_layers(
    module: fx.GraphModule, ignore: tuple[str, ...], pointer: str
) -> tuple[list[SparseLayer], Reasons]:
    """Return the layers whose weights may go one by one, in graph order, and why others may not.

    Biases and normalizations are never touched: they are few, and shift whole channels.

    Raises:
        InvalidRecipe: an `ignore` pattern matches no layer.
    """
    ignored = set(matching_layers(module, ignore, pointer))
    found, reasons = [], _shared(module)
    for name, layer in weighted_layers(module).items():
        why = "named in ignore" if name in ignored else reasons.get(name) or _unfit(layer)
        if why:
            reasons[name] = why
        elif isinstance(layer, _ConvNd | nn.Linear):
            found.append(SparseLayer(name, layer))
    return found, reasons


def _unfit(layer: nn.Module) -> str:
    if isinstance(layer, nn.Embedding):
        return "rows of an embedding are looked up; zeros in them take part in no product"
    if isinstance(layer, _ConvNd) and layer.groups == layer.in_channels > 1:
        return "a depthwise kernel: a few weights carry a whole channel"
    if not layer.get_parameter("weight").is_floating_point():
        return "its weight is not a floating point tensor"
    return ""


def _shared(module: fx.GraphModule) -> Reasons:
    owners = defaultdict(list)
    for name, layer in weighted_layers(module).items():
        owners[id(layer.weight)].append(name)
    return {
        name: f"shares its weight with {', '.join(n for n in names if n != name)}"
        for names in owners.values()
        if len(names) > 1
        for name in names
    }


def _unfolded(conv: _ConvNd, grouped: Tensor) -> Tensor:
    """Unfold (N, groups, channels, *space): one strided view for each place in the kernel."""
    padded = F.pad(grouped, tuple(conv._reversed_padding_repeated_twice))
    views = []
    for place in product(*map(range, conv.kernel_size)):
        view = padded
        for dim, at in enumerate(place, 3):
            size, step, spread = (
                sizes[dim - 3] for sizes in (conv.kernel_size, conv.stride, conv.dilation)
            )
            room = padded.shape[dim] - spread * (size - 1)
            every = torch.arange(at * spread, at * spread + room, step, device=view.device)
            view = view.index_select(dim, every)
        views.append(view.flatten(3))
    stacked = torch.stack(views, dim=3)  # N, groups, channels, places in the kernel, positions
    return stacked.permute(1, 0, 4, 2, 3).flatten(3).flatten(1, 2)
