"""How near the optimized model's outputs are to the original's, labels or not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from planish.contract.report import Fidelity

Floats = NDArray[np.floating]


class FidelityMeter:
    """Sums over batches, so that outputs of any size need never be held whole."""

    def __init__(self) -> None:
        self._signal = self._noise = self._other = self._product = self._largest = 0.0
        self._same = self._rows = 0

    def add(self, original: Floats, optimized: Floats) -> None:
        """Take the outputs of both sides for the same samples, (samples, …, classes)."""
        before, after = original.astype(np.float64), optimized.astype(np.float64)
        difference = before - after
        self._signal += float(np.square(before).sum())
        self._other += float(np.square(after).sum())
        self._noise += float(np.square(difference).sum())
        self._product += float((before * after).sum())
        self._largest = max(self._largest, float(np.abs(difference).max(initial=0.0)))
        if before.ndim > 1 and before.size:
            same = before.argmax(-1) == after.argmax(-1)
            self._same += int(same.sum())
            self._rows += same.size

    def result(self) -> Fidelity:
        """Return the figures of everything that was added.

        Share of equal argmax, cosine of the flattened outputs, signal-to-noise ratio in dB and the
        largest difference. A figure that is not defined (no noise, no signal) is None.
        """
        norms = math.sqrt(self._signal * self._other)
        return Fidelity(
            agreement=self._same / self._rows if self._rows else None,
            cosine=min(self._product / norms, 1.0) if norms else None,
            sqnr_db=10 * math.log10(self._signal / self._noise)
            if self._noise and self._signal
            else None,
            max_abs=self._largest,
        )


def fidelity(original: Floats, optimized: Floats) -> Fidelity:
    """Compare the outputs for the same samples, (samples, …, classes)."""
    meter = FidelityMeter()
    meter.add(original, optimized)
    return meter.result()
