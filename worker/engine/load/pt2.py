"""``.pt2`` files: read with our own reader, never with `torch.export.load`, which runs code."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import fx

from planish.gate.pt2 import open_package, program_inputs
from planish.gate.signature import Signature
from worker.engine.load.graph import read_graph
from worker.engine.load.weights import read_tensors
from worker.engine.model import InputSpec


def read_pt2(path: Path) -> tuple[fx.GraphModule, tuple[InputSpec, ...]]:
    """Return the graph of ATen calls in a ``.pt2``, in eval mode, and its inputs.

    Raises:
        UnsafeModel: pickles, native code or code in expressions.
        OperatorNotAllowed: an operator outside the table.
        InvalidModel: damaged, or of a form that is not supported.
    """
    package = open_package(path)
    program = package.program()
    weights = read_tensors(package, "data/weights", "weights")
    constants = read_tensors(package, "data/constants", "constants")
    module = read_graph(program, weights, constants)
    return module, tuple(input_spec(item) for item in program_inputs(program))


def input_spec(item: Signature) -> InputSpec:
    """Return an input of the gate in torch's words."""
    dtype: torch.dtype = getattr(torch, item.dtype)
    return InputSpec(item.name, item.shape, dtype)
