"""What a model file answers, for tests of whatever wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.measure.opened import Settings, open_model


def answers(
    path: Path, inputs: Sequence[Tensor], runtime: str = "onnxruntime"
) -> list[NDArray[np.generic]]:
    """Return all outputs of one call, with one thread."""
    return open_model(path, Settings(runtime)).run([value.numpy() for value in inputs])
