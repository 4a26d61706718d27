"""A `Model` as a torch.export program: the one form that both file formats are written from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes

from worker.engine.model import Model

DynamicShapes = tuple[Any, ...]

_META_KEPT = ("val", "tensor_meta")
_FIXES = "Suggested fixes:"
_MODULE_STACK = "nn_module_stack"


def export_program(model: Model) -> ExportedProgram:
    """Export a model with every named dimension dynamic, and without traces of where it was made.

    An example batch of 1 would be baked into the program, therefore the example holds 2 samples.

    Raises:
        torch._dynamo.exc.UserError: a named dimension cannot vary in this graph.
    """
    shapes = dynamic_shapes(model)
    with quiet():
        try:
            program = _export(model, shapes)
        except UserError as error:
            # A graph may bound a dimension (512 positions); the error carries the bounds.
            bounded = refine_dynamic_shapes_from_suggested_fixes(_suggestions(error), shapes)
            program = _export(model, bounded)
    strip_program(program)
    return program


def _suggestions(error: UserError) -> str:
    """Return the error's text up to the end of its suggested fixes; advice may follow them."""
    head, mark, fixes = str(error).partition(_FIXES)
    return head + mark + fixes.strip("\n").partition("\n\n")[0]


def dynamic_shapes(model: Model) -> DynamicShapes:
    """Return one `Dim` for each named dimension; the same name is the same size in all inputs."""
    names = {size for spec in model.inputs for size in spec.shape if isinstance(size, str)}
    dims = {name: Dim(name, min=1) for name in names}
    return tuple(
        {axis: dims[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in model.inputs
    )


def strip_program(program: ExportedProgram) -> None:
    """Drop source lines, file paths and example values: none of them is the reader's business."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            kept = {key: node.meta[key] for key in _META_KEPT if key in node.meta}
            if _MODULE_STACK in node.meta:
                kept[_MODULE_STACK] = _layer_paths(node.meta[_MODULE_STACK])
            node.meta = kept
    program.example_inputs = None


def _layer_paths(stack: dict[str, tuple[str, object]]) -> dict[str, tuple[str, str]]:
    """Keep where in the model a call stands, but no class names other than torch's own."""
    paths = {}
    for key, (path, kind) in stack.items():
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"  # type: ignore[attr-defined]
        paths[key] = (
            path,
            name if name.startswith("torch.nn.") else "torch.nn.modules.module.Module",
        )
    return paths


@contextmanager
def quiet() -> Iterator[None]:
    """Silence deprecation notes that torch's exporters write about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _export(model: Model, shapes: DynamicShapes | dict[str, Any] | list[Any]) -> ExportedProgram:
    with torch.no_grad():
        return torch.export.export(model.module, model.example(), dynamic_shapes=shapes)
