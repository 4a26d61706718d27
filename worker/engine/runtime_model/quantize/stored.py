"""Weights of an ONNX graph stored in integers and computed with in floats.

Matrix products become ONNX Runtime's MatMulNBits, convolutions and tables keep their operator and
get int8 weights of one scale for each channel or row. Grids and bytes are those of the torch graph
(`worker.engine.quantize.grid`, `packed`), so both ways in give the same integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from planish.contract.recipe import Quantize
from worker.engine.model import QuantizedLayer
from worker.engine.quantize.grid import Grid, fit_grid, round_to_nearest
from worker.engine.quantize.packed import pack
from worker.engine.runtime_model.layers import Layer, values_of

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Stored:
    """A graph after weights were put into integers.

    Attributes:
        proto: the new graph.
        layers: their scales and zero points, one for each layer that was asked for.
        zeros: how many integers stand for zero.
    """

    proto: ModelProto
    layers: tuple[QuantizedLayer, ...]
    zeros: int


def store_tables(proto: ModelProto, layers: Sequence[Layer]) -> Stored:
    """Return a copy with some tables in int8, one scale for each row."""
    work = _Work(proto)
    for layer in layers:
        work.table(layer)
    return work.done()


def store_weights(proto: ModelProto, layers: Sequence[Layer], params: Quantize) -> Stored:
    """Return a copy with the weights of some layers in integers.

    Products get what `params` asks for; tables and convolutions eight bits.
    """
    work = _Work(proto)
    for layer in layers:
        if layer.kind == "Gather":
            work.table(layer)
        elif layer.kind == "Conv":
            work.convolution(layer, whole=params.granularity == "tensor")
        else:
            work.product(layer, params)
    return work.done()


class _Work:
    """Rewrites a copy of a graph, layer by layer."""

    def __init__(self, proto: ModelProto) -> None:
        self.proto = ModelProto()
        self.proto.CopyFrom(proto)
        graph = self.proto.graph
        self.nodes = {node.name: node for node in graph.node}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.layers: list[QuantizedLayer] = []
        self.zeros = 0
        self.counted: set[str] = set()
        self.new: dict[str, list[NodeProto]] = {}

    def done(self) -> Stored:
        """Return the graph with its new nodes in place and without what nobody reads."""
        graph = self.proto.graph
        nodes = [new for node in graph.node for new in self.new.get(node.name, [node])]
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        read |= {value.name for value in graph.output}
        kept = [tensor for tensor in self.constants.values() if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        if any(node.domain == MICROSOFT for node in nodes) and not any(
            item.domain == MICROSOFT for item in self.proto.opset_import
        ):
            self.proto.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        return Stored(self.proto, tuple(self.layers), self.zeros)

    def table(self, layer: Layer) -> None:
        """Look rows and their scales up, and multiply."""
        node, rows = self.nodes[layer.name], self._rows(layer)
        grid = fit_grid(rows, bits=8, group=None)
        integers = round_to_nearest(rows, grid)
        stored = self._put(f"{layer.weight}_int8", integers.to(torch.int8).numpy())
        scale = self._put(f"{layer.weight}_scale", grid.scale.numpy())
        looked, floats, scales = (f"{layer.name}.{end}" for end in ("rows", "floats", "scales"))
        self.new[layer.name] = [
            helper.make_node("Gather", [stored, node.input[1]], [looked], name=layer.name, axis=0),
            helper.make_node("Cast", [looked], [floats], name=floats, to=TensorProto.FLOAT),
            helper.make_node("Gather", [scale, node.input[1]], [scales], name=scales, axis=0),
            helper.make_node(
                "Mul", [floats, scales], list(node.output), name=f"{layer.name}.scaled"
            ),
        ]
        self._note(layer, grid, integers)

    def convolution(self, layer: Layer, *, whole: bool) -> None:
        """Dequantize the weight in front of the convolution."""
        node, rows = self.nodes[layer.name], self._rows(layer)
        grid = fit_grid(rows, bits=8, group=None, whole=whole)
        integers = round_to_nearest(rows, grid)
        values = integers.to(torch.int8).numpy().reshape(layer.shape)
        count = 1 if whole else len(rows)
        parts = [
            self._put(f"{layer.weight}_int8", values),
            self._put(f"{layer.weight}_scale", grid.scale.numpy().reshape(-1)[:count]),
            self._put(f"{layer.weight}_zero_point", np.zeros(count, np.int8)),
        ]
        if whole:
            for name in parts[1:]:
                del self.constants[name].dims[:]
        weight = f"{layer.name}.widened"
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[1] = weight
        widen = helper.make_node("DequantizeLinear", parts, [weight], name=weight, axis=0)
        self.new[layer.name] = [widen, copy]
        self._note(layer, grid, integers)

    def product(self, layer: Layer, params: Quantize) -> None:
        """Put MatMulNBits in the product's place, and its bias behind it."""
        node, rows = self.nodes[layer.name], self._rows(layer)
        group = params.group_size if params.granularity == "group" else None
        grid = fit_grid(
            rows,
            bits=4 if params.dtype == "int4" else 8,
            group=group if group is not None and group < rows.shape[1] else None,
            whole=params.granularity == "tensor",
        )
        integers = round_to_nearest(rows, grid)
        packed = pack(integers, grid)
        inputs = [
            node.input[0],
            self._put(f"{layer.weight}_packed", packed.weight.numpy()),
            self._put(f"{layer.weight}_scale", packed.scale.numpy()),
        ]
        if packed.zero_point is not None:
            inputs.append(self._put(f"{layer.weight}_zero_point", packed.zero_point.numpy()))
        bias = node.input[2] if len(node.input) > 2 else ""
        out = f"{layer.name}.product" if bias else node.output[0]
        nodes = [
            helper.make_node(
                "MatMulNBits",
                inputs,
                [out],
                name=layer.name,
                domain=MICROSOFT,
                K=packed.columns,
                N=len(rows),
                bits=packed.bits,
                block_size=packed.block,
            )
        ]
        if bias:
            nodes.append(
                helper.make_node("Add", [out, bias], list(node.output), name=f"{layer.name}.bias")
            )
        self.new[layer.name] = nodes
        self._note(layer, grid, integers)

    def _rows(self, layer: Layer) -> torch.Tensor:
        """Return the weight as (outputs, values that each sums over)."""
        values = torch.from_numpy(values_of(self.constants[layer.weight]).astype(np.float32))
        node = self.nodes[layer.name]
        flipped = any(a.name == "transB" and a.i for a in node.attribute)
        if layer.kind == "MatMul" or (layer.kind == "Gemm" and not flipped):
            return values.T.contiguous()
        return values.reshape(values.shape[0], -1)

    def _put(self, name: str, values: np.ndarray) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def _note(self, layer: Layer, grid: Grid, integers: torch.Tensor) -> None:
        whole = bool((grid.scale == grid.scale[0, 0]).all()) and grid.scale.shape[1] == 1
        count = 1 if whole else None
        self.layers.append(
            QuantizedLayer(
                name=layer.name,
                dtype=f"int{grid.bits}",
                scale=tuple(grid.scale.flatten()[:count].tolist()),
                zero_point=tuple(grid.zero_point.flatten()[:count].tolist()),
            )
        )
        if layer.weight not in self.counted:
            values = grid.values(integers, torch.arange(integers.shape[1]))
            self.zeros += int((values == 0).sum())
        self.counted.add(layer.weight)
