"""A float graph with a pair wherever a value may be rounded: what all static methods work on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e, prepare_qat_pt2e

from planish.contract.recipe import Quantize
from worker.engine.model import Model
from worker.engine.quantize.nodes import argument, attribute, constant, source
from worker.engine.quantize.pairs import Pair, settle
from worker.engine.quantize.placement import CONVOLUTIONS, LINEARS, RuntimeQuantizer
from worker.engine.save.program import export_program, quiet

aten = torch.ops.aten

# int32 biases have the scale (input scale * weight scale); this leaves one bit of headroom.
_BIAS_LIMIT = 2.0**30
_IDENTITIES = {aten.dropout.default, aten.dropout_.default}

Batches = Iterable[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Prepared:
    """A graph of ATen calls on float weights, with a `Pair` at each place of a q/dq pair.

    Attributes:
        graph: takes one tensor for each input; all pairs begin as observers.
        names: layers by the names of the nodes that compute them.
    """

    graph: fx.GraphModule
    names: Mapping[str, str]

    def calls(self) -> Iterator[tuple[str, fx.Node]]:
        """Yield every call of a layer that becomes integers, with the layer's name, in order."""
        for node in self.graph.graph.nodes:
            if node.name in self.names:
                yield self.names[node.name], node

    def pair(self, node: fx.Node, index: int) -> Pair:
        """Return the pair that argument `index` of a layer's call comes through."""
        pair = self.graph.get_submodule(str(source(node, index).target))
        if not isinstance(pair, Pair):
            raise TypeError(f"argument {index} of {node.name} has no pair")
        return pair

    def weight(self, node: fx.Node) -> Tensor:
        """Return the float weight of a layer's call; changing it in place changes the graph."""
        weight = constant(self.graph, source(source(node, 1), 0))
        if weight is None:
            raise TypeError(f"the weight of {node.name} is not a constant")
        return weight

    def weights(self) -> dict[str, Tensor]:
        """Return the float weights by layer."""
        return {layer: self.weight(node) for layer, node in self.calls()}

    def bias(self, node: fx.Node) -> Tensor | None:
        """Return the float bias of a layer's call, through its observer if it has one."""
        bias = argument(node, 2)
        if bias is not None and bias.op == "call_module":
            bias = source(bias, 0)
        return constant(self.graph, bias)


def prepare(model: Model, params: Quantize, layers: tuple[str, ...]) -> Prepared:
    """Return the model's graph with pairs, which know nothing yet.

    Args:
        model: float, in canonical form; stays as it is, and shares its weights with the graph.
        params: dtype, granularity and calibration; mode qat prepares for training.
        layers: names of the convolutions and linear layers to quantize.
    """
    with quiet(), torch.no_grad():
        graph = _functional(export_program(model)).module(check_guards=False)
        _drop_identities(graph)
        _shield_batchnorms(graph)
        names = _layer_calls(graph, layers)
        insert = prepare_qat_pt2e if params.mode == "qat" else prepare_pt2e
        prepared = insert(graph, RuntimeQuantizer(params, {f"{n}.weight" for n in layers}))
    return Prepared(_plain(prepared), names)


def observe(prepared: Prepared, batches: Batches) -> None:
    """Let samples pass, then settle every pair's scale and zero point; nothing rounds yet.

    Args:
        prepared: fresh from `prepare`.
        batches: calibration samples, model-ready.
    """
    with torch.no_grad():
        for batch in batches:
            prepared.graph(*batch)
        settle(prepared.graph)
        fit_biases(prepared)


def fit_biases(prepared: Prepared) -> None:
    """Widen weight scales where a bias would overflow int32: dead channels have next to no range.

    The runtime stores a bias as ``round(bias / (input scale * weight scale))``; without this, a
    channel whose weights are (almost) zero would wrap around silently.
    """
    for _, node in prepared.calls():
        bias = prepared.bias(node)
        if bias is None:
            continue
        weight = prepared.pair(node, 1)
        least = bias.detach().abs() / (prepared.pair(node, 0).scale * _BIAS_LIMIT)
        weight.widen(least if weight.is_per_channel else least.max())


def _plain(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a GraphModule that may be trained: flat inputs, outputs in their containers.

    torchao forbids ``train()`` and ``eval()`` on exported graphs, whose operators have the mode
    baked in; dropout is gone from this one and BatchNorm frozen, so nothing depends on it.
    """
    _plain_calling(graph.graph)
    layers = {str(n.target) for n in graph.graph.nodes if n.op in ("get_attr", "call_module")}
    module = fx.GraphModule({name: attribute(graph, name) for name in layers}, graph.graph)
    module.meta.update(graph.meta)
    module.graph.lint()
    return module.eval()


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Turn in-place writes into values: a q/dq pair hands on a copy, whose writes are lost."""
    schemas = (getattr(node.target, "_schema", None) for node in program.graph.nodes)
    if any(schema is not None and schema.is_mutable for schema in schemas):
        program = program.run_decompositions({})
    return program


def _drop_identities(graph: fx.GraphModule) -> None:
    """Remove dropout: idle in eval mode, it would part a layer from its activation."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in _IDENTITIES:
            node.replace_all_uses_with(source(node, 0))
            graph.graph.erase_node(node)
    graph.recompile()


def _shield_batchnorms(graph: fx.GraphModule) -> None:
    """Hide what is left of BatchNorm layers from torchao; `show_batchnorms` is the way back.

    Those that can be folded are folded already. torchao would fold into a layer that is called
    twice as well, and change the other call's weights with it; and where it sees any, it exports
    close to a hundred patterns of its own, which takes a minute.
    """
    for node in graph.graph.find_nodes(op="call_function", target=aten.batch_norm.default):
        node.target = frozen_batch_norm
    graph.recompile()


def show_batchnorms(graph: fx.GraphModule) -> None:
    """Give hidden BatchNorm layers their operator back; in place."""
    for node in graph.graph.find_nodes(op="call_function", target=frozen_batch_norm):
        node.target = aten.batch_norm.default


def frozen_batch_norm(*args: object) -> Tensor:
    """Normalize by running statistics: ATen's operator under a name that torchao does not know."""
    result: Tensor = aten.batch_norm.default(*args)
    return result


def _layer_calls(graph: fx.GraphModule, layers: tuple[str, ...]) -> dict[str, str]:
    """Return layer names by the names of the nodes that compute them."""
    weights = {f"{name}.weight": name for name in layers}
    calls = [node for node in graph.graph.nodes if node.target in CONVOLUTIONS | LINEARS]
    targets = {node.name: str(source(node, 1).target) for node in calls}
    return {name: weights[target] for name, target in targets.items() if target in weights}


def _plain_calling(graph: fx.Graph) -> None:
    """Replace the exported calling convention by positional tensors in and containers out."""
    codegen = graph._codegen
    if not isinstance(codegen, fx.graph._PyTreeCodeGen) or codegen.pytree_info.out_spec is None:
        raise TypeError("an exported graph is called through a pytree")
    output = graph.output_node()
    (values,) = output.args
    if not isinstance(values, list | tuple):
        raise TypeError("an exported graph returns its outputs in a flat list")
    output.args = (pytree.tree_unflatten(list(values), codegen.pytree_info.out_spec),)
    graph.set_codegen(fx.graph.CodeGen())
