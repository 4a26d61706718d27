"""Taking labelled channels out of a module: weights, attributes and constants of the graph."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from worker.engine.model import Model
from worker.engine.passes.layers import operator_name
from worker.engine.passes.prune.channel_flow import Flow
from worker.engine.passes.prune.channel_layers import is_depthwise
from worker.engine.passes.prune.labels import Axes
from worker.engine.passes.prune.shape_repair import CannotRepair, Kept, repair_node


def thin(model: Model, flow: Flow, gone: Collection[int]) -> Model:
    """Return a copy of a model without some channels.

    Args:
        model: what `flow` was traced on; not changed.
        flow: the labels.
        gone: roots of the labels that go.

    Raises:
        CannotRepair: a constant of the graph cannot follow.
    """
    thinned = model.clone()
    depthwise = {n for n, layer in model.module.named_modules() if is_depthwise(layer)}
    kept = {path: kept_of(flow, axes, gone) for path, axes in flow.stored.items()}
    changed = {path: k for path, k in kept.items() if not all(one.all() for one in k)}
    _shrink_tensors(model.module, thinned.module, changed)
    for path in {p.rpartition(".")[0] for p in _aliases(model.module, changed)}:
        _correct_attributes(thinned.module.get_submodule(path), path in depthwise)
    _repair_graph(model.module, thinned.module, flow, gone)
    return thinned


def kept_of(flow: Flow, axes: Axes, gone: Collection[int]) -> Kept:
    """Return which indices of a tensor stay, for each dimension."""
    lost = np.fromiter(gone, dtype=np.int64)
    return tuple(
        ~np.isin(flow.labels.root(axis), lost) if axis.any() else np.ones(len(axis), dtype=bool)
        for axis in axes
    )


def _aliases(module: fx.GraphModule, changed: Collection[str]) -> list[str]:
    """Return all paths of the tensors that stand under the given paths."""
    ids = {id(t) for path, t in _tensors(module).items() if path in changed}
    return [path for path, tensor in _tensors(module).items() if id(tensor) in ids]


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters(remove_duplicate=False)) | dict(
        module.named_buffers(remove_duplicate=False)
    )


def _shrink_tensors(
    original: fx.GraphModule, thinned: fx.GraphModule, changed: dict[str, Kept]
) -> None:
    sources = _tensors(original)
    new: dict[int, Tensor] = {}
    for path in _aliases(original, changed):
        source = sources[path]
        if id(source) not in new:
            kept = next(changed[p] for p in changed if sources[p] is source)
            new[id(source)] = _shrunk(source, kept)
        owner, _, name = path.rpartition(".")
        layer = thinned.get_submodule(owner)
        store = layer._parameters if name in layer._parameters else layer._buffers
        store[name] = new[id(source)]  # type: ignore[assignment]


def _shrunk(tensor: Tensor, kept: Kept) -> Tensor:
    small = tensor.detach()
    for dim, one in enumerate(kept):
        if not one.all():
            small = small.index_select(dim, _places(one))
    small = small.clone(memory_format=torch.contiguous_format)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(small, requires_grad=tensor.requires_grad)
    return small


def _places(kept: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.flatnonzero(kept))


def _correct_attributes(layer: nn.Module, depthwise: bool) -> None:
    """Let a layer say the sizes that its weight has now."""
    if isinstance(layer, _ConvNd):
        makes, reads = (1, 0) if layer.transposed else (0, 1)
        if depthwise and layer.transposed:
            layer.groups = layer.weight.shape[0]
        elif depthwise:
            layer.groups = layer.weight.shape[0] * layer.groups // layer.out_channels
        sizes = layer.weight.shape
        layer.out_channels = sizes[makes] * (layer.groups if layer.transposed else 1)
        layer.in_channels = sizes[reads] * (1 if layer.transposed else layer.groups)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
    elif isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels = layer.weight.shape[0]
    elif isinstance(layer, _BatchNorm):
        tensor = layer.running_mean if layer.running_mean is not None else layer.weight
        layer.num_features = len(tensor)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.numel()


def _repair_graph(
    original: fx.GraphModule, thinned: fx.GraphModule, flow: Flow, gone: Collection[int]
) -> None:
    pairs = list(zip(original.graph.nodes, thinned.graph.nodes, strict=True))
    for old, new in pairs:
        _check_norm(original, old, flow, gone)
        source = next((a for a in old.args[:1] if isinstance(a, fx.Node)), None)
        parts = [user for user in old.users if operator_name(user) == "getitem"]
        parts.sort(key=lambda user: int(user.args[1]))
        repair_node(
            new,
            _kept(flow, source, gone),
            _kept(flow, old, gone),
            [kept for part in parts if (kept := _kept(flow, part, gone)) is not None],
        )
    thinned.recompile()


def _kept(flow: Flow, node: fx.Node | None, gone: Collection[int]) -> Kept | None:
    axes = flow.tensors.get(node.name) if node is not None else None
    return None if axes is None else kept_of(flow, axes, gone)


def _check_norm(module: fx.GraphModule, node: fx.Node, flow: Flow, gone: Collection[int]) -> None:
    """A normalization without weights keeps its size in an attribute that no weight corrects."""
    layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm) and layer.weight is None:
        kept = _kept(flow, node, gone)
        if kept and not all(one.all() for one in kept[-len(layer.normalized_shape) :]):
            raise CannotRepair("a normalization without weights has a fixed size")
