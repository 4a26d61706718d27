"""Data files of any layout: what their headers say, held against model and spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from planish.contract.errors import InvalidData
from planish.contract.problem import FieldError
from planish.contract.spec import Spec
from planish.gate.arrays import ArrayHeader, identify_data, read_headers
from planish.gate.columns import ANSWERS, answers, match_columns, teaching
from planish.gate.match import TARGETS, check_preprocess, match_arrays, teaches
from planish.gate.parquet import ParquetHeader, read_parquet
from planish.gate.signature import Signature

DataHeader = tuple[ArrayHeader, ...] | ParquetHeader


def read_data(path: Path) -> DataHeader:
    """Return what a data file says about itself.

    Raises:
        MissingPart: the file is empty.
        InvalidData: of no known layout, damaged or cut short.
    """
    return read_parquet(path) if identify_data(path) == "parquet" else read_headers(path)


def check_data(spec: Spec, paths: Mapping[str, Path], inputs: Sequence[Signature] | None) -> bool:
    """Check the data files of a job; tell whether the data holds what the task trains on.

    Args:
        spec: the job.
        paths: its files by part; only ``data`` and ``test_data`` are looked at.
        inputs: of the model; None where only the worker can tell.

    Raises:
        MissingPart, InvalidData: see `read_data`, `match_arrays` and `match_columns`.
    """
    headers = {part: read_data(paths[part]) for part in ("data", "test_data") if part in paths}
    if "test_data" in headers and "data" not in headers:
        raise InvalidData("test_data came without data; send data too, or neither")
    if spec.data.window is not None and spec.data.task != "language_modeling":
        raise _wrong("window", f"window is for language_modeling, not for {spec.data.task}")
    if inputs is not None:
        check_preprocess(inputs, spec)
        for part, header in headers.items():
            _match(inputs, header, spec, part)
    if not headers:
        return False
    labelled = {part: _has_targets(header, spec, part) for part, header in headers.items()}
    if spec.data.task != "none" and labelled["data"] and not labelled.get("test_data", True):
        wanted = f"column named {' or '.join(map(repr, ANSWERS))}"
        if not isinstance(headers["test_data"], ParquetHeader):
            wanted = f"array named {TARGETS!r}"
        raise InvalidData(f"test_data has no {wanted}; data has what should be answered")
    data = headers["data"]
    if isinstance(data, ParquetHeader):
        return teaching(data, spec.data.task, "data")
    return teaches(spec.data.task, data)


def _match(inputs: Sequence[Signature], header: DataHeader, spec: Spec, part: str) -> None:
    if isinstance(header, ParquetHeader):
        match_columns(inputs, header, spec, part)
    elif spec.data.preprocess.resize is not None:
        raise _wrong(
            "preprocess/resize",
            f"resize is for images in a parquet file; {part} holds arrays: leave it out",
        )
    else:
        match_arrays(inputs, header, spec, part)


def _has_targets(header: DataHeader, spec: Spec, part: str) -> bool:
    if isinstance(header, ParquetHeader):
        return answers(header, spec.data.task, part) is not None
    return any(array.name == TARGETS for array in header)


def _wrong(field: str, detail: str) -> InvalidData:
    return InvalidData(detail, (FieldError(pointer=f"/data/{field}", detail=detail),))
