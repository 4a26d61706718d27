"""Low-rank factorization: one wide layer becomes two thin ones (Denton et al. 2014, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import JsonValue
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from planish.contract.errors import NothingChanged
from planish.contract.problem import FieldError
from planish.contract.recipe import LowRank
from planish.contract.report import LayerChanged, LayerSkipped, PassPlan
from worker.engine.measure.macs import count_macs
from worker.engine.measure.size import count_parameters
from worker.engine.model import Model
from worker.engine.passes.layers import matching_layers, shared_weights, weighted_layers
from worker.engine.passes.protocol import Context, Outcome

REDUCE, EXPAND = "reduce", "expand"
"""Names of the two layers that stand in the place of one."""


@dataclass(frozen=True)
class Factors:
    """A weight as the product of two thin matrices.

    Attributes:
        left: (rows, rank), singular vectors times the roots of the singular values.
        right: (rank, columns).
        energy: share of the squared singular values that is kept.
    """

    left: Tensor
    right: Tensor
    energy: float

    @property
    def rank(self) -> int:
        """Inner width."""
        return self.left.shape[1]


def run(model: Model, params: LowRank, ctx: Context) -> Outcome:
    """Split every layer that gets smaller by it; the model is changed in place.

    Raises:
        InvalidRecipe: an `ignore` pattern matches no layer.
        NothingChanged: no layer gets smaller at this energy or rank.
    """
    before = model.clone()
    module = model.module
    reasons = _untouchable(model, params, ctx)
    layers, skipped = [], []
    facts: dict[str, JsonValue] = {}
    everything = weighted_layers(module)
    for done, (name, layer) in enumerate(everything.items(), 1):
        factors = None if name in reasons else factorize(layer, params)
        if factors is None or (why := _no_gain(layer, factors)):
            skipped.append(LayerSkipped(name=name, why=reasons.get(name) or why))
            continue
        _replace(module, name, layer, factors)
        full = min(_matrix(layer).shape)
        layers.append(LayerChanged(name=name, what=f"rank {full} → {factors.rank}"))
        facts[name] = {"rank": factors.rank, "of": full, "energy": round(factors.energy, 4)}
        ctx.progress.update(done / len(everything), f"split {name}")
    if not layers:
        raise _nothing(params, skipped, ctx)
    module.graph.lint()
    module.recompile()
    return Outcome(
        model=model,
        changed=True,
        layers=tuple(layers),
        skipped=tuple(skipped),
        facts={
            "energy": params.energy,
            "rank": params.rank,
            "ranks": facts,
            "params": [count_parameters(before).total, count_parameters(model).total],
            "macs": [count_macs(before), count_macs(model)],
        },
    )


def plan(model: Model, params: LowRank, ctx: Context) -> tuple[Model, PassPlan]:
    """Do it on a copy, to say what would be split and to hand the result to the next pass."""
    outcome = run(model.clone(), params, ctx)
    return outcome.model, PassPlan(
        op=params.op,
        layers_changed=len(outcome.layers),
        layers=outcome.layers,
        layers_skipped=outcome.skipped,
        facts=outcome.facts,
    )


def factorize(layer: nn.Module, params: LowRank) -> Factors:
    """Return the best product of the wanted rank in the least-squares sense (Eckart and Young).

    Args:
        layer: linear, or a convolution without groups, whose kernel is read as a matrix
            (outputs, inputs x kernel) (Zhang et al. 2015, arXiv:1505.06798, section 2.1).
        params: the energy or the rank to keep.
    """
    matrix = _matrix(layer)
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    energies = s.square().cumsum(0) / s.square().sum().clamp_min(torch.finfo(s.dtype).tiny)
    if params.rank is not None:
        rank = min(params.rank, len(s))
    else:
        rank = min(int((energies < params.energy).sum()) + 1, len(s))
    root = s[:rank].sqrt()
    return Factors(
        left=(u[:, :rank] * root).to(matrix.dtype),
        right=(root[:, None] * v[:rank]).to(matrix.dtype),
        energy=float(energies[rank - 1]),
    )


def _matrix(layer: nn.Module) -> Tensor:
    return layer.get_parameter("weight").detach().flatten(1)


def _untouchable(model: Model, params: LowRank, ctx: Context) -> dict[str, str]:
    module = model.module
    sparse = model.sparsity.weights if model.sparsity is not None else ()
    reasons = {
        name.removesuffix(".weight"): "its zeros would be lost; put low_rank before prune"
        for name in sparse
    }
    reasons |= shared_weights(module)
    for name, layer in weighted_layers(module).items():
        if isinstance(layer, nn.Embedding):
            reasons[name] = "an embedding looks rows up; there is no product to split"
        elif isinstance(layer, _ConvTransposeNd):
            reasons[name] = "transposed convolutions are left whole"
        elif isinstance(layer, _ConvNd) and layer.groups > 1:
            reasons[name] = "its groups are small products already"
    ignored = matching_layers(module, params.ignore, f"/recipe/{ctx.step - 1}/ignore")
    return reasons | dict.fromkeys(ignored, "named in ignore")


def _no_gain(layer: nn.Module, factors: Factors) -> str:
    """Return why a split would not pay, empty if it does."""
    rows, columns = _matrix(layer).shape
    before, after = rows * columns, factors.rank * (rows + columns)
    if after < before:
        return ""
    return f"at rank {factors.rank} its two parts hold {after} weights, {before} in one"


def _replace(module: fx.GraphModule, name: str, layer: nn.Module, factors: Factors) -> None:
    """Put two layers into the place of one, in the module and in all its calls."""
    reduce, expand = _pair(layer, factors)
    for part in (reduce, expand):
        part.train(layer.training)
        part.get_parameter("weight").requires_grad_(layer.get_parameter("weight").requires_grad)
    holder = nn.Module()
    holder.add_module(REDUCE, reduce)
    holder.add_module(EXPAND, expand)
    holder.train(layer.training)
    module.set_submodule(name, holder)
    for node in [n for n in module.graph.nodes if n.op == "call_module" and n.target == name]:
        node.target = f"{name}.{REDUCE}"
        with module.graph.inserting_after(node):
            second = module.graph.call_module(f"{name}.{EXPAND}", (node,))
        node.replace_all_uses_with(second, delete_user_cb=lambda user, new=second: user is not new)


def _pair(layer: nn.Module, factors: Factors) -> tuple[nn.Module, nn.Module]:
    rank, bias = factors.rank, layer.bias is not None
    if isinstance(layer, nn.Linear):
        reduce: nn.Module = nn.Linear(layer.in_features, rank, bias=False)
        expand: nn.Module = nn.Linear(rank, layer.out_features, bias=bias)
    else:
        reduce, expand = _convolutions(layer, rank, bias=bias)
    with torch.no_grad():
        for part, weight in ((reduce, factors.right), (expand, factors.left)):
            parameter = part.get_parameter("weight")
            parameter.copy_(weight.reshape(parameter.shape))
        if bias:
            expand.bias = layer.bias
    return reduce, expand


def _convolutions(layer: nn.Module, rank: int, *, bias: bool) -> tuple[nn.Module, nn.Module]:
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise TypeError(f"{type(layer).__name__} is no layer that can be split")
    kind: Callable[..., nn.Module] = type(layer)
    reduce = kind(
        layer.in_channels,
        rank,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        bias=False,
        padding_mode=layer.padding_mode,
    )
    return reduce, kind(rank, layer.out_channels, 1, bias=bias)


def _nothing(params: LowRank, skipped: list[LayerSkipped], ctx: Context) -> NothingChanged:
    amount = f"rank {params.rank}" if params.rank is not None else f"energy {params.energy}"
    said = "; ".join(f"{layer.name}: {layer.why}" for layer in skipped[:5])
    detail = (
        f"low_rank would split no layer at {amount} ({said or 'the model has no such layers'}); "
        "keep less of it, or leave the pass out"
    )
    pointer = f"/recipe/{ctx.step - 1}"
    return NothingChanged(detail, (FieldError(pointer=pointer, detail=detail),))
