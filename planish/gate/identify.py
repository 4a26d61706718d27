"""Model formats by content, whatever the file is called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from planish.contract.errors import InvalidModel, MissingPart, UnknownFormat, UnsafeModel
from planish.gate.archive import Archive, read_archive
from planish.gate.onnx import looks_like_onnx
from planish.gate.pickles import LEGACY_MAGIC, MAX_PICKLE, check_legacy, check_pickle
from planish.gate.safetensors import looks_like_safetensors

ModelFormat = Literal["pt2", "safetensors", "state_dict", "onnx"]

_KNOWN = (
    "a .pt2 of torch.export.save, a .safetensors file, a checkpoint of torch.save, or an .onnx file"
)
_STORAGE = re.compile(r"[^/]+/data/\d{1,9}")


def identify_model(path: Path) -> ModelFormat:
    """Return the format of a model file.

    Raises:
        MissingPart: the file is empty.
        UnknownFormat: none of the known formats.
        UnsafeModel: a format that carries code.
        InvalidModel: a known format, damaged or cut short.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(4096)
    if not size:
        raise MissingPart("the model file is empty")
    if head.startswith(b"PK\x03\x04"):
        return _identify_zip(path)
    if head.startswith(LEGACY_MAGIC):
        return "state_dict"
    if looks_like_safetensors(head, size):
        return "safetensors"
    if looks_like_onnx(head):
        return "onnx"
    if head[8:9] == b"{" and head[4:8] == b"\x00" * 4:
        raise InvalidModel("the safetensors file is cut short")
    raise _unknown(head)


def _identify_zip(path: Path) -> ModelFormat:
    archive = read_archive(path, InvalidModel)
    names = {name.partition("/")[2] for name in archive.entries}
    if "archive_format" in names:
        return "pt2"
    if "serialized_exported_program.json" in archive.entries:
        raise InvalidModel(
            "this .pt2 is of an older layout; export the model again with torch 2.13"
        )
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise UnsafeModel(
            "this is a TorchScript file, which is code; export the model with torch.export.save"
        )
    if "data.pkl" in names:
        return "state_dict"
    if any(name.endswith(".npy") for name in archive.entries):
        raise UnknownFormat(f"this is an .npz data file; the model must be {_KNOWN}")
    raise UnknownFormat(f"this zip file is no model; the model must be {_KNOWN}")


def _unknown(head: bytes) -> UnknownFormat | UnsafeModel:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return UnsafeModel(
            "this is a bare pickle, which is code; save the weights with "
            "torch.save(model.state_dict(), path)"
        )
    if head.startswith(b"\x89HDF"):
        return UnknownFormat(f"this is an HDF5 file; the model must be {_KNOWN}")
    if head.startswith(b"GGUF"):
        return UnknownFormat(f"this is a GGUF file; the model must be {_KNOWN}")
    if head.startswith(b"PAR1"):
        return UnknownFormat(f"this is a .parquet data file; the model must be {_KNOWN}")
    if _is_text(head):
        return UnknownFormat(f"this is a text file; the model must be {_KNOWN}")
    return UnknownFormat(f"the content is of no known format; the model must be {_KNOWN}")


def _is_text(head: bytes) -> bool:
    try:
        text = head[:1000].decode("utf-8", "strict" if len(head) < 1000 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)


def check_checkpoint(path: Path) -> Archive | None:
    """Check that a torch checkpoint holds tensors and nothing else.

    Returns:
        Its archive; None where it is of the layout of before torch 1.6, which is no archive.

    Raises:
        UnsafeModel: its pickle names anything but tensors.
        InvalidModel: damaged, or not laid out as torch.save does.
    """
    with path.open("rb") as file:
        head = file.read(len(LEGACY_MAGIC))
        if head == LEGACY_MAGIC:
            check_legacy(head + file.read(MAX_PICKLE))
            return None
    archive = read_archive(path, InvalidModel)
    roots = {name.partition("/")[0] for name in archive.entries}
    pickles = [name for name in archive.entries if name.endswith("/data.pkl")]
    if len(roots) != 1 or len(pickles) != 1 or pickles[0].count("/") != 1:
        raise InvalidModel("the checkpoint is not laid out as torch.save does")
    order = f"{roots.pop()}/byteorder"
    if order in archive.entries and archive.read(order, 64) != b"little":
        raise InvalidModel("the checkpoint was written on a big-endian machine")
    check_pickle(archive.read(pickles[0], MAX_PICKLE))
    return archive


def is_storage(name: str) -> bool:
    """Tell whether a member of a checkpoint holds the bytes of a tensor."""
    return _STORAGE.fullmatch(name) is not None
