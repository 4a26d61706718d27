"""What lies in a folder of artifacts, and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from planish.contract.spec import Spec
from planish.contract.wire import MANIFEST

FORMAT = 1


def write_manifest(
    out_dir: Path,
    spec: Spec,
    versions: Mapping[str, JsonValue],
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write ``manifest.json`` over all other files of a folder and return its path.

    Args:
        out_dir: the finished artifacts, flat.
        spec: of the job; with its seed the same files can be made again.
        versions: of the libraries that made them.
        notes: texts that the uploaded model carried: licence, author.
    """
    files = sorted(path for path in out_dir.iterdir() if path.is_file() and path.name != MANIFEST)
    manifest = {
        "format": FORMAT,
        "files": [_entry(path) for path in files],
        "spec": spec.model_dump(mode="json"),
        "seeds": {"job": spec.seed},
        "versions": dict(versions),
        "source": {"metadata": dict(notes or {})},
    }
    path = out_dir / MANIFEST
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(path: Path) -> dict[str, JsonValue]:
    return {"name": path.name, "size": path.stat().st_size, "sha256": sha256_of(path)}
