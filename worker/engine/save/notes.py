"""The upload's own notes (licence, author) written into a model file."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import onnx

from planish.gate.notes import SOURCE_NOTES, as_json

_HEADER_ALIGNMENT = 8


def annotate(path: Path, notes: Mapping[str, str]) -> None:
    """Write notes into a finished model file, where its format has a place for them; in place.

    Args:
        path: a `.onnx`, `.xml`, `.pt2`, `.aoti.pt2` or `.safetensors` file of ours.
        notes: texts by name; nothing happens without any.
    """
    if notes:
        _WRITERS[path.suffix](path, dict(notes))


def _onnx(path: Path, notes: dict[str, str]) -> None:
    proto = onnx.load(path, load_external_data=False)
    known = {entry.key for entry in proto.metadata_props}
    for name, text in notes.items():
        if name not in known:
            proto.metadata_props.add(key=name, value=text)
    path.write_bytes(proto.SerializeToString())


def _openvino(path: Path, notes: dict[str, str]) -> None:
    tree = ElementTree.parse(path)  # noqa: S314  # written by openvino itself
    info = tree.getroot().find("rt_info/planish")
    if info is not None:
        ElementTree.SubElement(info, "source_metadata", value=as_json(notes))
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _archive(path: Path, notes: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(zipfile.ZipInfo(f"{root}/{SOURCE_NOTES}"), as_json(notes))


def _safetensors(path: Path, notes: dict[str, str]) -> None:
    fresh = path.with_name(f"{path.name}.tmp")
    with path.open("rb") as source, fresh.open("wb") as target:
        header = json.loads(source.read(int.from_bytes(source.read(8), "little")))
        header["__metadata__"] = {**notes, **header.get("__metadata__", {})}
        raw = json.dumps(header, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % _HEADER_ALIGNMENT)
        target.write(len(raw).to_bytes(8, "little") + raw)
        shutil.copyfileobj(source, target, 1 << 20)
    fresh.replace(path)


_WRITERS = {
    ".onnx": _onnx,
    ".xml": _openvino,
    ".pt2": _archive,
    ".safetensors": _safetensors,
}
