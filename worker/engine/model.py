"""The one value that the engine works on: a re-modularized graph with its input specs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from planish.contract.recipe import Quantize
from worker.engine.sparsity import Sparsity


@dataclass(frozen=True)
class InputSpec:
    """One input: `shape` holds sizes, and names for dimensions that may vary (``batch`` first)."""

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class QuantizedLayer:
    """Integers of one weight: ``w ≈ (w_q - zero_point) * scale``, per tensor or output channel."""

    name: str
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]


@dataclass(frozen=True)
class Quantization:
    """How a model is quantized.

    Attributes:
        params: the pass that did it.
        layers: the weights in integers, in graph order.
        kept_float: names of layers that stay float in a dynamic model.
    """

    params: Quantize
    layers: tuple[QuantizedLayer, ...] = ()
    kept_float: tuple[str, ...] = ()


class AnyModel(Protocol):
    """What data must fit, and what answers: a `Model`, or an uploaded ONNX graph."""

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What it takes; the first dimension of each is the batch."""

    def example(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        """Return seeded inputs."""

    @property
    def batch(self) -> int | None:
        """The only batch that it takes; None where any goes."""

    @property
    def quantization(self) -> Quantization | None:
        """How it is quantized."""

    @property
    def precision(self) -> torch.dtype:
        """The float type that most layers compute in."""

    def answer(self) -> Tensor:
        """Return the first output for the default example."""

    def outputs(self, inputs: Sequence[Tensor]) -> list[NDArray[np.generic]]:
        """Return all outputs, flat, for one call."""

    def tables(self) -> Mapping[str, tuple[str, int]]:
        """Return the inputs that are looked up in a table: its name and how many rows it has."""


@dataclass(frozen=True)
class Model:
    """A network in canonical form.

    `module` takes one tensor for each of `inputs`, in that order, and is in eval mode whenever it
    is handed over. ATen calls with weights are `torch.nn` layers under their original names.
    `precision` is the float type that most layers compute in; inputs and outputs are float32.
    `sparsity` names the weights whose zeros every later step keeps.
    """

    module: fx.GraphModule
    inputs: tuple[InputSpec, ...]
    quantization: Quantization | None = None
    sparsity: Sparsity | None = None
    precision: torch.dtype = torch.float32

    def example(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        """Return seeded normal noise (floats) or zeros (integers, booleans) of the input shapes.

        Attention masks are ones: they show everything.

        Args:
            batch: size of every symbolic dimension; 2, because export bakes a batch of 1 in.
            seed: same seed, same values.
        """
        generator = torch.Generator().manual_seed(seed)
        return tuple(sample_of(spec, batch, generator) for spec in self.inputs)

    @property
    def batch(self) -> None:
        """Any batch goes."""

    def answer(self) -> Tensor:
        """Return the first output for the default example."""
        with torch.no_grad():
            return first_output(self.module(*self.example()))

    def outputs(self, inputs: Sequence[Tensor]) -> list[NDArray[np.generic]]:
        """Return all outputs, flat, for one call."""
        with torch.no_grad():
            return [value.numpy() for value in pytree.tree_leaves(self.module(*inputs))]

    def tables(self) -> Mapping[str, tuple[str, int]]:
        """Return the inputs that are looked up in an embedding: its name and number of rows."""
        found: dict[str, tuple[str, int]] = {}
        nodes = self.module.graph.find_nodes(op="placeholder")
        for given, node in zip(self.inputs, nodes, strict=True):
            for user in node.users:
                layer = self.module.get_submodule(user.target) if user.op == "call_module" else None
                if isinstance(layer, nn.Embedding):
                    found[given.name] = str(user.target), layer.num_embeddings
        return found

    def with_module(self, module: fx.GraphModule) -> Model:
        """Return the same model with another graph."""
        return replace(self, module=module)

    def clone(self) -> Model:
        """Return a deep copy that shares no memory with this model."""
        return replace(self, module=keep_persistence(self.module, copy.deepcopy(self.module)))


def keep_persistence(source: nn.Module, copied: fx.GraphModule) -> fx.GraphModule:
    """Leave out of the state_dict of a copy what `source` leaves out; fx forgets it when it copies.

    Args:
        source: holds at least the layers of the copy, under the same names.
        copied: changed in place and returned.
    """
    for path, layer in copied.named_modules():
        hidden = source.get_submodule(path)._non_persistent_buffers_set
        layer._non_persistent_buffers_set |= hidden & layer._buffers.keys()
    return copied


def sample_of(spec: InputSpec, batch: int, generator: torch.Generator) -> Tensor:
    """Return seeded values for one input; see `Model.example`."""
    shape = [batch if isinstance(size, str) else size for size in spec.shape]
    if spec.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(spec.dtype)
    # A mask of zeros hides everything: softmax over nothing is another value in each runtime.
    shown = "attention_mask" in spec.name or ("mask" in spec.name and spec.dtype != torch.bool)
    return torch.full(shape, int(shown), dtype=spec.dtype)


Outputs = Tensor | Sequence["Outputs"] | Mapping[str, "Outputs"]


def first_output(outputs: Outputs) -> Tensor:
    """Return the first tensor of a model's result (the logits), whatever container it comes in."""
    if isinstance(outputs, Tensor):
        return outputs
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    return first_output(next(iter(values)))
