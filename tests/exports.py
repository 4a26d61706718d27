"""Files as users would send them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


def export_pt2(module: nn.Module, example: tuple[Tensor, ...], path: Path) -> Path:
    """Export `module` to `path`, in the mode it is in; the first dimension of inputs is dynamic."""
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        module, example, dynamic_shapes=tuple({0: batch} for _ in example)
    )
    torch.export.save(program, path)
    return path


def save_state_dict(module: nn.Module, path: Path) -> Path:
    """Save the weights as a torch zip checkpoint."""
    torch.save(module.state_dict(), path)
    return path
