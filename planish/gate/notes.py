"""The texts that a model file carries beside the network: licence, author, where it comes from.

safetensors keep them in ``__metadata__``, ONNX in ``metadata_props``, a ``.pt2`` in members below
``extra/``. They go into the results; no loader acts on them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from planish.contract.errors import InvalidModel
from planish.gate.identify import identify_model
from planish.gate.onnx import read_notes as onnx_notes
from planish.gate.parts import Source, model_files
from planish.gate.pt2 import open_package
from planish.gate.safetensors import read_notes as safetensors_notes
from planish.gate.strict_json import load_json

SOURCE_NOTES = "extra/source_metadata.json"
"""Member of our own ``.pt2`` files that holds the notes of the upload as one JSON object."""

MAX_NOTES = 64
MAX_KEY = 128
MAX_TEXT = 16 << 10
_OWN = ("format", "architecture")
_EXTRA = re.compile(r"extra/([\w.-]{1,128})", re.ASCII)


def notes_of(source: Source) -> dict[str, str]:
    """Return the texts of a model file by name, the longest and the many left out.

    Args:
        source: an upload that the gate has let in; of several files the first with weights.
    """
    path = model_files(source).main
    kind = identify_model(path)
    found: dict[str, str] = {}
    if kind == "safetensors":
        found = safetensors_notes(path)
    elif kind == "onnx":
        found = onnx_notes(path)
    elif kind == "pt2":
        found = _extras(path)
    return dict(
        [(name, text) for name, text in sorted(found.items()) if _fits(name, text)][:MAX_NOTES]
    )


def _fits(name: str, text: str) -> bool:
    plain = 0 < len(name) <= MAX_KEY and name.isprintable() and name not in _OWN
    return plain and 0 < len(text) <= MAX_TEXT and "\x00" not in text


def _extras(path: Path) -> dict[str, str]:
    package = open_package(path)
    found: dict[str, str] = {}
    for name, entry in package.archive.entries.items():
        member = name.partition("/")[2]
        match = _EXTRA.fullmatch(member)
        if match is None or entry.size > MAX_TEXT * MAX_NOTES:
            continue
        try:
            text = package.archive.read(name, MAX_TEXT * MAX_NOTES).decode()
        except (UnicodeDecodeError, InvalidModel):
            continue
        if member == SOURCE_NOTES:
            found |= _texts(text)
        else:
            found[match[1]] = text
    return found


def _texts(text: str) -> dict[str, str]:
    try:
        value = load_json(text.encode())
    except ValueError:
        return {}
    pairs = value.items() if isinstance(value, dict) else ()
    return {name: item for name, item in pairs if isinstance(item, str)}


def as_json(notes: dict[str, str]) -> str:
    """Return notes as one line of ASCII."""
    return json.dumps(notes, sort_keys=True)
