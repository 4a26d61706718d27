"""Noise and what each artifact makes of it, stored with the artifacts for whoever checks them.

Inputs are seeded noise and random token ids, never a user's data. Large outputs are thinned out to
evenly spaced values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from worker.engine.load.inplace import name_of
from worker.engine.model import AnyModel, Model
from worker.engine.quantize.packed import PackedEmbedding

MAX_VALUES = 1 << 16
ORIGINAL = "original"

Outputs = Sequence[NDArray[np.generic]]


def reference_inputs(model: AnyModel, batch: int, seed: int) -> tuple[Tensor, ...]:
    """Return `Model.example` with random token ids instead of zeros where a table reads them."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        value
        if rows is None
        else torch.randint(0, rows, value.shape, generator=generator).to(value)
        for value, rows in zip(model.example(batch, seed), _tables(model), strict=True)
    )


def _tables(model: AnyModel) -> list[int | None]:
    """Return for each input how many rows the table has that reads it directly."""
    if isinstance(model, Model):
        places = [node for node in model.module.graph.nodes if node.op == "placeholder"]
        return [_rows(model, place) for place in places]
    found = model.tables()
    return [found[item.name][1] if item.name in found else None for item in model.inputs]


def write_reference(
    path: Path, inputs: Mapping[str, NDArray[np.generic]], outputs: Mapping[str, Outputs]
) -> None:
    """Write inputs and outputs as an uncompressed ``.npz``.

    Args:
        path: the file to write.
        inputs: by name; arrays ``input.NAME``.
        outputs: of each file by its name, and of the original as `ORIGINAL`; arrays
            ``FILE.INDEX``, at most `MAX_VALUES` of each, see `thinned`.
    """
    arrays = {f"input.{name}": array for name, array in inputs.items()}
    for file, values in outputs.items():
        arrays.update({f"{file}.{index}": thinned(value) for index, value in enumerate(values)})
    np.savez(path, **arrays)  # type: ignore[arg-type]  # the stub mixes up a keyword


def thinned(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return every n-th value, flat, with the least n that leaves at most `MAX_VALUES`."""
    flat = values.reshape(-1)
    return flat[:: -(-flat.size // MAX_VALUES) or 1]


def _rows(model: Model, place: fx.Node) -> int | None:
    """Return how many rows the table has that reads an input directly."""
    for user in place.users:
        if user.op == "call_module":
            layer = model.module.get_submodule(str(user.target))
            if isinstance(layer, nn.Embedding | PackedEmbedding):
                return int(layer.weight.shape[0])
        if user.op == "call_function" and name_of(user) == "embedding":
            table = user.args[0]
            if isinstance(table, fx.Node) and table.op == "get_attr":
                return int(model.module.get_parameter(str(table.target)).shape[0])
    return None
