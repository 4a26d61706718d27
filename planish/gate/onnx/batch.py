"""What an ONNX graph takes: its batch, of any or of one size, and the parts with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from planish.contract.errors import InvalidModel
from planish.gate.onnx import OnnxHeader, check_external
from planish.gate.signature import BATCH, Signature, show_shape

MAX_BATCH = 1024


def check_parts(header: OnnxHeader, parts: Mapping[str, Path]) -> None:
    """Refuse parts of the upload that are missing, too short, or of no use to the graph.

    Raises:
        InvalidModel: names the part.
    """
    check_external(header, parts)
    idle = sorted(parts.keys() - set(header.parts))
    if idle:
        raise InvalidModel(
            f"{', '.join(idle)} came with the graph, which does not refer to it; send the graph "
            "and the files that hold its weights, under the names that it gives them"
        )


def graph_batch(header: OnnxHeader) -> int | None:
    """Return the only batch that a graph takes, None where any goes.

    Raises:
        InvalidModel: see `graph_inputs`.
    """
    first = graph_first(header)
    return first if isinstance(first, int) else None


def graph_inputs(header: OnnxHeader) -> tuple[Signature, ...]:
    """Return the inputs, their first dimension named ``batch``, even where it is fixed.

    Raises:
        InvalidModel: no inputs, or first dimensions that are no common batch.
    """
    graph_first(header)
    return tuple(replace(item, shape=(BATCH, *item.shape[1:])) for item in header.graph.inputs)


def graph_first(header: OnnxHeader) -> int | str:
    """Return the common first dimension of all inputs."""
    inputs = header.graph.inputs
    if not inputs:
        raise InvalidModel("the model has no tensor input")
    first = {item.shape[0] if item.shape else None for item in inputs}
    only = next(iter(first))
    fixed = isinstance(only, int) and 1 <= only <= MAX_BATCH
    if len(first) > 1 or not (only == BATCH or fixed):
        shown = "; ".join(f"{item.name} {show_shape(item.shape)}" for item in inputs)
        raise InvalidModel(
            f"the model's inputs are {shown}; the first dimension of each must be the batch: one "
            f"dynamic dimension for all, or one size from 1 to {MAX_BATCH} for all"
        )
    return only if isinstance(only, int) else BATCH
