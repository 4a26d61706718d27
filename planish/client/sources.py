"""The files of a job as people name them: a path, several, a folder, or ids of earlier uploads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planish.client.folder import pick
from planish.contract.errors import MissingPart
from planish.contract.parts import MAX_PARTS, PART_NAME_PATTERN, is_part_name, repeated
from planish.contract.spec import PARTS
from planish.contract.storage import is_storage_url

PREFIX = "sha256:"
MODELS = ("model", "teacher", "student")

FileSource = str | os.PathLike[str]
PartSource = FileSource | Sequence[FileSource] | Mapping[str, FileSource]
"""A path, a file id (``sha256:…``) or a storage URL (``s3://…``); a folder of a model; paths of
files that belong together; or each file, path or id, under the name that the others know it by."""

Named = Mapping[str, FileSource]


@dataclass(frozen=True)
class Sources:
    """The files of a job; see `PartSource`."""

    model: PartSource
    data: PartSource | None = None
    test_data: PartSource | None = None
    teacher: PartSource | None = None
    student: PartSource | None = None

    def given(self) -> Mapping[str, FileSource | Named]:
        """Return what is set, by role: one file, or several with their names.

        Raises:
            MissingPart: a path is no readable file, a folder holds no model, names do not fit.
        """
        roles = {role: source for role in PARTS if (source := getattr(self, role)) is not None}
        found = {role: _resolved(role, source) for role, source in roles.items()}
        for role, source in found.items():
            for file in source.values() if isinstance(source, Mapping) else [source]:
                if not is_remote(file):
                    check_file(role, Path(file))
        return found


def is_id(source: FileSource) -> bool:
    """Tell an uploaded file's id from a path."""
    return isinstance(source, str) and source.startswith(PREFIX)


def is_remote(source: FileSource) -> bool:
    """Tell what is not on this machine: an uploaded file, or one in a storage (``s3://…``)."""
    return is_id(source) or is_storage_url(source)


def check_file(role: str, path: Path) -> None:
    """Check that a path can be sent; raises MissingPart."""
    if path.is_dir():
        raise MissingPart(f"{role}: {path} is a folder; give the path of a file")
    if not path.is_file():
        raise MissingPart(f"{role}: there is no file {path}")
    if not path.stat().st_size:
        raise MissingPart(f"{role}: {path} is empty")
    if not os.access(path, os.R_OK):
        raise MissingPart(f"{role}: {path} cannot be read (permissions)")


def _resolved(role: str, source: PartSource) -> FileSource | Named:
    if isinstance(source, str | os.PathLike):
        if role in MODELS and not is_remote(source) and Path(source).is_dir():
            return _alone(_checked(role, pick(Path(source))))
        return source
    if isinstance(source, Mapping):
        return _alone(_checked(role, source))
    unnamed = next((file for file in source if is_id(file)), None)
    if unnamed is not None:
        raise MissingPart(f"{role}: {unnamed} needs a name; give a mapping of names and files")
    names = [Path(file).name for file in source]
    if (twice := repeated(names)) is not None:
        raise MissingPart(
            f"{role}: two files are called {twice}; give a mapping of names and files"
        )
    return _alone(_checked(role, dict(zip(names, source, strict=True))))


def _alone(named: Named) -> FileSource | Named:
    return next(iter(named.values())) if len(named) == 1 else named


def _checked(role: str, named: Named) -> Named:
    if not 0 < len(named) <= MAX_PARTS:
        raise MissingPart(f"{role}: {len(named)} files; 1 to {MAX_PARTS} are taken")
    wrong = next((name for name in named if not is_part_name(name)), None)
    if wrong is not None:
        raise MissingPart(f"{role}: the name {wrong[:200]!r} does not match {PART_NAME_PATTERN}")
    if (twice := repeated(named)) is not None:
        raise MissingPart(f"{role}: the name {twice!r} stands twice")
    return named
