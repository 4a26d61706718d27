"""Files for the tests of the gate, made without torch where that is possible."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from planish.contract.recipe import Quantize, Simplify
from planish.contract.spec import Spec

QUICK = Spec(recipe=(Simplify(),))
STATIC = Spec(recipe=(Quantize(),))


def npz(path: Path, **arrays: object) -> Path:
    """Write arrays as numpy.savez does."""
    np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})
    return path


def safetensors(path: Path, header: object, body: bytes = b"") -> Path:
    """Write a safetensors file with any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + body)
    return path


def rezip(
    source: Path, target: Path, change: Callable[[dict[str, bytes]], Mapping[str, bytes]]
) -> Path:
    """Copy an archive with its members changed; names are given without the root folder."""
    with zipfile.ZipFile(source) as archive:
        names = archive.namelist()
        root = names[0].partition("/")[0]
        members = {name.partition("/")[2]: archive.read(name) for name in names}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in change(members).items():
            archive.writestr(f"{root}/{name}", content)
    return target


def change_json(
    source: Path, target: Path, change: Callable[[dict[str, object]], object], name: str = ""
) -> Path:
    """Copy a .pt2 with a JSON member changed in place; the program itself by default."""

    def apply(members: dict[str, bytes]) -> dict[str, bytes]:
        key = name or next(key for key in members if key.startswith("models/"))
        document = json.loads(members[key])
        change(document)
        return {**members, key: json.dumps(document).encode()}

    return rezip(source, target, apply)
