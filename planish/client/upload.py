"""Sends a file unless the server has its content already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from planish.client.calls import fetch_file, has_file, send_file
from planish.client.exchange import FileBody, Flow, work
from planish.client.remember import Memory
from planish.client.resumable import Whole, send_in_pieces
from planish.client.retry import answered
from planish.client.sources import PREFIX, FileSource, Sources, check_file, is_id
from planish.client.transfer import OnTransfer, Transfer
from planish.contract.errors import NotFound, UploadExpired
from planish.contract.job import FileInfo
from planish.contract.spec import Files
from planish.contract.storage import is_storage_url

HASH_BYTES = 64 << 20
READ_BYTES = 1 << 20
RESUMABLE_BYTES = 64 << 20


@dataclass(frozen=True)
class Uploading:
    """How files are sent.

    Attributes:
        memory: of unfinished uploads.
        progress: told how far each file is.
        resumable_bytes: files of this size or more go in pieces that survive broken connections
            and restarts; smaller ones in one request.
    """

    memory: Memory
    progress: OnTransfer
    resumable_bytes: int = RESUMABLE_BYTES


def upload_all(sources: Sources, how: Uploading) -> Flow[Files]:
    """Upload what is not on the server yet; return the ids.

    Raises:
        MissingPart: a path is no readable file; said before anything is sent.
    """
    ids: dict[str, str | list[dict[str, str]]] = {}
    for role, source in sources.given().items():
        if isinstance(source, Mapping):
            named: list[dict[str, str]] = []
            for name, file in source.items():
                file_id = yield from _id_of(file, how)
                named.append({"id": file_id, "name": name})
            ids[role] = named
        else:
            ids[role] = yield from _id_of(source, how)
    return Files.model_validate(ids)


def _id_of(source: FileSource, how: Uploading) -> Flow[str]:
    if is_id(source):
        return str(source)
    return (yield from upload(source, how)).id


def upload(source: FileSource, how: Uploading) -> Flow[FileInfo]:
    """Hash a file, ask for it, send it when the server does not have it.

    A storage URL is fetched by the server.

    Raises:
        MissingPart: the path is no readable file, or the file is empty.
        DigestMismatch: the file changed between hashing and sending.
    """
    if is_storage_url(source):
        return (yield from fetch_file(str(source)).run())
    path, progress = Path(source), how.progress
    check_file("file", path)
    sha256, size = yield from _sha256_of(path, progress)
    file_id = PREFIX + sha256
    if (yield from _is_there(file_id)):
        progress(Transfer(path.name, "present", size, size))
        return FileInfo(id=file_id, size=size, name=path.name)
    if size >= how.resumable_bytes:
        yield from _in_pieces(Whole(path, file_id, size), how)
        return FileInfo(id=file_id, size=size, name=path.name)

    def report(done: int) -> None:
        progress(Transfer(path.name, "upload", done, size))

    return (yield from send_file(path.name, sha256, FileBody(path, size, report)).run())


def _in_pieces(whole: Whole, how: Uploading) -> Flow[None]:
    """Send a large file; when its upload is forgotten meanwhile, once more from the start."""
    try:
        yield from send_in_pieces(whole, how.memory, how.progress)
    except (NotFound, UploadExpired):
        if not (yield from _is_there(whole.file_id)):
            yield from send_in_pieces(whole, how.memory, how.progress)


def _is_there(file_id: str) -> Flow[bool]:
    request = has_file(file_id)
    try:
        yield from answered(request)
    except NotFound:
        return False
    return True


def _sha256_of(path: Path, progress: OnTransfer) -> Flow[tuple[str, int]]:
    """Read the file in large steps, so that an event loop gets its turn and bars move."""
    file = yield from work(lambda: path.open("rb"))
    total = os.fstat(file.fileno()).st_size
    digest, done = hashlib.sha256(), 0
    with file:
        while True:
            count = yield from work(lambda: _hash_some(file, digest))
            if not count:
                return digest.hexdigest(), done
            done += count
            progress(Transfer(path.name, "hash", done, max(total, done)))


def _hash_some(file: BinaryIO, digest: hashlib._Hash) -> int:
    count = 0
    while count < HASH_BYTES and (piece := file.read(READ_BYTES)):
        digest.update(piece)
        count += len(piece)
    return count
