"""Uploaded files by content: the same bytes are kept once, under their sha256."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from planish.contract.errors import InvalidParameter, NotFound
from planish.contract.job import FileInfo, FilePage
from planish.contract.spec import FILE_ID_PATTERN
from planish.contract.wire import DEFAULT_TENANT
from planish.store.durable import TEMPORARY, make_private, sync_folder
from planish.store.ids import new_ulid

_FILE_ID = re.compile(FILE_ID_PATTERN)
_SHA256 = "sha256"
MAX_NAME = 255
TENANTS = "tenants"


@dataclass
class Upload:
    """A file on its way in: `fd` is open for reading and writing until `close`."""

    path: Path
    fd: int

    def reopen(self) -> None:
        """Open the file again if it was closed."""
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Close `fd` once; a second call must not close what got its number meanwhile."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


class Blobs:
    """Content-addressed files below one folder.

    ``uploads/<ulid>.part`` while bytes arrive, ``blobs/sha256/ab/<hex>`` afterwards, with the
    client's name beside it in ``<hex>.json``. Clients never choose a path.

    Each tenant has a folder of its own, so the same content is kept once for each of them, and
    nobody can tell whether somebody else has a file. The default tenant's lies at the top.
    """

    def __init__(self, root: Path, tenant: str = DEFAULT_TENANT) -> None:
        if tenant != DEFAULT_TENANT:
            root = make_private(make_private(root / TENANTS) / tenant)
        self.uploads = make_private(root / "uploads")
        self._blobs = make_private(root / "blobs" / _SHA256)

    def new_upload(self) -> Upload:
        """Return a new private temporary file."""
        path = self.uploads / f"{new_ulid()}{TEMPORARY}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        return Upload(path, os.open(path, flags, 0o600))

    def abandon(self, upload: Upload) -> None:
        """Close and remove an upload; harmless when it is gone already."""
        upload.close()
        upload.path.unlink(missing_ok=True)

    def keep(self, upload: Upload, sha256: str, size: int, name: str | None = None) -> str:
        """Make a finished upload durable under its content's name; closes `upload.fd`.

        An upload that is closed already is opened again: fsync is about the file, not about who
        wrote it.

        Args:
            upload: all bytes are written.
            sha256: hex digest of the content, computed while it was written.
            size: number of bytes that arrived; checked against the file.
            name: what the client calls the file; only shown, never part of a path.

        Returns:
            The file id, ``sha256:<hex>``; that of the first file where the content is known.

        Raises:
            OSError: the disk is full or broken; the temporary file is gone.
        """
        file_id = f"{_SHA256}:{sha256}"
        target = self.path(file_id)
        try:
            upload.reopen()
            if os.fstat(upload.fd).st_size != size:
                raise OSError(f"the upload holds {os.fstat(upload.fd).st_size} bytes, not {size}")
            os.fsync(upload.fd)
            if not target.parent.is_dir():
                make_private(target.parent)
                sync_folder(self._blobs)
            if name:
                _write_note(target, name)
            with suppress(FileExistsError):
                os.link(upload.path, target)
            sync_folder(target.parent)
        finally:
            self.abandon(upload)
        return file_id

    def path(self, file_id: str) -> Path:
        """Return where a file lies, whether or not it exists.

        Raises:
            NotFound: not a file id.
        """
        if not _FILE_ID.match(file_id):
            raise NotFound(
                f"{file_id[:100]!r} is not a file id; they look like sha256:<64 hex digits>"
            )
        digest = file_id.removeprefix(f"{_SHA256}:")
        return self._blobs / digest[:2] / digest

    def size(self, file_id: str) -> int | None:
        """Return the size in bytes, None when there is no such file."""
        try:
            return self.path(file_id).stat().st_size
        except (FileNotFoundError, NotFound):
            return None

    def info(self, file_id: str) -> FileInfo | None:
        """Return what is known of a file, None when there is no such file."""
        try:
            path = self.path(file_id)
            stat = path.stat()
        except (FileNotFoundError, NotFound):
            return None
        created = datetime.fromtimestamp(stat.st_mtime_ns // 1_000_000 / 1000, UTC)
        return FileInfo(id=file_id, size=stat.st_size, name=_name(path), created_at=created)

    def delete(self, file_id: str) -> bool:
        """Remove a file; return whether it was there."""
        try:
            path = self.path(file_id)
            path.unlink()
        except (FileNotFoundError, NotFound):
            return False
        _note(path).unlink(missing_ok=True)
        sync_folder(path.parent)
        return True

    def list(self, limit: int = 50, after: str | None = None) -> FilePage:
        """Return a page of files, newest first.

        Args:
            limit: at most so many.
            after: file id of the last item of the page before.
        """
        entries = sorted(self._entries(), reverse=True)
        if after is not None:
            entries = _following(entries, after, self.info(after))
        infos = (self.info(f"{_SHA256}:{digest}") for _, digest in entries[:limit])
        items = tuple(info for info in infos if info is not None)
        more = len(entries) > limit and items
        return FilePage(items=items, next=items[-1].id if more else None)

    def stale_uploads(self, older_than: float) -> Iterator[Path]:
        """Yield temporary files last written before `older_than` (seconds since the epoch)."""
        for path in self.uploads.glob(f"*{TEMPORARY}"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < older_than:
                    yield path

    def _entries(self) -> Iterator[tuple[int, str]]:
        """Yield (time of upload in ns, hex digest) of all files."""
        for folder in os.scandir(self._blobs):
            for entry in os.scandir(folder.path):
                if len(entry.name) == 64:
                    with suppress(FileNotFoundError):
                        yield entry.stat().st_mtime_ns, entry.name


class TenantBlobs:
    """The files of all tenants below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Blobs] = {}

    def of(self, tenant: str) -> Blobs:
        """Return one tenant's files."""
        if tenant not in self._known:
            self._known[tenant] = Blobs(self._root, tenant)
        return self._known[tenant]

    def all(self) -> Iterator[Blobs]:
        """Yield every tenant's files."""
        folder = self._root / TENANTS
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        for tenant in (DEFAULT_TENANT, *names):
            yield self.of(tenant)

    def stale_uploads(self, older_than: float) -> Iterator[Path]:
        """Yield everybody's temporary files last written before `older_than`."""
        for blobs in self.all():
            yield from blobs.stale_uploads(older_than)


def _following(
    entries: list[tuple[int, str]], after: str, info: FileInfo | None
) -> list[tuple[int, str]]:
    digest = after.removeprefix(f"{_SHA256}:")
    place = next((i for i, (_, name) in enumerate(entries) if name == digest), None)
    if place is None or info is None:
        raise InvalidParameter(f"after: there is no file {after[:100]!r}; start a new listing")
    return entries[place + 1 :]


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write_note(path: Path, name: str) -> None:
    """Note the client's name, the first one for this content; not worth an fsync."""
    with suppress(FileExistsError), _note(path).open("x") as file:
        json.dump({"name": name[:MAX_NAME]}, file)


def _name(path: Path) -> str | None:
    try:
        name = json.loads(_note(path).read_bytes())["name"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return name if isinstance(name, str) else None
