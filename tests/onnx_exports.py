"""ONNX files as users would send them: by both of torch's exporters."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from worker.engine.save.onnx import exporter_silenced


def export_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    names: tuple[str, ...] = ("input",),
    fixed: bool = False,
    external: bool = False,
    opset: int = 20,
    optimized: bool = True,
) -> Path:
    """Export by torch's present exporter.

    Args:
        module: in eval mode.
        example: its inputs, of a batch of 2, or of the fixed batch.
        path: the file to write.
        names: of the inputs.
        fixed: bake the batch of the example in.
        external: put the weights beside the graph.
        opset: of the file.
        optimized: fold what the exporter folds.
    """
    batch = {0: torch.export.Dim("batch")}
    shapes = None if fixed else tuple(batch for _ in example)
    with exporter_silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(names),
            opset_version=opset,
            optimize=optimized,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        program.save(str(path), external_data=external)
    return path


def export_legacy(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    names: tuple[str, ...] = ("input",),
    opset: int = 13,
) -> Path:
    """Export by torch's older exporter, whose nodes and weights have names of another kind."""
    axes = {name: {0: "N"} for name in names}
    sink = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(sink), redirect_stderr(sink):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            str(path),
            dynamo=False,
            input_names=list(names),
            opset_version=opset,
            dynamic_axes=axes,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    onnx.checker.check_model(str(path))
    return path
