"""Which column of a parquet file feeds which input, told from the file's header.

Names are those of Hugging Face's datasets: an `image` feeds the model's images whatever the input
is called, and the answers are `targets`, `labels`, `label` or the only class label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from planish.contract.errors import InputNotFound, InvalidData
from planish.contract.spec import Spec, Task
from planish.gate.match import INPUTS, MASK, TARGETS, TOKENS, check_preprocess
from planish.gate.parquet import ParquetHeader
from planish.gate.parquet.schema import Column
from planish.gate.signature import Signature

ANSWERS = (TARGETS, "labels", "label")
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ColumnFeed:
    """One model input with its column; without one it is the mask of rows that get padded."""

    input: Signature
    column: Column | None


@dataclass(frozen=True)
class ColumnMatch:
    """Columns of one file by their use; `targets` is None where the file or the task has none."""

    feeds: tuple[ColumnFeed, ...]
    targets: Column | None
    rows: int

    @property
    def tokens(self) -> Column | None:
        """The column of token ids, one list for each row; None where the model takes none."""
        lists = [
            feed for feed in self.feeds
            if feed.column is not None and feed.column.lists == 1 and len(feed.input.shape) == 2
            and is_integer(feed.column)
        ]  # fmt: skip
        named = [feed for feed in lists if feed.input.name == TOKENS]
        whole = [feed for feed in lists if not _is_float(feed.input) and feed.input.name != MASK]
        chosen = named or whole
        return chosen[0].column if chosen else None


def match_columns(
    inputs: Sequence[Signature], header: ParquetHeader, spec: Spec, part: str
) -> ColumnMatch:
    """Find a column for each input and the targets.

    Args:
        inputs: what the model takes.
        header: what the file has.
        spec: says the task and the preprocessing.
        part: name of the file for error texts, ``data`` or ``test_data``.

    Raises:
        InputNotFound: an input has no column.
        InvalidData: a column of another kind than its input or the task takes; no rows.
    """
    check_preprocess(inputs, spec)
    if not header.rows:
        raise InvalidData(f"{part}: the parquet file has no rows")
    found = [(item, _column(item, inputs, header, part)) for item in inputs]
    for item, column in found:
        if column is not None:
            _check_feed(item, column, spec.data.task, part)
    targets = answers(header, spec.data.task, part)
    if targets is not None:
        _CHECKS[spec.data.task](targets, header, part)
    match = ColumnMatch(tuple(ColumnFeed(*pair) for pair in found), targets, header.rows)
    if any(feed.column is None for feed in match.feeds) and match.tokens is None:
        raise InputNotFound(f"{part} has no column {MASK!r}, and no lists of token ids to make it")
    if spec.data.preprocess.resize is not None and not any(
        feed.column is not None and feed.column.kind == "image" for feed in match.feeds
    ):
        raise InvalidData(f"{part} has no image column; leave data.preprocess.resize out")
    return match


def answers(header: ParquetHeader, task: Task, part: str) -> Column | None:
    """Return the column that holds what the model should answer; None where there is none.

    Raises:
        InvalidData: several class labels, none of them called `label`.
    """
    if task == "none":
        return None
    columns = {column.name: column for column in header.columns}
    for name in ANSWERS:
        column = columns.get(name)
        if column is not None and (task != "language_modeling" or column.lists or name == TARGETS):
            return column
    labels = [name for name, feature in header.features.items() if feature.kind == "ClassLabel"]
    labels = [name for name in labels if name in columns and columns[name].kind == "number"]
    if task != "classification" or not labels:
        return None
    if len(labels) > 1:
        raise InvalidData(
            f"{part} has the class labels {', '.join(map(repr, labels))}; rename the one that is "
            "meant: ds.rename_column(name, 'label')"
        )
    return columns[labels[0]]


def teaching(header: ParquetHeader, task: Task, part: str) -> bool:
    """Tell whether a file holds what the task trains on; scores of pairs do not teach."""
    targets = answers(header, task, part)
    if task == "language_modeling":
        return True
    return targets is not None and (task != "embedding" or targets.lists > 0)


def is_integer(column: Column) -> bool:
    """Tell whether a column holds integers or booleans."""
    return column.dtype is not None and not column.dtype.startswith("float")


def _column(
    item: Signature, inputs: Sequence[Signature], header: ParquetHeader, part: str
) -> Column | None:
    """Return the column of an input, None for a mask that the lengths of the rows make."""
    columns = {column.name: column for column in header.columns}
    single = len(inputs) == 1
    if item.name in columns:
        return columns[item.name]
    images = [column for column in header.columns if column.kind == "image"]
    if _is_image(item) and sum(map(_is_image, inputs)) == 1 and len(images) == 1:
        return images[0]
    if single and INPUTS in columns:
        return columns[INPUTS]
    if single and not _is_float(item) and len(item.shape) == 2 and TOKENS in columns:
        return columns[TOKENS]
    if item.name == MASK:
        return None
    raise _not_found(item, header, single=single, images=len(images), part=part)


def _not_found(
    item: Signature, header: ParquetHeader, *, single: bool, images: int, part: str
) -> InputNotFound:
    wanted = f"{item.name!r} or {INPUTS!r}" if single else repr(item.name)
    hint = ""
    if images > 1 and _is_image(item):
        hint = f"; several columns hold images, rename the one that is meant to {item.name!r}"
    elif not _is_float(item) and any(column.kind == "text" for column in header.columns):
        hint = f"; texts must be tokenized first: {_TOKENIZE}"
    names = ", ".join(sorted(column.name for column in header.columns))[:500]
    return InputNotFound(
        f"{part} has no column named {wanted} for the model's input {item}; it has: {names}{hint}"
    )


def _check_feed(item: Signature, column: Column, task: Task, part: str) -> None:
    where = f"{part}: column {column.name!r}"
    if column.kind == "image":
        if not _is_image(item) or item.shape[1] not in CHANNELS:
            raise InvalidData(
                f"{where} holds images; the model's input {item} takes none: images feed floats of "
                "shape (batch, 1, 3 or 4 channels, height, width)"
            )
        return
    if column.kind != "number":
        raise InvalidData(f"{where} holds {_WORDS[column.kind]}")
    if not _is_float(item) and not is_integer(column):
        raise InvalidData(
            f"{where} holds {column.dtype}; the model's input {item.name!r} takes {item.dtype}"
        )
    ranks = {len(item.shape) - 1}
    if len(item.shape) == 4 and item.shape[1] == 1:
        ranks.add(2)
    if task == "language_modeling" and len(item.shape) == 2:
        ranks.add(0)
    if column.lists not in ranks:
        raise InvalidData(
            f"{where} holds lists nested {column.lists} deep; the model's input {item} takes them "
            f"nested {max(ranks)} deep"
        )


def _check_classes(column: Column, header: ParquetHeader, part: str) -> None:
    where = f"{part}: column {column.name!r}"
    if column.kind == "text":
        raise InvalidData(
            f"{where} holds texts; class indices from 0 are taken: "
            f"ds.class_encode_column({column.name!r})"
        )
    if column.kind != "number" or not is_integer(column) or column.dtype == "bool" or column.lists:
        raise InvalidData(f"{where} holds {_held(column)}; one class index, an integer, is taken")


def _check_numbers(column: Column, header: ParquetHeader, part: str) -> None:
    if column.kind != "number" or column.dtype == "bool":
        raise InvalidData(
            f"{part}: column {column.name!r} holds {_held(column)}; regression takes numbers in "
            "the shape of the model's output"
        )


def _check_tokens(column: Column, header: ParquetHeader, part: str) -> None:
    if column.kind != "number" or not is_integer(column) or column.lists > 1:
        raise InvalidData(
            f"{part}: column {column.name!r} holds {_held(column)}; language_modeling takes lists "
            "of token ids as long as the row's, -100 where none is wanted; or none at all"
        )


def _check_embeddings(column: Column, header: ParquetHeader, part: str) -> None:
    where = f"{part}: column {column.name!r}"
    if column.kind != "number" or is_integer(column) or column.lists > 1:
        raise InvalidData(
            f"{where} holds {_held(column)}; embedding takes floats: a list for each row, or the "
            "score of the pair that the rows 2i and 2i + 1 are"
        )
    if not column.lists and header.rows % 2:
        raise InvalidData(
            f"{where} holds scores of pairs, the rows 2i and 2i + 1, but {header.rows} rows are "
            "an odd number"
        )


def _held(column: Column) -> str:
    what = column.dtype or {"image": "images", "text": "texts"}.get(column.kind, "bytes")
    return f"lists of {what}" if column.lists else what


def _is_float(item: Signature) -> bool:
    return item.dtype.startswith(("float", "bfloat"))


def _is_image(item: Signature) -> bool:
    return _is_float(item) and len(item.shape) == 4


_TOKENIZE = "ds.map(lambda row: tokenizer(row['text']))"
_WORDS = {
    "text": f"texts; send token ids in their place: {_TOKENIZE}",
    "bytes": "bytes; for images say so: ds.cast_column(name, datasets.Image())",
    "other": "values that are no plain numbers; numbers of 8 to 64 bits are taken",
}
_CHECKS: Mapping[Task, Callable[[Column, ParquetHeader, str], None]] = {
    "classification": _check_classes,
    "regression": _check_numbers,
    "language_modeling": _check_tokens,
    "embedding": _check_embeddings,
}
