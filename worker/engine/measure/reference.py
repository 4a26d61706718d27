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
from torch import Tensor

from worker.engine.model import AnyModel

MAX_VALUES = 1 << 16
MAX_INPUT_BYTES = 32 << 20
ORIGINAL = "original"

Outputs = Sequence[NDArray[np.generic]]


def reference_inputs(
    model: AnyModel, batch: int, seed: int, original: AnyModel | None = None
) -> tuple[Tensor, ...]:
    """Return a model's example, with random token ids instead of zeros where a table reads them.

    Args:
        model: whose inputs they are.
        batch: samples.
        seed: same seed, same values.
        original: what it was made from; knows tables that have become integers.
    """
    generator = torch.Generator().manual_seed(seed)
    tables = {**(original.tables() if original is not None else {}), **model.tables()}
    values = []
    for spec, value in zip(model.inputs, model.example(batch, seed), strict=True):
        _, rows = tables.get(spec.name, ("", 0))
        ids = torch.randint(0, rows, value.shape, generator=generator) if rows else value
        values.append(ids.to(value.dtype))
    return tuple(values)


def write_reference(
    path: Path, inputs: Mapping[str, NDArray[np.generic]], outputs: Mapping[str, Outputs]
) -> None:
    """Write inputs and outputs as an uncompressed ``.npz``; an empty one for very large inputs.

    Args:
        path: the file to write.
        inputs: by name; arrays ``input.NAME``.
        outputs: of each file by its name, and of the original as `ORIGINAL`; arrays
            ``FILE.INDEX``, at most `MAX_VALUES` of each, see `thinned`.
    """
    if sum(array.nbytes for array in inputs.values()) > MAX_INPUT_BYTES:
        inputs, outputs = {}, {}
    arrays = {f"input.{name}": array for name, array in inputs.items()}
    for file, values in outputs.items():
        arrays.update({f"{file}.{index}": thinned(value) for index, value in enumerate(values)})
    np.savez(path, **arrays)  # type: ignore[arg-type]  # the stub mixes up a keyword


def thinned(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return every n-th value, flat, with the least n that leaves at most `MAX_VALUES`."""
    flat = values.reshape(-1)
    return flat[:: -(-flat.size // MAX_VALUES) or 1]
