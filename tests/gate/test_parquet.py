"""Parquet files by their footers and pages: what is taken, and what each refusal says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from planish.contract.errors import InvalidData
from planish.gate.parquet import read_parquet
from planish.gate.parquet.features import Feature

ROWS = 300


def images() -> pa.Table:
    """Images and labels as Hugging Face's datasets writes them."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = pa.array([{"bytes": b"\x89PNG%d" % i, "path": None} for i in range(ROWS)], kind)
    labels = pa.array([i % 3 for i in range(ROWS)], pa.int64())
    label = {"names": ["a", "b", "c"], "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": label}
    note = {"info": {"features": features}}
    table = pa.table({"image": pictures, "label": labels})
    return table.replace_schema_metadata({"huggingface": json.dumps(note)})


def tokens() -> pa.Table:
    """Token ids, arrays of two dimensions, and columns that no model takes."""
    return pa.table(
        {
            "input_ids": pa.array([[1, 2, 3]] * ROWS, pa.list_(pa.int32())),
            "pixels": pa.array([[[0.5] * 4] * 2] * ROWS, pa.list_(pa.list_(pa.float32()))),
            "score": pa.array([0.5] * ROWS, pa.float64()),
            "text": pa.array(["a"] * ROWS),
            "half": pa.array([1.0] * ROWS, pa.float16()),
            "small": pa.array([1] * ROWS, pa.uint8()),
            "when": pa.array([0] * ROWS, pa.timestamp("us")),
        }
    )


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_images_and_labels_of_any_codec_are_taken(codec: str, version: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(images(), path, compression=codec, data_page_version=version, row_group_size=100)
    header = read_parquet(path)
    assert (header.rows, header.group_rows) == (ROWS, (100, 100, 100))
    assert [(c.name, c.kind, c.dtype) for c in header.columns] == [
        ("image", "image", None),
        ("label", "number", "int64"),
    ]
    assert header.features["label"] == Feature("ClassLabel", 3, ())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"data_page_size": 100},
        {"write_page_index": True},
        {"store_schema": False},
        {"use_compliant_nested_type": False},
        {"version": "1.0"},
    ],
)
def test_lists_and_scalars_say_their_types(options: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(tokens(), path, **options)
    found = {c.name: (c.kind, c.dtype, c.lists) for c in read_parquet(path).columns}
    assert found == {
        "input_ids": ("number", "int32", 1),
        "pixels": ("number", "float32", 2),
        "score": ("number", "float64", 0),
        "text": ("text", None, 0),
        "half": ("number", "float16", 0),
        "small": ("number", "uint8", 0),
        "when": ("other", None, 0),
    }


def test_maps_and_structs_are_refused_by_name(tmp_path: Path) -> None:
    pairs = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32()))
    pq.write_table(pa.table({"extra": pairs}), tmp_path / "a.parquet")
    with pytest.raises(InvalidData, match="'extra' is a struct, map"):
        read_parquet(tmp_path / "a.parquet")


def test_a_type_that_is_restored_by_a_pickle_is_refused(tmp_path: Path) -> None:
    kind = pa.field("x", pa.int64(), metadata={"ARROW:extension:name": "arrow.py_extension_type"})
    table = pa.table([pa.array([1])], pa.schema([kind]))
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InvalidData, match="running a pickle"):
        read_parquet(tmp_path / "a.parquet")


def _swap(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: raw.replace(old, new)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda raw: raw[:-1], "cut short"),
        (lambda raw: raw + b"x", "cut short"),
        (lambda raw: raw[:-4] + b"PARE", "encrypted"),
        (lambda raw: raw[:-8] + (1 << 31).to_bytes(4, "little") + b"PAR1", "cut short"),
        (lambda raw: raw[:-8] + (8).to_bytes(4, "little") + b"PAR1", "belong to no field"),
        (_swap(b"ClassLabel", b'Class"abel'), "huggingface metadata"),
    ],
)
def test_damage_is_refused(change: Callable[[bytes], bytes], says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(images(), path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InvalidData, match=says):
        read_parquet(path)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    pq.write_table(images().slice(0, 0), tmp_path / "a.parquet")
    with pytest.raises(InvalidData, match="rows"):
        read_parquet(tmp_path / "a.parquet")
