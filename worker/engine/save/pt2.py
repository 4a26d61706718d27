"""Write a model as `.pt2`: graph and raw weights, for torch and for our own reader."""

from __future__ import annotations

from pathlib import Path

import torch

from worker.engine.model import Model
from worker.engine.save.program import export_program, quiet


def save_pt2(model: Model, path: Path) -> None:
    """Save a model as a torch.export archive with dynamic batch.

    The archive opens with `torch.export.load` and with the strict reader of `worker.engine.load`.
    It holds no source lines, no file paths and no example values.

    Args:
        model: float, or static int8 (the graph then holds ``quantized_decomposed`` operators).
        path: the file to write; its folder exists.
    """
    program = export_program(model)
    with quiet():
        torch.export.save(program, path)
