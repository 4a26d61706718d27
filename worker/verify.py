"""Checks what a child made before it may be published: the files are what the result says."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from planish.contract.errors import InternalError
from planish.contract.job import Result
from worker.exchange import DRAFT, REQUEST, SCRATCH, Draft

CHUNK = 8 << 20


def read_draft(path: Path) -> Draft | None:
    """Return what the child proposes; None when it wrote nothing, or nothing that can be read."""
    try:
        return Draft.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def verify(result: Result, artifacts: Path, tick: Callable[[], None]) -> None:
    """Compare each artifact with its size and digest, and look for files beyond them.

    Args:
        result: what the child says it made.
        artifacts: the folder that holds it.
        tick: called between chunks, so that the lease is kept however large the files are.

    Raises:
        InternalError: a file is missing, strange, different or not listed.
    """
    listed = {artifact.name for artifact in result.artifacts}
    present = {path.name for path in artifacts.iterdir()}
    if listed != present or result.model not in listed:
        wrong = ", ".join(sorted(listed ^ present | ({result.model} - listed)))
        raise InternalError(f"the result and the artifacts folder differ: {wrong}")
    for artifact in result.artifacts:
        if _measure(artifacts / artifact.name, tick) != (artifact.size, artifact.sha256):
            raise InternalError(f"{artifact.name} is not what the result says")


def strip(folder: Path, artifacts: Path | None = None) -> None:
    """Remove an attempt's temporary files, and its artifacts where they are given."""
    for name in (REQUEST, DRAFT):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    if artifacts is not None:
        shutil.rmtree(artifacts, ignore_errors=True)


def _measure(path: Path, tick: Callable[[], None]) -> tuple[int, str] | None:
    """Return size and sha256 of a plain file, None for anything else (a link, a pipe)."""
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode):
        return None
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            tick()
    return info.st_size, digest.hexdigest()
