"""The manifest of a folder: which files it names, and whether they are what it says."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from planish.contract.errors import VerificationFailed
from planish.contract.spec import Spec
from planish.contract.wire import MANIFEST
from planish.verify.check import Check, Outcome


class Entry(BaseModel):
    """One file."""

    name: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What the folder holds, and the job that it came from; None where that cannot be read."""

    model_config = ConfigDict(extra="ignore")

    files: tuple[Entry, ...]
    spec: object = None

    def job(self) -> Spec | None:
        """Return the spec of the job; None for that of another version."""
        try:
            return Spec.model_validate(self.spec)
        except ValidationError:
            return None


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder.

    Raises:
        VerificationFailed: it has none that can be read.
    """
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise VerificationFailed(f"{folder} has no {MANIFEST}; was it downloaded whole?") from None
    except ValidationError:
        raise VerificationFailed(f"{folder / MANIFEST} cannot be read") from None


def hash_check(folder: Path, entry: Entry) -> Check:
    """Hold a file against its entry."""
    if Path(entry.name).name != entry.name:
        return Check(name=entry.name, outcome=Outcome.FAILED, detail="not a plain file name")
    try:
        with (folder / entry.name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        return Check(name=entry.name, outcome=Outcome.FAILED, detail=error.strerror or "unreadable")
    if (size, digest) != (entry.size, entry.sha256):
        detail = (
            f"{size} bytes with sha256 {digest}; the manifest says {entry.size}, {entry.sha256}"
        )
        return Check(name=entry.name, outcome=Outcome.FAILED, detail=detail)
    return Check(name=entry.name, outcome=Outcome.OK, detail=f"sha256 {digest[:16]}…")
