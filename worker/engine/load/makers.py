"""From rows of a parquet column to samples of an array: images, tensors, tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from planish.contract.errors import InvalidData
from worker.engine.load.deferred import IGNORED
from worker.engine.load.images import ImageForm, decode
from worker.engine.load.nested import Lengths, tensor, unnest
from worker.engine.load.padded import Cut
from worker.engine.load.writer import Shape

if TYPE_CHECKING:
    import pyarrow as pa


class Maker(Protocol):
    """Makes one array of one column, some rows at a time."""

    @property
    def column(self) -> str:
        """The column that is read."""

    @property
    def shape(self) -> Shape:
        """What the whole array is."""

    def make(self, rows: pa.Array, first: int) -> NDArray[np.generic]:
        """Return the samples of some rows, the first of which is row `first` of the file."""


@dataclass(frozen=True)
class Images:
    """PNG and JPEG files become uint8 (N, height, width, channels)."""

    column: str
    shape: Shape
    form: ImageForm
    where: str

    def make(self, rows: pa.Array, first: int) -> NDArray[np.generic]:
        """Decode each image; raises `InvalidData` where one is null or damaged."""
        pixels = np.empty((len(rows), *self.shape.sizes[1:]), np.uint8)
        for index, raw in enumerate(image_bytes(rows, self.where, first)):
            pixels[index] = decode(raw, self.form, f"{self.where} row {first + index}")
        return pixels


@dataclass(frozen=True)
class Tensors:
    """Numbers and lists of one shape are handed on as they are."""

    column: str
    shape: Shape
    where: str

    def make(self, rows: pa.Array, first: int) -> NDArray[np.generic]:
        """Return the rows; raises `InvalidData` for nulls and other shapes."""
        return tensor(unnest(rows, self.where, first), self.shape.sizes[1:], self.where, first)


@dataclass(frozen=True)
class Tokens:
    """Lists of integers become samples of one length.

    Attributes:
        lengths: of the token ids of all rows, which these lists must share.
        filler: stands where a row has ended.
        is_mask: hand on 1 where there is a token, in place of the tokens.
    """

    column: str
    shape: Shape
    where: str
    cut: Cut
    lengths: Lengths = field(repr=False)
    filler: int = 0
    is_mask: bool = False

    def make(self, rows: pa.Array, first: int) -> NDArray[np.generic]:
        """Return the samples; raises `InvalidData` for nulls and lists of other lengths."""
        nested = unnest(rows, self.where, first)
        (found,), wanted = nested.lengths, self.lengths[first : first + len(rows)]
        if (found != wanted).any():
            at = int((found != wanted).argmax())
            raise InvalidData(
                f"{self.where} has {found[at]} values in row {first + at}, the token ids "
                f"{wanted[at]}; both need one value for each token"
            )
        numbers = np.ones(nested.numbers.shape, np.uint8) if self.is_mask else nested.numbers
        if self.filler == IGNORED:
            numbers = numbers.astype(self.shape.dtype)
        return self.cut.samples(numbers, found, self.filler)


def image_bytes(rows: pa.Array, where: str, first: int) -> list[bytes]:
    """Return the files of an image column ``{bytes, path}``; raises `InvalidData` without bytes."""
    files = rows.field("bytes") if not rows.null_count else rows
    if files.null_count:
        row = first + int(np.argmax(files.is_null().to_numpy(zero_copy_only=False)))
        raise InvalidData(
            f"{where} has no bytes in row {row}; every row needs an image, and the file must hold "
            "the images themselves, not their paths: ds = ds.map(embed_table_storage, batched=True)"
        )
    found: list[bytes] = files.to_pylist()
    return found
