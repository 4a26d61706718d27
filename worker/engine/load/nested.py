"""Columns of lists as arrays: numbers, and how long each list is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planish.contract.errors import InvalidData

if TYPE_CHECKING:
    import pyarrow as pa

Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Nested:
    """Some rows of a column.

    Attributes:
        numbers: all values, one after the other.
        lengths: of the lists of each level, the outermost first; empty for scalars.
    """

    numbers: NDArray[np.generic]
    lengths: tuple[Lengths, ...]


def unnest(column: pa.Array, where: str, first: int) -> Nested:
    """Return the values and lengths of a column of numbers.

    Args:
        column: numbers, or lists of lists … of numbers.
        where: names the column for errors.
        first: row of the file that it begins with.

    Raises:
        InvalidData: a null, at any level.
    """
    import pyarrow as pa

    lengths: list[Lengths] = []
    while True:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        _check_nulls(column, lengths, where, first)
        kind = column.type
        if pa.types.is_fixed_size_list(kind):
            lengths.append(np.full(len(column), kind.list_size, np.int64))
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths.append(np.diff(column.offsets.to_numpy()).astype(np.int64))
        else:
            break
        column = column.flatten()
    return Nested(column.to_numpy(zero_copy_only=False), tuple(lengths))


def tensor(nested: Nested, shape: tuple[int, ...], where: str, first: int) -> NDArray[np.generic]:
    """Return rows of one shape as an array.

    Args:
        nested: some rows.
        shape: of each.
        where: names the column for errors.
        first: row of the file that they begin with.

    Raises:
        InvalidData: a row of another shape.
    """
    for level, (lengths, size) in enumerate(zip(nested.lengths, shape, strict=True)):
        other = lengths != size
        if other.any():
            at = int(other.argmax())
            row = first + _row_of(at, nested.lengths[:level])
            raise InvalidData(
                f"{where} has {lengths[at]} values in a list of row {row} where {size} are taken; "
                "all rows must have one shape"
            )
    return nested.numbers.reshape(-1, *shape)


def shape_of(nested: Nested) -> tuple[int, ...]:
    """Return the shape of the first row."""
    return tuple(int(lengths[0]) if len(lengths) else 0 for lengths in nested.lengths)


def _check_nulls(column: pa.Array, lengths: list[Lengths], where: str, first: int) -> None:
    if column.null_count:
        at = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        row = first + _row_of(at, tuple(lengths))
        raise InvalidData(
            f"{where} is null in row {row}; every row needs a value: "
            "ds.filter(lambda row: row[name] is not None)"
        )


def _row_of(at: int, lengths: tuple[Lengths, ...]) -> int:
    """Return the row of a value, from its index among all values of its level."""
    for level in reversed(lengths):
        at = int(np.searchsorted(np.cumsum(level), at, "right"))
    return at
