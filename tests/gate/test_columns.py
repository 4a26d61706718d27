"""What a parquet file's header is refused for at submit, and what it is taken for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from planish.contract.errors import InputNotFound, InvalidData, InvalidRecipe
from planish.contract.recipe import Quantize, Retrain
from planish.contract.spec import DataSpec, Preprocess, Spec
from planish.gate.check import check_upload
from planish.gate.columns import match_columns
from planish.gate.parquet import read_parquet
from planish.gate.signature import Signature
from tests.engine.load.parquet_files import images, labels, parquet
from tests.gate.files import npz

FILES = images([b"any bytes: no image is opened here"] * 10)
CLASSES = np.arange(10) % 4
NOTES = {"photo": {"_type": "Image"}, "kind": labels(4)}
IDS = Signature("input_ids", ("batch", 6), "int64")
MASK = Signature("attention_mask", ("batch", 6), "int64")
TRAINING = Spec(recipe=(Retrain(), Quantize()))


def test_images_and_labels_are_found_whatever_they_are_called(pt2: Path, tmp_path: Path) -> None:
    data = parquet(tmp_path / "a.parquet", {"photo": FILES, "kind": CLASSES}, NOTES)
    assert check_upload(TRAINING, {"model": pt2, "data": data, "test_data": data}).has_targets


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        ({"photo": FILES, "label": ["a"] * 10}, InvalidData, "class_encode_column"),
        ({"photo": FILES, "second": FILES}, InputNotFound, "several columns hold images"),
        ({"text": ["a"] * 10}, InputNotFound, "it has: text"),
        ({"inputs": ["a"] * 10}, InvalidData, "holds texts"),
        ({"inputs": [[0.5] * 64] * 10}, InvalidData, "nested 1 deep"),
    ],
)
def test_columns_that_feed_nothing_are_refused_at_submit(
    columns: dict[str, object], error: type[Exception], words: str, pt2: Path, tmp_path: Path
) -> None:
    data = parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(error, match=words):
        check_upload(Spec(recipe=(Quantize(),)), {"model": pt2, "data": data})


def test_test_data_needs_the_labels_that_data_has(pt2: Path, tmp_path: Path) -> None:
    data = parquet(tmp_path / "a.parquet", {"photo": FILES, "label": CLASSES})
    sealed = parquet(tmp_path / "b.parquet", {"photo": FILES})
    with pytest.raises(InvalidData, match="test_data has no column named 'targets' or 'labels'"):
        check_upload(TRAINING, {"model": pt2, "data": data, "test_data": sealed})
    with pytest.raises(InvalidRecipe, match="needs labels"):
        check_upload(TRAINING, {"model": pt2, "data": sealed})


def test_fields_that_mean_nothing_for_the_data_are_refused(pt2: Path, tmp_path: Path) -> None:
    arrays = npz(tmp_path / "a.npz", inputs=np.zeros((10, 1, 8, 8)), targets=CLASSES)
    numbers = pa.array(np.zeros((10, 8, 8)).tolist())
    columns = parquet(tmp_path / "a.parquet", {"inputs": numbers, "label": CLASSES})
    resized = Spec(recipe=(Quantize(),), data=DataSpec(preprocess=Preprocess(resize=8)))
    with pytest.raises(InvalidData, match="resize is for images in a parquet file"):
        check_upload(resized, {"model": pt2, "data": arrays})
    with pytest.raises(InvalidData, match=r"no image column; leave data\.preprocess\.resize out"):
        check_upload(resized, {"model": pt2, "data": columns})
    cut = Spec(recipe=(Quantize(),), data=DataSpec(window=8))
    with pytest.raises(InvalidData, match="window is for language_modeling"):
        check_upload(cut, {"model": pt2, "data": columns})


def test_a_missing_mask_is_made_of_the_lengths_of_the_rows(tmp_path: Path) -> None:
    rows = [[1] * (1 + i % 5) for i in range(10)]
    header = read_parquet(parquet(tmp_path / "a.parquet", {"input_ids": rows, "label": CLASSES}))
    match = match_columns((IDS, MASK), header, Spec(recipe=(Quantize(),)), "data")
    assert [feed.column and feed.column.name for feed in match.feeds] == ["input_ids", None]
    assert match.tokens is not None
    kinds = Signature("token_type_ids", ("batch", 6), "int64")
    with pytest.raises(InputNotFound, match="no column named 'token_type_ids'"):
        match_columns((IDS, MASK, kinds), header, Spec(recipe=(Quantize(),)), "data")
