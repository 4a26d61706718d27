"""How near the optimized model's outputs are to the original's, labels or not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from planish.contract.report import Fidelity


def fidelity(original: NDArray[np.floating], optimized: NDArray[np.floating]) -> Fidelity:
    """Compare the outputs for the same samples.

    Args:
        original: outputs of the original, (samples, …, classes).
        optimized: outputs of the optimized model, the same shape.

    Returns:
        Share of equal argmax, cosine of the flattened outputs, signal-to-noise ratio in dB and the
        largest difference. A figure that is not defined (no noise, no signal) is None.
    """
    before, after = original.astype(np.float64), optimized.astype(np.float64)
    noise = float(np.square(before - after).sum())
    signal = float(np.square(before).sum())
    norms = math.sqrt(signal) * float(np.linalg.norm(after))
    return Fidelity(
        agreement=float((before.argmax(-1) == after.argmax(-1)).mean())
        if before.ndim > 1
        else None,
        cosine=min(float((before * after).sum()) / norms, 1.0) if norms else None,
        sqnr_db=10 * math.log10(signal / noise) if noise and signal else None,
        max_abs=float(np.abs(before - after).max()) if before.size else None,
    )
