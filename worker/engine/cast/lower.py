"""From a float32 graph to one that computes in 16 bits, with casts where the two meet."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from worker.engine.passes.layers import layer_of
from worker.engine.quantize.nodes import attribute


def lower(
    module: fx.GraphModule,
    example: tuple[Tensor, ...],
    dtype: torch.dtype,
    *,
    wide_layers: Collection[str],
    wide_nodes: Collection[str],
) -> tuple[str, ...]:
    """Lower a graph in place; inputs and outputs stay float32.

    Args:
        module: float32, in eval mode.
        example: inputs, batch 2.
        dtype: ``torch.float16`` or ``torch.bfloat16``.
        wide_layers: layers that keep float32 weights.
        wide_nodes: nodes that are computed in float32.

    Returns:
        Nodes that had to stay float32 because the type cannot compute them.
    """
    _lower_weights(module, dtype, wide_layers)
    walk = _Lowering(module, dtype, frozenset(wide_nodes))
    with torch.no_grad():
        walk.run(example)
    module.graph.lint()
    module.recompile()
    return tuple(walk.refused)


def _lower_weights(module: fx.GraphModule, dtype: torch.dtype, wide: Collection[str]) -> None:
    """Lower parameters and buffers, but for those that a float32 layer shares or that overflow."""
    kept = {
        id(tensor)
        for name in wide
        for tensor in (
            *module.get_submodule(name).parameters(),
            *module.get_submodule(name).buffers(),
        )
    }
    limit = torch.finfo(dtype).max
    for tensor in (*module.parameters(), *module.buffers()):
        small = tensor.is_floating_point() and id(tensor) not in kept
        if small and not bool((tensor.detach().abs() > limit).any()):
            tensor.data = tensor.data.to(dtype)


@dataclass
class _Lowering:
    """Walks through the graph with values at hand, and casts what meets in different types."""

    module: fx.GraphModule
    dtype: torch.dtype
    wide: frozenset[str]
    values: dict[fx.Node, Any] = field(default_factory=dict)
    casts: dict[tuple[fx.Node, torch.dtype], fx.Node] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def run(self, example: tuple[Tensor, ...]) -> None:
        inputs = iter(example)
        for node in list(self.module.graph.nodes):
            if node.op == "placeholder":
                self.values[node] = next(inputs)
            elif node.op == "get_attr":
                self.values[node] = attribute(self.module, str(node.target))
            elif node.op == "output":
                self._cast_inputs(node, torch.float32)
            else:
                self._compute(node)

    def _compute(self, node: fx.Node) -> None:
        wanted = self._wanted(node)
        if wanted is not None:
            self._cast_inputs(node, wanted)
        try:
            self.values[node] = self._call(node)
        except (RuntimeError, TypeError):
            # No kernel, or a number that the type cannot hold (a mask's -3.4e38).
            self._cast_inputs(node, torch.float32)
            self.values[node] = self._call(node)
            self.refused.append(node.name)

    def _wanted(self, node: fx.Node) -> torch.dtype | None:
        """Return the type that a node's inputs must have; None where they are left as they are."""
        layer = layer_of(self.module, node)
        weight = None if layer is None else next(_floats(layer), None)
        if weight is not None:
            return weight.dtype
        if node.name in self.wide:
            return torch.float32
        types = {value.dtype for value in self._tensors(node) if value.is_floating_point()}
        return self.dtype if self.dtype in types and len(types) > 1 else None

    def _tensors(self, node: fx.Node) -> list[Tensor]:
        values = (self.values[source] for source in node.all_input_nodes)
        return [value for value in values if isinstance(value, Tensor)]

    def _cast_inputs(self, node: fx.Node, dtype: torch.dtype) -> None:
        for source in node.all_input_nodes:
            value = self.values[source]
            if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != dtype:
                node.replace_input_with(source, self._cast(source, value, dtype))

    def _cast(self, source: fx.Node, value: Tensor, dtype: torch.dtype) -> fx.Node:
        if (source, dtype) not in self.casts:
            with self.module.graph.inserting_after(source):
                cast = self.module.graph.call_function(torch.ops.aten.to.dtype, (source, dtype))
            self.values[cast] = value.to(dtype)
            self.casts[source, dtype] = cast
        return self.casts[source, dtype]

    def _call(self, node: fx.Node) -> object:
        args = fx.map_arg(node.args, lambda n: self.values[n])
        kwargs = fx.map_arg(node.kwargs, lambda n: self.values[n])
        function = layer_of(self.module, node) or node.target
        if not callable(function):
            raise TypeError(f"{node.name} calls {node.target!r}, which is no function")
        result: object = function(*args, **kwargs)
        return result


def _floats(layer: nn.Module) -> Iterator[Tensor]:
    return (t for t in (*layer.parameters(), *layer.buffers()) if t.is_floating_point())
