"""Headers of data files, and the files that lie about themselves."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from planish.contract.errors import InvalidData, MissingPart, PlanishError
from planish.gate.arrays import read_headers
from tests.gate.files import npz, safetensors


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "bool", "int32", "int64", "float16", "float32", "float64"]
)
def test_npz_headers_say_name_shape_and_type(tmp_path: Path, save, dtype: str) -> None:
    values = np.ones((7, 3, 2)).astype(dtype)
    save(tmp_path / "a.npz", x=values, turned=np.asfortranarray(values), one=values[0, 0, 0])
    headers = {header.name: header for header in read_headers(tmp_path / "a.npz")}
    assert headers["x"].shape == (7, 3, 2)
    assert headers["one"].shape == ()
    assert {header.dtype for header in headers.values()} == {dtype}
    assert headers["turned"].fortran
    assert not headers["x"].fortran


def test_safetensors_headers_say_name_shape_and_type(tmp_path: Path) -> None:
    save_file({"x": np.zeros((4, 2), np.uint8), "y": np.zeros(4, np.int64)}, tmp_path / "a.st")
    headers = {
        header.name: (header.shape, header.dtype) for header in read_headers(tmp_path / "a.st")
    }
    assert headers == {"x": ((4, 2), "uint8"), "y": ((4,), "int64")}


def test_arrays_of_text_or_objects_are_listed_but_never_opened(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", names=["a", "bc"], x=np.zeros(3))
    np.savez(tmp_path / "b.npz", things=np.array([{}], dtype=object))
    assert {h.name: h.descr for h in read_headers(path)} == {"names": None, "x": "<f8"}
    assert read_headers(tmp_path / "b.npz")[0].descr is None


def test_an_empty_file_is_a_missing_part(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(MissingPart, match="empty"):
        read_headers(tmp_path / "empty")


def test_a_single_npy_is_refused_with_the_way_to_save_it(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(InvalidData, match=r"numpy\.savez"):
        read_headers(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }",
        "{'descr': '<f4', 'shape': (1,), }",
        "__import__('os').system('touch canary')",
        "((((((" * 100,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
    ],
)
def test_a_damaged_npy_header_is_refused(tmp_path: Path, header: str) -> None:
    raw = header.encode()
    member = b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + bytes(4)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(InvalidData):
        read_headers(tmp_path / "a.npz")
    assert not (tmp_path / "canary").exists()


def _tensor(dtype: str = "F32", shape: object = (2,), span: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": span}


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"a": _tensor(), "b": _tensor()}, bytes(8)),
        ({"a": _tensor(), "b": _tensor(span=(4, 12))}, bytes(12)),
        ({"a": _tensor(span=(8, 16))}, bytes(16)),
        ({"a": _tensor()}, bytes(9)),
        ({"a": _tensor()}, bytes(7)),
        ({"a": _tensor(shape=(3,))}, bytes(8)),
        ({"a": _tensor(shape=(-2,))}, bytes(8)),
        ({"a": _tensor(shape=(0, 1 << 41), span=(0, 0))}, b""),
        ({"a": _tensor(shape=(1 << 39, 1 << 39))}, bytes(8)),
        ({"a": _tensor(dtype="F128")}, bytes(8)),
        ({"a": _tensor(dtype=["F32"])}, bytes(8)),
        ({"a": _tensor(shape=2)}, bytes(8)),
        ({"a": {**_tensor(), "more": 1}}, bytes(8)),
        ({"a": 3}, b""),
        ({"a\u0000": _tensor()}, bytes(8)),
        ([1], b""),
        (b'{"a": 1, "a": 2}', b""),
        (b'{"a": NaN}', b""),
        (b"\xff\xff", b""),
        (b'{"a":' + b"[" * 100_000, b""),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(
    tmp_path: Path, header: object, body: bytes
) -> None:
    with pytest.raises(PlanishError):
        read_headers(safetensors(tmp_path / "a.st", header, body))


def test_a_safetensors_header_is_never_read_beyond_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.st"
    with path.open("wb") as file:
        file.write((1 << 30).to_bytes(8, "little") + b"{")
        file.truncate(2 << 30)
    with pytest.raises(InvalidData, match="header has"):
        read_headers(path)


def test_a_header_bomb_of_many_tensors_is_refused(tmp_path: Path) -> None:
    many = {f"{i}": _tensor(shape=(0,), span=(0, 0)) for i in range(100_001)}
    raw = json.dumps(many, separators=(",", ":")).encode()
    with pytest.raises(InvalidData, match="at most"):
        read_headers(safetensors(tmp_path / "a.st", raw))
