"""Our own form of an uploaded file: what comes out of the sandbox, and all that training reads.

A ``.pt2`` is written anew with nothing but JSON and raw tensors. A torch checkpoint becomes
safetensors. Packed arrays become plain ones. Safetensors and plain arrays are that form already:
JSON and raw bytes, read by the gate in pure Python; they go on as they are.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from safetensors.torch import save_file

from planish.contract.errors import InvalidData
from planish.gate.archive import Archive, Entry, read_archive
from planish.gate.arrays import identify_data, read_headers
from planish.gate.identify import identify_model
from planish.gate.pt2 import PAYLOADS, Package, open_package, payload_file
from worker.engine.load.state_dict import read_checkpoint

MODEL = {"pt2": "model.pt2", "state_dict": "model.safetensors"}
DATA = "data.npz"
_CHUNK = 4 << 20


def write_model(main: Path, folder: Path) -> Path | None:
    """Write the canonical form of a model file into a folder.

    Args:
        main: the file whose content says the format; it has been loaded without complaint.
        folder: exists and is empty.

    Returns:
        The new file; None where the upload is in canonical form already.

    Raises:
        InvalidModel: damaged.
    """
    kind = identify_model(main)
    if kind not in MODEL:
        return None
    target = folder / MODEL[kind]
    if kind == "pt2":
        _write_package(open_package(main), target)
    else:
        save_file({n: t.contiguous().clone() for n, t in read_checkpoint(main).items()}, target)
    return target


def write_data(path: Path, folder: Path) -> Path | None:
    """Write the arrays of a data file without compression; None where they have none.

    Raises:
        InvalidData: damaged.
    """
    headers = read_headers(path)
    if identify_data(path) != "npz" or not any(h.member and h.member.deflated for h in headers):
        return None
    archive = read_archive(path, InvalidData, allow_deflate=True)
    with zipfile.ZipFile(folder / DATA, "w", zipfile.ZIP_STORED) as packed:
        for header in headers:
            if header.member is not None:
                _copy(archive, header.member, packed, header.member.name)
    return folder / DATA


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
    archive.verify(entry)
    with packed.open(zipfile.ZipInfo(name), "w", force_zip64=entry.size > 1 << 30) as file:
        for piece in archive.chunks(entry, _CHUNK):
            file.write(piece)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
