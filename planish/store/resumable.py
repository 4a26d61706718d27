"""Uploads that go on where they broke off: a growing file, and a note of what it is to become.

``uploads/<id>.partial`` holds the bytes that have arrived; its size is the offset, so whatever
survived a crash counts. ``uploads/<id>.note`` holds length, name and expiry. One writer at a time
holds a lock on the file; the lock goes with the process that held it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from planish.contract.errors import NotFound, UploadExpired, UploadLocked
from planish.contract.wire import ULID_ALPHABET
from planish.store.blobs import Blobs, Upload
from planish.store.durable import put_new, replace_file
from planish.store.ids import new_id

LIFETIME = timedelta(hours=24)
PREFIX = "upload"
PARTIAL, NOTE = ".partial", ".note"
_ID = re.compile(rf"^{PREFIX}_[{ULID_ALPHABET}]{{26}}$")
_PIECE = 1 << 20


class Note(BaseModel):
    """What is known of an upload.

    Attributes:
        length: bytes of the whole file.
        name: what the client calls it.
        expires_at: when it is forgotten, unless bytes arrive.
        file_id: the stored file, once it is whole.
    """

    model_config = ConfigDict(frozen=True)

    length: int
    name: str | None = None
    expires_at: datetime
    file_id: str | None = None


class Resumable:
    """One tenant's unfinished uploads, beside its files."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._folder = blobs.uploads

    def create(self, length: int, name: str | None) -> str:
        """Begin an upload of `length` bytes; return its id."""
        upload_id = new_id(PREFIX)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        os.close(os.open(self._path(upload_id, PARTIAL), flags, 0o600))
        note = Note(length=length, name=name, expires_at=datetime.now(UTC) + LIFETIME)
        put_new(self._path(upload_id, NOTE), note.model_dump_json().encode())
        return upload_id

    def note(self, upload_id: str) -> Note:
        """Return what is known of an upload.

        Raises:
            NotFound: there is none, or it was terminated.
            UploadExpired: nothing came for too long.
        """
        try:
            raw = self._path(upload_id, NOTE).read_bytes()
        except FileNotFoundError:
            raise _unknown(upload_id) from None
        note = Note.model_validate_json(raw)
        if note.expires_at < datetime.now(UTC):
            raise UploadExpired(f"the upload {upload_id} ended unfinished; begin a new one")
        return note

    def offset(self, upload_id: str) -> int:
        """Return how many bytes have arrived; raises as `note`."""
        note = self.note(upload_id)
        if note.file_id is not None:
            return note.length
        try:
            return self._path(upload_id, PARTIAL).stat().st_size
        except FileNotFoundError:
            raise _unknown(upload_id) from None

    @contextmanager
    def writing(self, upload_id: str) -> Iterator[int]:
        """Hold an upload for writing; yields a descriptor at its end.

        Raises:
            NotFound, UploadExpired: as `note`.
            UploadLocked: somebody else is writing.
        """
        self.note(upload_id)
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(self._path(upload_id, PARTIAL), flags)
        except FileNotFoundError:
            raise _unknown(upload_id) from None
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UploadLocked(
                    f"another request is sending bytes of {upload_id}; wait for its end"
                ) from None
            yield fd
        finally:
            os.close(fd)

    def refresh(self, upload_id: str) -> Note:
        """Let an upload live for `LIFETIME` from now on."""
        note = self.note(upload_id).model_copy(update={"expires_at": datetime.now(UTC) + LIFETIME})
        replace_file(self._path(upload_id, NOTE), note.model_dump_json().encode())
        return note

    def finish(self, upload_id: str, fd: int) -> str:
        """Make a whole upload a file of the store; return the file id.

        Args:
            upload_id: all its bytes have arrived.
            fd: as `writing` yielded it.
        """
        note = self.note(upload_id)
        path = self._path(upload_id, PARTIAL)
        upload = Upload(path, os.dup(fd))
        file_id = self._blobs.keep(upload, _sha256(fd), note.length, note.name)
        done = note.model_copy(update={"file_id": file_id})
        replace_file(self._path(upload_id, NOTE), done.model_dump_json().encode())
        return file_id

    def terminate(self, upload_id: str) -> None:
        """Forget an upload; a file that it became stays. Raises as `note`."""
        self.note(upload_id)
        for kind in (PARTIAL, NOTE):
            self._path(upload_id, kind).unlink(missing_ok=True)

    def expired(self) -> Iterator[Path]:
        """Yield what is left of uploads that nobody went on with."""
        now = datetime.now(UTC)
        for path in self._folder.glob(f"*{NOTE}"):
            with suppress(FileNotFoundError, ValueError):
                if Note.model_validate_json(path.read_bytes()).expires_at < now:
                    yield path.with_suffix(PARTIAL)
                    yield path

    def _path(self, upload_id: str, kind: str) -> Path:
        if not _ID.match(upload_id):
            raise _unknown(upload_id)
        return self._folder / f"{upload_id}{kind}"


def _unknown(upload_id: str) -> NotFound:
    return NotFound(f"there is no upload {upload_id[:100]!r}")


def _sha256(fd: int) -> str:
    """Return the digest of a whole file; bytes of earlier connections are read again."""
    digest, offset = hashlib.sha256(), 0
    while piece := os.pread(fd, _PIECE, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()
