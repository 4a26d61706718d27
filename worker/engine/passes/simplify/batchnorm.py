"""BatchNorm becomes part of the layer before it."""

from __future__ import annotations

from collections import Counter
from typing import cast

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from planish.contract.report import LayerChanged, LayerSkipped
from worker.engine.model import Model
from worker.engine.passes.layers import layer_of
from worker.engine.passes.prune.shape_repair import Shapes, record_shapes


def fold_batchnorms(model: Model) -> tuple[list[LayerChanged], list[LayerSkipped]]:
    """Fold each BatchNorm whose input comes from one layer alone into that layer, in place.

    In eval mode a BatchNorm is a scale and a shift per channel, so the weights can carry it
    (Jacob et al. 2018, arXiv:1712.05877, section 3.2).

    Returns:
        The layers that took one in, and the BatchNorms that stay.
    """
    module = model.module
    norms = _norm_calls(module)
    if not norms:
        return [], []
    shapes = record_shapes(module, model.example())
    calls = Counter(str(n.target) for n in module.graph.nodes if n.op == "call_module")
    changed, skipped = [], []
    for node in norms:
        why = _why_not(module, node, calls, shapes)
        if why:
            skipped.append(LayerSkipped(name=str(node.target), why=why))
        else:
            changed.append(_fold(module, node))
    return changed, skipped


def _norm_calls(module: fx.GraphModule) -> list[fx.Node]:
    return [n for n in module.graph.nodes if isinstance(layer_of(module, n), _BatchNorm)]


def _why_not(
    module: fx.GraphModule, node: fx.Node, calls: Counter[str], shapes: Shapes
) -> str | None:
    """Return why a BatchNorm cannot be folded; None when it can."""
    source = node.args[0]
    layer = layer_of(module, source) if isinstance(source, fx.Node) else None
    if not isinstance(source, fx.Node) or not isinstance(layer, _ConvNd | nn.Linear):
        return "its input is not the output of a convolution or linear layer"
    if len(source.users) > 1:
        return f"the output of {source.target} is read elsewhere too"
    if calls[str(source.target)] > 1 or calls[str(node.target)] > 1:
        return "the layer or the BatchNorm is called more than once"
    norm = layer_of(module, node)
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
        return "it keeps no running statistics"
    if isinstance(layer, nn.Linear) and len(shapes[source.name]) != 2:
        return "it does not normalize the features of the linear layer"
    return None


def _fold(module: fx.GraphModule, node: fx.Node) -> LayerChanged:
    (source,) = node.all_input_nodes
    layer = module.get_submodule(str(source.target))
    norm = cast("_BatchNorm", module.get_submodule(str(node.target)))
    trainable = {name: p.requires_grad for name, p in layer.named_parameters()}
    if isinstance(layer, nn.Linear):
        folded: nn.Module = fuse_linear_bn_eval(layer, norm)
    else:
        transposed = isinstance(layer, _ConvTransposeNd)
        folded = fuse_conv_bn_eval(layer, norm, transposed)  # type: ignore[type-var]
    for name, parameter in folded.named_parameters():
        parameter.requires_grad_(trainable.get(name, True))
    module.set_submodule(str(source.target), folded)
    node.replace_all_uses_with(source)
    name = str(node.target)
    module.graph.erase_node(node)
    module.delete_submodule(name)
    return LayerChanged(name=str(source.target), what=f"{name} folded in")
