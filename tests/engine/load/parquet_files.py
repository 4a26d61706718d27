"""Parquet files as Hugging Face's datasets writes them, with its notes about the columns."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Return an image file of uint8 pixels, (H, W) or (H, W, C)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def images(files: Sequence[bytes | None]) -> pa.Array:
    """Return an image column."""
    return pa.array([None if f is None else {"bytes": f, "path": None} for f in files], IMAGE)


def labels(names: int) -> dict[str, object]:
    """Return the feature of class labels."""
    return {"names": [str(i) for i in range(names)], "_type": "ClassLabel"}


def parquet(
    path: Path,
    columns: Mapping[str, object],
    features: Mapping[str, object] | None = None,
    **options: object,
) -> Path:
    """Write columns; `features` is what datasets would note about them."""
    table = pa.table(dict(columns))
    if features is not None:
        note = json.dumps({"info": {"features": dict(features)}})
        table = table.replace_schema_metadata({"huggingface": note})
    pq.write_table(table, path, **options)
    return path
