"""Weights in 8 or 4 bits, activations in floats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx, nn

from planish.contract.recipe import Quantize
from worker.engine.model import Model, Quantization, QuantizedLayer
from worker.engine.quantize.gptq import gptq, output_error
from worker.engine.quantize.grid import Grid, fit_grid, round_to_nearest
from worker.engine.quantize.hessian import input_hessians
from worker.engine.quantize.packed import PackedEmbedding, PackedLayer, PackedLinear, pack
from worker.engine.quantize.packed_conv import PackedConv

Batches = Callable[[], Iterable[tuple[Tensor, ...]]]
_PIECES = 8
_PIECE_BYTES = 512 << 20


@dataclass(frozen=True)
class WeightsRounded:
    """A model with packed weights.

    Attributes:
        model: with `quantization` set.
        errors: for layers rounded by gptq: squared output error relative to the output, of rounding
            to nearest and of gptq, on the calibration inputs.
    """

    model: Model
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)


def quantize_weights(
    model: Model,
    params: Quantize,
    names: Sequence[str],
    batches: Batches | None,
    progress: Callable[[float], None] = lambda _: None,
) -> WeightsRounded:
    """Return the model with the weights of some layers in integers.

    Linear layers get what `params` asks for; tables, and output layers that share theirs, eight
    bits with a scale for each row; convolutions eight bits with a scale for each output channel.

    Args:
        model: float, in canonical form; used up.
        params: dtype, granularity, group size.
        names: of linear layers, embeddings and convolutions.
        batches: calibration inputs for gptq, gone through several times; None rounds to nearest.
        progress: told the share of layers that are done.
    """
    work = _Work(model, params, _owners(model.module, names))
    products = [name for name in names if work.learns(name)] if batches is not None else []
    for name in names:
        if name not in products:
            work.round(name)
    for piece in _pieces(model.module, products):
        if batches is not None:
            for name, hessian in input_hessians(model.module, piece, batches()).items():
                work.round(name, hessian)
        progress(len(work.done) / len(names))
    layers = tuple(work.done[name] for name in names)
    quantization = Quantization(params=params, layers=layers)
    model.module.requires_grad_(False).eval()
    return WeightsRounded(replace(model, quantization=quantization), work.errors)


def quantize_tables(model: Model, params: Quantize, names: Sequence[str]) -> list[QuantizedLayer]:
    """Put the rows of some embeddings into eight bits, in place, and return their integers."""
    work = _Work(model, params, {name: [name] for name in names})
    for name in names:
        work.round(name)
    return list(work.done.values())


@dataclass
class _Work:
    """Rounds one layer after the other and puts the packed one in its place.

    `owners` names the layers that share each layer's weight, itself included.
    """

    model: Model
    params: Quantize
    owners: dict[str, list[str]]
    done: dict[str, QuantizedLayer] = field(default_factory=dict)
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)

    def learns(self, name: str) -> bool:
        """Tell whether gptq is for this layer: a matrix product whose weight no table shares."""
        layers = (self._layer(owner) for owner in self.owners[name])
        return all(isinstance(layer, nn.Linear) for layer in layers)

    def round(self, name: str, hessian: Tensor | None = None) -> None:
        """Round a layer, and those that share its weight, unless that is done."""
        if name in self.done:
            return
        weight = self._layer(name).get_parameter("weight").detach()
        rows = weight.reshape(weight.shape[0], -1).to(torch.float32)
        grid = self._grid(name, rows)
        integers = round_to_nearest(rows, grid)
        if hessian is not None:
            better = gptq(rows, hessian, grid)
            columns = torch.arange(rows.shape[1])
            found = [
                output_error(rows, grid.values(q, columns), hessian) for q in (integers, better)
            ]
            self.errors[name] = found[0], found[1]
            # Where inputs hardly correlate rounding to nearest may be the better one.
            integers = better if found[1] <= found[0] else integers
        self._install(name, integers, grid)

    def _grid(self, name: str, rows: Tensor) -> Grid:
        product = self.learns(name)
        params = self.params
        group = params.group_size if product and params.granularity == "group" else None
        return fit_grid(
            rows,
            bits=4 if product and params.dtype == "int4" else 8,
            group=group if group is not None and group < rows.shape[1] else None,
            whole=params.granularity == "tensor",
        )

    def _install(self, name: str, integers: Tensor, grid: Grid) -> None:
        owners = self.owners[name]
        looked_up = all(isinstance(self._layer(owner), nn.Embedding) for owner in owners)
        packed = pack(integers, grid, product=not looked_up)
        for owner in owners:
            layer = self._layer(owner)
            new: PackedLayer | PackedConv
            if isinstance(layer, nn.Embedding):
                new = PackedEmbedding(packed)
            elif isinstance(layer, nn.Linear):
                new = PackedLinear(packed, layer.bias)
            elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                new = PackedConv(layer, integers, grid)
            else:
                raise TypeError(f"{owner} is a {type(layer).__name__}, which has no packed form")
            self.model.module.set_submodule(owner, new)
            self.done[owner] = _facts(owner, grid, whole=self.params.granularity == "tensor")

    def _layer(self, name: str) -> nn.Module:
        return self.model.module.get_submodule(name)


def _facts(name: str, grid: Grid, *, whole: bool) -> QuantizedLayer:
    count = 1 if whole and grid.scale.shape[1] == 1 else None
    scale = grid.scale.flatten()[:count]
    zero = grid.zero_point.flatten()[:count]
    return QuantizedLayer(
        name=name,
        dtype=f"int{grid.bits}",
        scale=tuple(scale.tolist()),
        zero_point=tuple(zero.tolist()),
    )


def _owners(module: fx.GraphModule, names: Sequence[str]) -> dict[str, list[str]]:
    """Return for each layer all chosen ones that share its weight, in the order of `names`."""
    by_weight: dict[int, list[str]] = {}
    for name in names:
        weight = module.get_submodule(name).get_parameter("weight")
        by_weight.setdefault(id(weight), []).append(name)
    return {name: shared for shared in by_weight.values() for name in shared}


def _pieces(module: fx.GraphModule, names: Sequence[str]) -> Iterator[list[str]]:
    """Divide layers into pieces whose Hessians fit into memory.

    A later piece learns from what the rounded earlier ones give.
    """
    per_piece = max(1, -(-len(names) // _PIECES))
    piece: list[str] = []
    held = 0
    for name in names:
        size = 8 * module.get_submodule(name).get_parameter("weight").shape[1] ** 2
        if piece and (len(piece) >= per_piece or held + size > _PIECE_BYTES):
            yield piece
            piece, held = [], 0
        piece.append(name)
        held += size
    if piece:
        yield piece
