"""Proof on numbers: a thin network gives what the wide one gives without those channels."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from worker.engine.model import Model
from worker.engine.passes.layers import layer_of
from worker.engine.passes.prune.channel_flow import Flow
from worker.engine.passes.prune.shape_repair import Kept
from worker.engine.passes.prune.thinning import kept_of

TOLERANCE = 1e-4
BROKEN = (RuntimeError, IndexError, ValueError, AssertionError, TypeError, ZeroDivisionError)


class NotTheSame(ValueError):
    """The thin network computes something else; the text says what is wrong."""


def prove(wide: Model, thin: Model, flow: Flow, gone: Collection[int], seed: int = 0) -> None:
    """Hold a thin network against the wide one in which the same channels are taken for absent.

    In the wide network every convolution and product reads zeros from them, and normalizations over
    channels see only the others. Both must agree up to rounding, and the thin one must run at
    another number of samples.

    Args:
        wide: what `flow` was traced on.
        thin: the same without the channels.
        flow: the labels.
        gone: roots of the labels that went.
        seed: of the inputs.

    Raises:
        NotTheSame: outputs differ, or the thin network does not run.
    """
    with torch.no_grad():
        expected = tree_leaves(_Without(wide, flow, gone).run(*wide.example(seed=seed)))
        try:
            actual = tree_leaves(thin.module(*thin.example(seed=seed)))
            thin.module(*thin.example(batch=3))
        except BROKEN as error:
            why = f"the graph does not follow a change of its width ({type(error).__name__})"
            raise NotTheSame(why) from error
    _compare(expected, actual)


class _Without(fx.Interpreter):
    """Runs a graph as if some channels were absent, all tensors keeping their sizes."""

    def __init__(self, model: Model, flow: Flow, gone: Collection[int]) -> None:
        super().__init__(model.module)
        self._module, self._flow, self._gone = model.module, flow, gone

    def run_node(self, n: fx.Node) -> object:
        if n.name in self._flow.products:
            return self._product(n)
        layer = layer_of(self._module, n)
        source = n.args[0] if n.args else None
        axes = self._flow.tensors.get(source.name) if isinstance(source, fx.Node) else None
        kept = None if axes is None else kept_of(self._flow, axes, self._gone)
        if not isinstance(source, fx.Node) or kept is None or all(one.all() for one in kept):
            return super().run_node(n)
        x = self.env[source]
        if isinstance(layer, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm):
            return _normalize(layer, x, kept)
        if n.name in self._flow.means:
            return self._mean(n, x, kept)
        if str(n.target) in self._flow.read and layer is not None:
            return layer(_without(x, kept))
        return super().run_node(n)

    def _product(self, node: fx.Node) -> object:
        """A product sums over its left factor's last dimension: zeros there are enough."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        left = self._flow.products[node.name]
        place = next(i for i, arg in enumerate(node.args) if str(arg) == left)
        kept = kept_of(self._flow, self._flow.tensors[left], self._gone)
        factor = _without(args[place], kept)
        return node.target(*args[:place], factor, *args[place + 1 :], **kwargs)  # type: ignore[operator]

    def _mean(self, node: fx.Node, x: Tensor, kept: Kept) -> Tensor:
        dim = self._flow.means[node.name]
        some = x.index_select(dim, torch.from_numpy(kept[dim].nonzero()[0]))
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        result: Tensor = node.target(some, *args[1:], **kwargs)  # type: ignore[operator]
        return result


def _without(x: Tensor, kept: Kept) -> Tensor:
    for dim, one in enumerate(kept):
        if not one.all():
            x = x.index_fill(dim, torch.from_numpy((~one).nonzero()[0]), 0.0)
    return x


def _normalize(layer: nn.Module, x: Tensor, kept: Kept) -> Tensor:
    """Normalize over the channels that stay; what went is zero."""
    out = torch.zeros_like(x)
    dim = 1 if isinstance(layer, nn.GroupNorm) else x.dim() - 1
    if not all(one.all() for d, one in enumerate(kept) if d != dim):
        raise NotTheSame("a normalization runs over several dimensions that shrink")
    places = torch.from_numpy(kept[dim].nonzero()[0])
    some = x.index_select(dim, places)
    weight, bias = (_selected(layer, name, places) for name in ("weight", "bias"))
    if isinstance(layer, nn.GroupNorm):
        value = F.group_norm(some, layer.num_groups, weight, bias, layer.eps)
    elif isinstance(layer, nn.RMSNorm):
        value = F.rms_norm(some, (len(places),), weight, layer.eps)
    else:
        value = F.layer_norm(some, (len(places),), weight, bias, float(layer.eps))  # type: ignore[arg-type]
    return out.index_copy(dim, places, value)


def _selected(layer: nn.Module, name: str, places: Tensor) -> Tensor | None:
    tensor = getattr(layer, name, None)
    if isinstance(tensor, Tensor) and tensor.dim() > 1:
        raise NotTheSame("a normalization runs over several dimensions")
    return tensor.index_select(0, places) if isinstance(tensor, Tensor) else None


def _compare(expected: list[object], actual: list[object]) -> None:
    """Require equal shapes and, up to rounding, equal values."""
    for a, b in zip(expected, actual, strict=True):
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            continue
        if a.shape != b.shape:
            raise NotTheSame("the model's output would change its shape")
        scale = float(a.abs().max()) if a.numel() else 0.0
        if not float((a - b).abs().max() if a.numel() else 0.0) <= TOLERANCE * max(scale, 1e-3):
            raise NotTheSame("operations between layers mix or shift its channels")
