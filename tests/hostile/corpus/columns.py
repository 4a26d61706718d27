"""Parquet files: footers and pages that lie, flood, point elsewhere or carry pickles."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.canary import Canary
from tests.hostile.corpus.case import Upload, data, hostile
from tests.hostile.fuzz.wire import read_struct, varint, write_value

Fields = dict[int, Any]


def written(table: pa.Table, **options: object) -> bytes:
    """Return a table as a file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


@cache
def honest() -> bytes:
    """Return a file that the gate takes."""
    rows = pa.array(np.zeros((64, 4), np.float32).tolist(), pa.list_(pa.float32()))
    return written(
        pa.table({"inputs": rows, "label": pa.array(np.arange(64) % 3)}),
        compression="none",
        store_schema=False,
    )


def sealed(body: bytes, footer: bytes) -> Upload:
    """Return a file of any footer."""
    return data(body + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def footer(change: Callable[[Fields], object]) -> Upload:
    """Return an honest file with its footer changed: a tree of (type, value) by field number."""
    raw = honest()
    end = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    (_, fields), _ = read_struct(raw[end:-8])
    tree = dict(fields)  # type: ignore[call-overload]
    change(tree)
    return sealed(raw[:end], write_value((12, sorted(tree.items()))))


def _inside(fields: Fields, number: int, change: Callable[[Fields], object]) -> None:
    """Change a struct within a struct."""
    kind, content = fields[number]
    inner = dict(content)
    change(inner)
    fields[number] = (kind, sorted(inner.items()))


def _first(fields: Fields, number: int, change: Callable[[Fields], object], at: int = 0) -> None:
    """Change one struct of a list."""
    kind, (inner_kind, items) = fields[number]
    inner = dict(items[at][1])
    change(inner)
    items = [*items[:at], (12, sorted(inner.items())), *items[at + 1 :]]
    fields[number] = (kind, (inner_kind, items))


def group(change: Callable[[Fields], object]) -> Upload:
    """Change the only row group."""
    return footer(lambda fields: _first(fields, 4, change))


def chunk(change: Callable[[Fields], object], at: int = 0) -> Upload:
    """Change a column of the row group."""
    return group(lambda fields: _first(fields, 1, change, at))


def meta(at: int = 0, **numbers: int) -> Upload:
    """Change numbers of a column's description: ``f7=…`` is field 7."""
    values = {
        int(name[1:]): (6 if name[1:] not in ("1", "4") else 5, 2 * n)
        for name, n in numbers.items()
    }

    def change(fields: Fields) -> None:
        fields.update({k: (kind, v % (1 << 64)) for k, (kind, v) in values.items()})

    return chunk(lambda fields: _inside(fields, 3, change), at)


@hostile("invalid_data")
def footer_of_gigabytes(canary: Canary) -> Upload:
    """A length beyond the file."""
    return data(honest()[:-8] + b"\xff\xff\xff\x7fPAR1")


@hostile("invalid_data")
def footer_that_is_cut(canary: Canary) -> Upload:
    """A length that is too short."""
    return data(honest()[:-8] + b"\x10\x00\x00\x00PAR1")


@hostile("invalid_data")
def footer_of_nothing(canary: Canary) -> Upload:
    """No footer at all."""
    return sealed(b"PAR1", b"")


@hostile("invalid_data")
def footer_nested_too_deep(canary: Canary) -> Upload:
    """Structs in structs, a hundred thousand deep."""
    return sealed(b"PAR1", b"\x1c" * 100_000 + b"\x00" * 100_001)


@hostile("invalid_data")
def footer_of_lists_in_lists(canary: Canary) -> Upload:
    """Lists in lists, a hundred thousand deep."""
    return sealed(b"PAR1", b"\x19" + b"\x19" * 100_000 + b"\x00")


@hostile("invalid_data")
def list_of_two_billion(canary: Canary) -> Upload:
    """A list that claims 2^31 values in five bytes."""
    return sealed(b"PAR1", b"\x19\xfc" + varint(1 << 31) + b"\x00")


@hostile("invalid_data")
def footer_of_truths(canary: Canary) -> Upload:
    """Millions of booleans, which have no bytes of their own."""
    return sealed(
        b"PAR1", b"\x19\xfc" + varint(90_000) + (b"\x11" * 14 + b"\x00") * 90_000 + b"\x00"
    )


@hostile("invalid_data")
def text_of_exabytes(canary: Canary) -> Upload:
    """A text of 2^63 bytes."""
    return sealed(b"PAR1", b"\x68" + varint(1 << 63) + b"x\x00")


@hostile("invalid_data")
def field_comes_twice(canary: Canary) -> Upload:
    """Readers take the first or the last."""
    return sealed(b"PAR1", b"\x15\x02\x05\x02\x04\x00")


@hostile("invalid_data")
def bytes_behind_the_footer(canary: Canary) -> Upload:
    """The struct ends before the footer does."""
    raw = honest()
    end = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    return sealed(raw[:end], raw[end:-8] + b"extra")


@hostile("invalid_data")
def encrypted_footer(canary: Canary) -> Upload:
    """Nothing can be checked."""
    return data(honest()[:-4] + b"PARE")


@hostile("invalid_data")
def encrypted_columns(canary: Canary) -> Upload:
    """A plain footer that says the columns are encrypted."""
    return footer(lambda fields: fields.update({8: (12, [(1, (12, []))])}))


@hostile("invalid_data")
def column_in_another_file(canary: Canary) -> Upload:
    """Parquet may point to any path."""
    return chunk(lambda fields: fields.update({1: (8, b"/etc/passwd")}))


@hostile("invalid_data")
def column_outside_the_file(canary: Canary) -> Upload:
    """An offset beyond the end."""
    return meta(f9=1 << 40)


@hostile("invalid_data")
def column_before_the_file(canary: Canary) -> Upload:
    """A negative offset."""
    return meta(f9=-8)


@hostile("invalid_data")
def column_over_the_footer(canary: Canary) -> Upload:
    """The column ends within the footer."""
    return meta(1, f7=1 << 12, f6=1 << 12)


@hostile("invalid_data")
def columns_that_overlap(canary: Canary) -> Upload:
    """Two columns of the same bytes."""
    return meta(1, f9=4, f11=4)


@hostile("invalid_data")
def column_of_exabytes(canary: Canary) -> Upload:
    """What a column becomes: 2^60 bytes."""
    return meta(f6=1 << 60, f4=6)


@hostile("invalid_data")
def column_of_other_values(canary: Canary) -> Upload:
    """More labels than rows."""
    return meta(1, f5=1_000_000)


@hostile("invalid_data")
def column_of_another_codec(canary: Canary) -> Upload:
    """LZO, which nobody maintains."""
    return meta(f4=3)


@hostile("invalid_data")
def column_of_another_type(canary: Canary) -> Upload:
    """The row group says another type than the schema."""
    return meta(1, f1=6)


@hostile("invalid_data")
def rows_below_zero(canary: Canary) -> Upload:
    """Minus one row."""
    return group(lambda fields: fields.update({3: (6, 1)}))


@hostile("invalid_data")
def rows_of_exabytes(canary: Canary) -> Upload:
    """2^60 rows in a kilobyte."""
    return group(lambda fields: fields.update({3: (6, 1 << 61)}))


@hostile("invalid_data")
def rows_that_do_not_add_up(canary: Canary) -> Upload:
    """The file says another number than its row groups."""
    return footer(lambda fields: fields.update({3: (6, 2 * 65)}))


@hostile("invalid_data")
def schema_of_two_billion_children(canary: Canary) -> Upload:
    """A root that claims 2^31 - 1 columns."""
    return footer(
        lambda fields: _first(fields, 2, lambda f: f.update({5: (5, 2 * ((1 << 31) - 1))}))
    )


@hostile("invalid_data")
def schema_without_columns(canary: Canary) -> Upload:
    """A root alone."""
    return footer(lambda fields: fields.update({2: (9, (12, [(12, [(4, (8, b"schema"))])]))}))


@hostile("invalid_data")
def page_of_gigabytes(canary: Canary) -> Upload:
    """A page's own header claims that it becomes 2 GiB: the reader would allocate them."""
    raw = honest()
    at = 4
    (_, fields), used = read_struct(raw[at:])
    big = dict(fields) | {2: (5, 2 * ((1 << 31) - 1))}  # type: ignore[call-overload]
    page = write_value((12, sorted(big.items())))
    return data(raw[:at] + page + raw[at + used :])


@hostile("invalid_data")
def page_cut_by_zeros(canary: Canary) -> Upload:
    """The first page's header is gone."""
    raw = honest()
    return data(raw[:4] + bytes(64) + raw[68:])


@hostile("invalid_data")
def column_of_maps(canary: Canary) -> Upload:
    """A shape that no model takes."""
    pairs = pa.array([[("a", 1)]] * 64, pa.map_(pa.string(), pa.int32()))
    return data(written(pa.table({"inputs": pairs})))


@hostile("invalid_data")
def columns_of_one_name(canary: Canary) -> Upload:
    """Which of them is the input?"""
    one = pa.array([1.0] * 4)
    return data(written(pa.Table.from_arrays([one, one], ["inputs", "inputs"])))


@hostile("invalid_data")
def column_restored_by_a_pickle(canary: Canary) -> Upload:
    """CVE-2023-47248: an extension type that unpickles itself."""
    extension = {"ARROW:extension:name": "arrow.py_extension_type"}
    kind = pa.field("inputs", pa.int64(), metadata=extension)
    return data(written(pa.table([pa.array([1] * 8)], pa.schema([kind]))))


@hostile("invalid_data")
def metadata_nested_too_deep(canary: Canary) -> Upload:
    """A hundred thousand brackets in Hugging Face's note."""
    table = pa.table({"inputs": [1.0], "label": [0]})
    return data(written(table.replace_schema_metadata({"huggingface": "[" * 100_000})))


@hostile("invalid_data")
def column_name_that_turns_around(canary: Canary) -> Upload:
    """A column's name with a right-to-left override."""
    return data(written(pa.table({"in\u202eputs": [1.0] * 4})))


@hostile("invalid_data")
def file_without_rows(canary: Canary) -> Upload:
    """A table of nothing."""
    return data(written(pa.table({"inputs": pa.array([], pa.float32())})))


@hostile("invalid_data")
def file_that_is_cut(canary: Canary) -> Upload:
    """The last hundred bytes are missing."""
    return data(honest()[:-100])
