"""Our own form of an uploaded file: what comes out of the sandbox, and all that training reads.

A ``.pt2`` is written anew with nothing but JSON and raw tensors. A torch checkpoint becomes
safetensors, an ONNX graph is written anew in one piece, packed arrays and the columns of a parquet
file become plain arrays. Safetensors and plain arrays are that form already: JSON and raw bytes,
read by the gate in pure Python; they go on as they are.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from planish.contract.errors import InvalidData, InvalidModel
from planish.contract.spec import ModelSpec, Spec
from planish.gate.archive import Archive, Entry, read_archive
from planish.gate.arrays import identify_data, read_headers
from planish.gate.inputs import architecture_inputs, model_format
from planish.gate.notes import notes_of
from planish.gate.onnx import read_onnx
from planish.gate.onnx.batch import graph_inputs
from planish.gate.parts import Source, model_files
from planish.gate.pt2 import PAYLOADS, Package, open_package, payload_file
from planish.gate.published import with_architecture
from planish.gate.safetensors import read_tensors
from planish.gate.signature import Signature
from worker.engine.load import load_model
from worker.engine.load.data import signature
from worker.engine.load.parquet import Unpacked, unpack_parquet
from worker.engine.load.scratch import Scratch
from worker.engine.load.state_dict import read_checkpoint, read_safetensors
from worker.engine.runtime_model.read import write_canonical
from worker.engine.save.notes import annotate

ARRAYS, COLUMNS = "data.npz", "data.safetensors"
PACKAGE, WEIGHTS = "model.pt2", "model.safetensors"


class _Place(Scratch):
    """Room for one file, at a place that is known."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def file(self, size: int) -> Path:
        """Return the place; raises `StorageFull` as its parent does."""
        super().file(size)
        return self._path


def write_model(
    source: Source, spec: ModelSpec, role: str, folder: Path
) -> tuple[Path | None, tuple[Signature, ...]]:
    """Open a model, and write its canonical form into a folder.

    A graph is loaded and run as well. Bare weights are only read: the network that they belong to
    is our own code, and is built where it is used.

    Args:
        source: the upload.
        spec: how to read it.
        role: where it stands in the job.
        folder: exists and is empty.

    Returns:
        The new file, None where the upload is in canonical form already; and what the model takes.

    Raises:
        InvalidModel: or one of its kinds, as `load_model`.
    """
    files = model_files(source, role)
    kind = model_format(files.main, spec, role)
    if kind == "onnx":
        written = write_canonical(files, spec, folder)
        return written, graph_inputs(read_onnx(written))
    if kind == "pt2":
        inputs = tuple(signature(item) for item in load_model(source, spec, role).inputs)
        _write_package(open_package(files.main), folder / PACKAGE)
        annotate(folder / PACKAGE, notes_of(files.main))
        return folder / PACKAGE, inputs
    _, inputs = architecture_inputs(with_architecture(spec, files), role)
    if kind == "safetensors":
        read_safetensors(*files.weights)
        return None, inputs
    tensors = read_checkpoint(files.main)
    save_file({n: t.contiguous().clone() for n, t in tensors.items()}, folder / WEIGHTS)
    read_tensors(folder / WEIGHTS, InvalidModel)  # refuses names and types that are not taken
    return folder / WEIGHTS, inputs


def write_data(
    path: Path, inputs: Sequence[Signature], spec: Spec, role: str, folder: Path
) -> tuple[Path | None, Unpacked | None]:
    """Write the arrays of a data file plainly.

    Args:
        path: the upload.
        inputs: what the model takes; says which columns of a parquet file are wanted.
        spec: says task and windows.
        role: ``data`` or ``test_data``.
        folder: exists and is empty.

    Returns:
        The new file, None where the arrays are plain already; and what became of columns.

    Raises:
        InvalidData: damaged.
        StorageFull: no room for the arrays.
    """
    if identify_data(path) == "parquet":
        unpacked = unpack_parquet(path, inputs, spec, role, _Place(folder / COLUMNS))
        return unpacked.path, unpacked
    headers = read_headers(path)
    if not any(header.member and header.member.deflated for header in headers):
        return None, None
    archive = read_archive(path, InvalidData, allow_deflate=True)
    with zipfile.ZipFile(folder / ARRAYS, "w", zipfile.ZIP_STORED) as packed:
        for header in headers:
            if header.member is not None:
                _copy(archive, header.member, packed, header.member.name)
    return folder / ARRAYS, None


def _write_package(package: Package, target: Path) -> None:
    """Write what the reader reads of a package: its program, the configs, the tensors' bytes."""
    tag = package.tag
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr(f"{tag}/archive_format", b"pt2")
        packed.writestr(f"{tag}/byteorder", b"little")
        packed.writestr(f"{tag}/models/{tag}.json", _json(package.program().raw))
        for folder, kind in PAYLOADS:
            config = package.config(folder, kind)
            whole = {"config": config.raw}
            packed.writestr(f"{tag}/{folder}/{tag}_{kind}_config.json", _json(whole))
            for file in sorted({payload_file(name, meta) for name, meta in config.members()}):
                entry = package.entry(f"{folder}/{file}")
                _copy(package.archive, entry, packed, f"{tag}/{folder}/{file}")


def _copy(archive: Archive, entry: Entry, packed: zipfile.ZipFile, name: str) -> None:
    with packed.open(zipfile.ZipInfo(name), "w", force_zip64=entry.size > 1 << 30) as file:
        archive.copy_to(entry, file)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
