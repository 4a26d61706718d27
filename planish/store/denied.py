"""Files that broke the process which opens uploads: counted by content, refused from the third on.

``denied/<tenant>/<sha256>.json`` in the data folder. Each tenant has counts of its own: nobody can
make a well-known file unusable for others.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from planish.contract.errors import FileDenied
from planish.contract.problem import FieldError
from planish.contract.spec import Files
from planish.contract.wire import DEFAULT_TENANT
from planish.store.durable import make_private, replace_file

TRIES = 2
"""How often a file may break its converter before it is refused unopened."""

_PREFIX = "sha256:"
_LOCK = ".lock"


class DeniedFile(BaseModel):
    """What is known of a file that broke a converter.

    Attributes:
        id: ``sha256:…``.
        tenant: whose it is.
        crashes: how often.
        last: when it did so last, UTC.
        cause: how, in words.
        job: the job or plan of the last time.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    tenant: str
    crashes: int
    last: datetime
    cause: str
    job: str

    @property
    def refused(self) -> bool:
        """Whether it is not opened any more."""
        return self.crashes >= TRIES


class DeniedFiles:
    """The counts of one data folder; several processes share it."""

    def __init__(self, root: Path) -> None:
        self._root = root / "denied"

    def count(self, file_id: str, tenant: str, cause: str, job: str) -> DeniedFile:
        """Count one more crash of a file; return what is known now, durably."""
        with self._locked():
            known = self.find(file_id, tenant)
            crashes = 1 + (known.crashes if known else 0)
            found = DeniedFile(
                id=file_id,
                tenant=tenant,
                crashes=crashes,
                last=datetime.now(UTC),
                cause=cause[:500],
                job=job,
            )
            path = self._path(file_id, tenant)
            make_private(path.parent)
            replace_file(path, found.model_dump_json().encode())
            return found

    def find(self, file_id: str, tenant: str = DEFAULT_TENANT) -> DeniedFile | None:
        """Return what is known of a file; None when it never broke anything."""
        return _read(self._path(file_id, tenant))

    def check(self, files: Files, tenant: str) -> None:
        """Refuse files that have broken their converter too often.

        Raises:
            FileDenied: names each of them, and how it failed.
        """
        faults = []
        for place, file_id in files.pointers():
            found = self.find(file_id, tenant)
            if found is not None and found.refused:
                faults.append(FieldError(pointer=place, detail=_refusal(found)))
        if faults:
            raise FileDenied("; ".join(fault.detail for fault in faults), tuple(faults))

    def known(self) -> list[DeniedFile]:
        """Return everything that is known, latest first."""
        found = (_read(path) for path in self._root.glob("*/*.json"))
        entries = [entry for entry in found if entry is not None]
        return sorted(entries, key=lambda entry: entry.last, reverse=True)

    def clear(self, ids: Iterable[str] | None = None) -> list[DeniedFile]:
        """Forget some files of all tenants, or everything; return what was forgotten."""
        wanted = None if ids is None else set(ids)
        with self._locked():
            gone = [entry for entry in self.known() if wanted is None or entry.id in wanted]
            for entry in gone:
                self._path(entry.id, entry.tenant).unlink(missing_ok=True)
        return gone

    def _path(self, file_id: str, tenant: str) -> Path:
        return self._root / tenant / f"{file_id.removeprefix(_PREFIX)}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_private(self._root)
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        with open(os.open(self._root / _LOCK, flags, 0o600), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _refusal(found: DeniedFile) -> str:
    return (
        f"{found.id} broke the process that opens uploads {found.crashes} times (the last time: "
        f"{found.cause}); it is not opened again. Send another file, or ask the operator "
        "(planish denied clear)"
    )


def _read(path: Path) -> DeniedFile | None:
    try:
        return DeniedFile.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
