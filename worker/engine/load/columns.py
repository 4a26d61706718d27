"""Which arrays a parquet file becomes, told from its first rows and the lengths of its lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from planish.contract.errors import InvalidData
from planish.contract.spec import Spec
from planish.gate.columns import ColumnFeed, ColumnMatch, is_integer
from planish.gate.match import MASK, TARGETS
from planish.gate.parquet.schema import Column
from planish.gate.signature import Signature
from planish.gate.windows import USUAL_WINDOW, window_length
from worker.engine.load.deferred import IGNORED
from worker.engine.load.images import ImageForm, decode
from worker.engine.load.makers import Images, Maker, Tensors, Tokens, image_bytes
from worker.engine.load.nested import Lengths, shape_of, unnest
from worker.engine.load.padded import Cut, check_lengths
from worker.engine.load.writer import Shape

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

_PIECE = 16 << 20
_MAX_ROWS = 1 << 16


def rows_at_once(size: int, rows: int) -> int:
    """Return how many of all rows, which become `size` bytes, are some 16 MiB."""
    return min(max(1, _PIECE * rows // max(1, size)), _MAX_ROWS)


class Plan:
    """The makers of all arrays that a job needs.

    Args:
        file: the parquet file.
        match: which of its columns is what.
        inputs: what the model takes.
        spec: says task, window and how images are resized.
        part: ``data`` or ``test_data``, for errors.
    """

    def __init__(
        self,
        file: ParquetFile,
        match: ColumnMatch,
        inputs: Sequence[Signature],
        spec: Spec,
        part: str,
    ) -> None:
        self._file, self._match, self._inputs, self._spec = file, match, inputs, spec
        self._part = part

    def makers(self) -> dict[str, Maker]:
        """Return what makes each array, by its name."""
        match, made = self._match, {}
        tokens = match.tokens
        sequences = self._sequences(tokens) if tokens is not None else {}
        for feed in match.feeds:
            if feed.column is not None and feed.column.name not in sequences:
                made[feed.column.name] = self._plain(feed.column, feed)
        if match.targets is not None and match.targets.name not in sequences:
            made[match.targets.name] = self._plain(match.targets, None)
        if tokens is not None:
            made |= self._cut(tokens, sequences)
        return made

    def _sequences(self, tokens: Column) -> dict[str, Column]:
        """Return the columns that hold one integer for each token."""
        long = next(f.input.shape[1] for f in self._match.feeds if f.column is tokens)
        feeds = [
            feed.column for feed in self._match.feeds
            if feed.column is not None and feed.column.lists == 1 and is_integer(feed.column)
            and len(feed.input.shape) == 2 and feed.input.shape[1] == long
        ]  # fmt: skip
        targets = self._match.targets
        if self._spec.data.task == "language_modeling" and targets is not None and targets.lists:
            feeds.append(targets)
        return {column.name: column for column in feeds}

    def _cut(self, tokens: Column, sequences: Mapping[str, Column]) -> dict[str, Maker]:
        """Return the makers of all that has one value for each token."""
        modeling = self._spec.data.task == "language_modeling"
        lengths = self._lengths(tokens)
        longest = int(lengths.max())
        length = window_length(self._inputs, self._spec) if modeling else self._fixed()
        length = length or (min(longest, USUAL_WINDOW) if modeling else longest)
        if not modeling:
            check_lengths(lengths, length, self._where(tokens))
        cut = Cut(length, windows=modeling)
        count = cut.count(lengths)
        if not count:
            raise InvalidData(f"{self._where(tokens)} has no row of two tokens or more")
        base = Tokens(
            tokens.name, Shape("uint8", (count, length)), self._where(tokens), cut, lengths
        )
        made: dict[str, Maker] = {
            name: self._tokens(base, column) for name, column in sequences.items()
        }
        return made | self._extra(base, tokens, modeling=modeling)

    def _tokens(self, base: Tokens, column: Column) -> Tokens:
        is_target = column is self._match.targets
        kept = not is_target or (column.dtype or "").startswith("int")
        return replace(
            base,
            column=column.name,
            where=self._where(column),
            shape=Shape(column.dtype or "int64" if kept else "int64", base.shape.sizes),
            filler=IGNORED if is_target else 0,
        )

    def _extra(self, base: Tokens, tokens: Column, *, modeling: bool) -> dict[str, Maker]:
        """Return what the file lacks: a mask that the model takes, targets without the padding."""
        made: dict[str, Maker] = {}
        masked = any(feed.input.name == MASK for feed in self._match.feeds)
        if any(feed.column is None for feed in self._match.feeds):
            made[MASK] = replace(base, is_mask=True)
        if masked or not base.cut.padded(base.lengths):
            return made
        if not modeling:
            raise InvalidData(
                f"{self._where(tokens)} has rows of {base.lengths.min()} to {base.lengths.max()} "
                f"tokens, {base.cut.length} are taken, and the model has no input {MASK!r} that "
                "would hide padding; pad the rows as the model was trained"
            )
        if self._match.targets is None:
            kept = tokens.dtype in ("int32", "int64")
            dtype = tokens.dtype or "int64" if kept else "int64"
            made[TARGETS] = replace(base, shape=Shape(dtype, base.shape.sizes), filler=IGNORED)
        return made

    def _fixed(self) -> int | None:
        length = next(f.input.shape[1] for f in self._match.feeds if f.column is self._match.tokens)
        return length if isinstance(length, int) else None

    def _lengths(self, tokens: Column) -> Lengths:
        """Return how many tokens each row has: all that is read of the whole column."""
        found, at = [], 0
        metadata = self._file.metadata
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        chunks = [group.column(i) for group in groups for i in range(metadata.num_columns)]
        own = [c.num_values for c in chunks if c.path_in_schema.partition(".")[0] == tokens.name]
        rows = rows_at_once(8 * sum(own), self._match.rows)
        for batch in self._file.iter_batches(rows, columns=[tokens.name], use_threads=False):
            found.append(unnest(batch.column(0), self._where(tokens), at).lengths[0])
            at += len(batch)
        return np.concatenate(found)

    def _plain(self, column: Column, feed: ColumnFeed | None) -> Maker:
        """Return the maker of an array with a sample for each row."""
        where, rows = self._where(column), self._match.rows
        if column.kind == "image" and feed is not None:
            form = self._form(feed.input)
            first = decode(image_bytes(self._first(column), where, 0)[0], form, f"{where} row 0")
            form = replace(form, height=first.shape[0], width=first.shape[1])
            return Images(column.name, Shape("uint8", (rows, *first.shape)), form, where)
        shape = shape_of(unnest(self._first(column), where, 0))
        return Tensors(column.name, Shape(column.dtype or "float32", (rows, *shape)), where)

    def _form(self, item: Signature) -> ImageForm:
        channels, height, width = (s if isinstance(s, int) else None for s in item.shape[1:])
        resize = self._spec.data.preprocess.resize
        return ImageForm(height or resize, width or resize, channels or 3, resize)

    def _first(self, column: Column) -> pa.Array:
        rows = self._file.iter_batches(1, columns=[column.name], use_threads=False)
        return next(iter(rows)).column(0)

    def _where(self, column: Column) -> str:
        return f"{self._part}: column {column.name!r}"
