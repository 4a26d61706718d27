"""Numbers that are none have no place in training data."""

from __future__ import annotations

import numpy as np

from planish.contract.errors import NonFiniteData
from worker.engine.load.arrays import Array, pieces


def check_finite(values: Array, name: str, part: str) -> None:
    """Refuse NaN, infinity, and doubles that are too large for single precision.

    Args:
        values: an array of a data file, scanned piece by piece.
        name: of the array, for the error.
        part: ``data`` or ``test_data``, for the error.

    Raises:
        NonFiniteData: names the first such value and its place.
    """
    if values.dtype.kind != "f":
        return
    for start, piece in pieces(values):
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.asarray(piece, np.float32))
        if not finite.all():
            place = tuple(int(axis[0]) for axis in np.nonzero(~finite))
            index = (start + place[0], *place[1:])
            raise NonFiniteData(
                f"{part}: {name!r} holds {values[index]} at {list(index)}; "
                "only finite numbers are taken"
            )
