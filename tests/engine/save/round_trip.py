"""One family through one output: from the user's module to what load.py gives back."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from planish.contract.errors import PlanishError
from planish.contract.recipe import Quantize
from planish.contract.spec import ModelSpec, Output
from tests.engine.passes.models import context, noise_splits
from tests.families import FAMILIES, export_family
from worker.engine.load import load_model
from worker.engine.measure.reference import reference_inputs
from worker.engine.model import Model
from worker.engine.passes import entry_for
from worker.engine.publish import WRITERS
from worker.engine.report.result import MODEL_FILES
from worker.engine.save.standalone import load

BATCHES = (1, 3)
SEQUENCE = 7
TORCH: tuple[Output, ...] = ("pt2", "safetensors", "aotinductor")
Arrays = list[NDArray[np.generic]]


@dataclass(frozen=True)
class Cell:
    """How far a file's outputs lie from the model's, as a share of their Euclidean norm.

    Attributes:
        error: the largest of all outputs and batches; None where the format does not take it.
        cause: why not.
    """

    error: float | None
    cause: str | None = None


def tolerance(output: Output, numbers: str) -> float:
    """Return the largest error that passes.

    Float files sum in another order. Integer kernels round ties otherwise than torch does, and one
    step early on moves later ones; in torch itself only compiled code does.
    """
    if numbers == "float" or output in ("pt2", "safetensors"):
        return 1e-5
    return 0.02


@cache
def family(name: str) -> tuple[nn.Module, Model]:
    """Return a family's module, as its user has it, and the model read from its export."""
    with tempfile.TemporaryDirectory() as folder:
        path = export_family(name, Path(folder, "model.pt2"))
        return FAMILIES[name]()[0], load_model(path, ModelSpec())


@cache
def int8(name: str) -> Model:
    """Return a family in static int8, calibrated on noise."""
    _, model = family(name)
    params = Quantize(samples=16)
    splits = noise_splits(model, samples=40, labels=False)
    return entry_for(params).run(model, params, context(model, params, splits=splits)).model


def inputs_of(model: Model, batch: int) -> tuple[Tensor, ...]:
    """Return noise and random tokens, of several tokens where the length is free."""
    if len({size for spec in model.inputs for size in spec.shape if isinstance(size, str)}) > 1:
        wide = reference_inputs(model, SEQUENCE, 0)
        return tuple(tensor[:batch] for tensor in wide)
    return reference_inputs(model, batch, 0)


def measure(name: str, output: Output, numbers: str, folder: Path) -> Cell:
    """Write a family in a format, open it as load.py does, and compare.

    Float files are held against the user's own module; integer ones against the quantized graph.
    """
    module, model = family(name)
    before: nn.Module = module
    if numbers == "int8":
        model = int8(name)
        before = model.module
    path = folder / MODEL_FILES[output]
    try:
        WRITERS[output](model, path)
        network = load(path, threads=1)
    except (PlanishError, RuntimeError) as error:
        return Cell(None, str(error).partition("\n")[0])
    worst = 0.0
    for batch in BATCHES:
        inputs = inputs_of(model, batch)
        with torch.no_grad():
            wanted = [value.numpy() for value in pytree.tree_leaves(before(*inputs))]
        worst = max(worst, _distance(wanted, network.run([i.numpy() for i in inputs])))
    return Cell(worst)


def _distance(wanted: Sequence[NDArray[np.generic]], found: Arrays) -> float:
    pairs = zip(wanted, found, strict=True)
    return max(
        float(np.linalg.norm(a.astype(float) - b) / max(float(np.linalg.norm(a)), 1e-6))
        for a, b in pairs
    )
