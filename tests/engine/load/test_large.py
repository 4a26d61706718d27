"""Files larger than the memory that a process may take are trained and judged on all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import ROOT
from tests.engine.load.large import ALLOWED, SIDE, TOKENS
from tests.engine.load.parquet_files import encoded, images
from tests.gate.files import safetensors

LARGE = 1 << 30
LARGER = ALLOWED + ALLOWED // 4


def sparse(path: Path, size: int, dtype: str, shape: tuple[int, ...]) -> None:
    """Write a .safetensors file of zeros, which take no room on the disk."""
    width = int(np.prod(shape)) * {"F32": 4, "I64": 8}[dtype]
    count = size // width // 8 * 8
    name = "targets" if dtype == "F32" else "unused"
    header = {
        name: {"dtype": "I8", "shape": [count], "data_offsets": [0, count]},
        "inputs": {
            "dtype": dtype,
            "shape": [count, *shape],
            "data_offsets": [count, count + count * width],
        },
    }
    labels = (np.arange(count) % 4).astype(np.int8).tobytes()
    safetensors(path, json.dumps(header).encode().ljust(256), labels)
    os.truncate(path, path.stat().st_size + count * width)


def arrays(path: Path, save) -> None:
    """Write an .npz file of uint8 images."""
    count = LARGER // (3 * SIDE * SIDE)
    values = np.zeros((count, 3, SIDE, SIDE), np.uint8)
    values[..., ::64] = np.random.default_rng(0).integers(0, 256, (count, 3, SIDE, 2))
    with path.open("wb") as file:
        save(file, inputs=values, targets=np.arange(count) % 4)


def image_rows(path: Path) -> None:
    """Write a parquet file of images that are small only as long as they are packed."""
    count = LARGER // (3 * SIDE * SIDE)
    files = [encoded(np.full((SIDE, SIDE, 3), i, np.uint8)) for i in range(4)]
    column = images([files[i % 4] for i in range(count)])
    pq.write_table(pa.table({"image": column, "label": np.arange(count) % 4}), path)


def token_rows(path: Path) -> None:
    """Write a parquet file of token ids in several row groups."""
    lists = pa.list_(pa.int64())
    rows = np.random.default_rng(0).integers(0, 4, (400, TOKENS))
    table = pa.table({"input_ids": pa.array(list(rows), lists)})
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(LARGER // rows.nbytes):
            writer.write_table(table)


def test_training_and_answers_never_hold_the_data_in_memory(tmp_path: Path) -> None:
    sparse(tmp_path / "pictures trained on.data", LARGE, "F32", (3, SIDE, SIDE))
    sparse(tmp_path / "words trained on.data", LARGER, "I64", (TOKENS,))
    arrays(tmp_path / "pictures.npz.data", np.savez)
    arrays(tmp_path / "pictures packed.npz.data", np.savez_compressed)
    image_rows(tmp_path / "pictures.parquet.data")
    token_rows(tmp_path / "words.parquet.data")
    run = subprocess.run(
        [sys.executable, "-m", "tests.engine.load.large", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    rises = json.loads(run.stdout.splitlines()[-1])
    assert len(rises) == 6
    assert max(rises.values()) < 300 << 20, rises
