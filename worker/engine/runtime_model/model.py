"""The value that the runtime passes work on: a graph as it came, with what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor

from worker.engine.load.dataset import Dataset
from worker.engine.model import InputSpec, Quantization, sample_of
from worker.engine.report.build import Amount
from worker.engine.runtime_model.layers import tables_of
from worker.engine.runtime_model.session import Array, open_session

_BATCH = 32


@dataclass(frozen=True)
class RuntimeModel:
    """An ONNX graph with its weights in it; passes return another and never change this one.

    Attributes:
        proto: weighted nodes have the names of their layers, every other node a name of its own;
            constants are initializers.
        inputs: the first dimension of each is the batch, by name, even where it is fixed.
        amount: learnt numbers and work for one sample.
        batch: the only batch that the graph takes; None where any goes.
        sizes: what stands for other dimensions that vary, in examples.
        quantization: what `quantize` did.
        already_quantized: whether it came with integers in it.
        precision: the float type that most layers compute in.
    """

    proto: ModelProto
    inputs: tuple[InputSpec, ...]
    amount: Amount
    batch: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    quantization: Quantization | None = None
    already_quantized: bool = False
    precision: torch.dtype = torch.float32

    def example(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        """Return seeded normal noise (floats) or zeros (integers); see `Model.example`.

        Args:
            batch: number of samples, whatever the graph's own batch is.
            seed: same seed, same values.
        """
        generator = torch.Generator().manual_seed(seed)
        return tuple(sample_of(spec, batch, generator) for spec in self._settled())

    def named(self, values: tuple[Tensor, ...]) -> dict[str, Array]:
        """Return inputs by name."""
        return {i.name: value.numpy() for i, value in zip(self.inputs, values, strict=True)}

    def answer(self) -> Tensor:
        """Return the first output for the default example."""
        return torch.from_numpy(self.outputs(self.example(self.batch or 2))[0])

    def outputs(self, inputs: Sequence[Tensor]) -> list[Array]:
        """Return all outputs for one call."""
        found = open_session(self.proto).run(None, self.named(tuple(inputs)))
        return [np.asarray(value) for value in found]

    def tables(self) -> Mapping[str, tuple[str, int]]:
        """Return the inputs that are looked up in a table: its name and number of rows."""
        return tables_of(self.proto)

    def calls(self, samples: Dataset) -> Iterator[dict[str, Array]]:
        """Yield samples as inputs by name, in batches that the graph takes."""
        size = self.batch or _BATCH
        for inputs, _ in samples.batches(size):
            rows = len(inputs[0])
            if self.batch is None or rows == size:
                yield self.named(inputs)
            elif rows:
                filled = (torch.cat([i, i[-1:].expand(size - rows, *i.shape[1:])]) for i in inputs)
                yield self.named(tuple(filled))

    def answers(self, samples: Dataset) -> Tensor:
        """Return the first output for each sample."""
        session = open_session(self.proto)
        parts = [np.asarray(session.run(None, call)[0]) for call in self.calls(samples)]
        return torch.from_numpy(np.concatenate(parts)[: len(samples)])

    def with_proto(self, proto: ModelProto) -> RuntimeModel:
        """Return the same model with another graph."""
        return replace(self, proto=proto)

    def _settled(self) -> Iterator[InputSpec]:
        for spec in self.inputs:
            yield replace(spec, shape=tuple(self.sizes.get(str(s), s) for s in spec.shape))
