"""Sends a large file in pieces that count one by one (tus 1.0), over connections that break.

Each piece carries its sha256, so what the server keeps of a broken connection is right. The size of
the pieces follows the line: it doubles while they arrive and shrinks when they do not. The address
of an unfinished upload is remembered, so another process goes on where this one ended.
"""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from planish.client.exchange import FileBody, Flow, Reply, Request, send, sleep, work
from planish.client.failures import check, error_of
from planish.client.remember import Memory
from planish.client.retry import RETRY_STATUS, answered, pause, retry_after
from planish.client.transfer import OnTransfer, Transfer
from planish.contract.errors import (
    ChecksumMismatch,
    DigestMismatch,
    NotFound,
    OffsetMismatch,
    PlanishError,
    ServerUnreachable,
    Unavailable,
    UploadExpired,
    UploadLocked,
)

LEAST_PIECE = 256 << 10
FIRST_PIECE = 4 << 20
LARGEST_PIECE = 64 << 20
PATIENCE_SECONDS = 120.0  # how long nothing at all may arrive before this gives up
READ_BYTES = 1 << 20
MAX_NAME = 255
FILE_ID = "upload-file-id"
TUS = {"Tus-Resumable": "1.0.0"}
_UPLOADS = "/uploads"
_PASSING = (ServerUnreachable, Unavailable, OffsetMismatch, UploadLocked, ChecksumMismatch)


@dataclass(frozen=True)
class Whole:
    """The file that is to arrive.

    Attributes:
        path: where it lies.
        file_id: ``sha256:<hex>`` of its content.
        size: in bytes.
    """

    path: Path
    file_id: str
    size: int


class _Pace:
    """How large the next piece is, and how long nothing has arrived."""

    def __init__(self) -> None:
        self.piece = FIRST_PIECE
        self.failures = 0
        self._since = time.monotonic()

    def arrived(self) -> None:
        """Note a piece that came through."""
        self.piece = min(self.piece * 2, LARGEST_PIECE)

    def moved(self) -> None:
        """Note that the upload is further than it was."""
        self.failures = 0
        self._since = time.monotonic()

    def failed(self, error: PlanishError) -> float:
        """Return seconds to wait after a failure; raise `error` when it has been too long."""
        self.piece = max(self.piece // 4, LEAST_PIECE)
        self.failures += 1
        if time.monotonic() - self._since > PATIENCE_SECONDS:
            raise error
        return pause(self.failures)


def send_in_pieces(whole: Whole, memory: Memory, progress: OnTransfer) -> Flow[None]:
    """Upload a file whose content the server does not have.

    Raises:
        NotFound, UploadExpired: the upload that was begun is forgotten; another call begins anew.
        DigestMismatch: the file changed while it was sent.
        ServerUnreachable: nothing arrived for two minutes; another call goes on from there.
    """
    location = yield from work(lambda: memory.recall(whole.file_id))
    if location is None:
        location = yield from _begin(whole)
    place = location
    yield from work(lambda: memory.note(whole.file_id, place))
    try:
        found = yield from _fill(place, whole, progress)
    except (NotFound, UploadExpired):
        yield from work(lambda: memory.forget(whole.file_id))
        raise
    yield from work(lambda: memory.forget(whole.file_id))
    if found != whole.file_id:
        raise DigestMismatch(
            f"{whole.path.name} arrived as {found}, but was {whole.file_id} when it was read; "
            "it changed while it was sent, so send it again"
        )


def _begin(whole: Whole) -> Flow[str]:
    name = base64.b64encode(whole.path.name[-MAX_NAME:].encode()).decode()
    headers = {**TUS, "Upload-Length": str(whole.size), "Upload-Metadata": f"filename {name}"}
    reply = yield from answered(Request("POST", _UPLOADS, headers=headers))
    location: str = reply.headers.get("location", "")
    if not location.startswith(f"{_UPLOADS}/"):
        raise ServerUnreachable(f"POST {_UPLOADS} named no upload; is this a Planish server?")
    return location


def _fill(location: str, whole: Whole, progress: OnTransfer) -> Flow[str]:
    """Send pieces until the server names the file; after a failure ask where it stands."""
    pace, offset, file_id, sure = _Pace(), 0, "", False
    while not file_id:
        before = offset
        try:
            if sure:
                offset, file_id = yield from _piece(location, whole, offset, pace.piece, progress)
                pace.arrived()
            else:
                offset, file_id = yield from _standing(location)
                progress(Transfer(whole.path.name, "upload", offset, whole.size))
                sure = True
            if offset > before:
                pace.moved()
        except _PASSING as error:
            sure = False
            yield from sleep(pace.failed(error))
    return file_id


def _standing(location: str) -> Flow[tuple[int, str]]:
    """Ask how much has arrived, and for the file's id where all has."""
    reply = yield from _asked(Request("HEAD", location, headers=TUS))
    return _offset(reply), reply.headers.get(FILE_ID, "")


def _piece(
    location: str, whole: Whole, offset: int, size: int, progress: OnTransfer
) -> Flow[tuple[int, str]]:
    """Send bytes from `offset` on; an empty piece asks for the end of a whole upload."""
    size = min(size, whole.size - offset)
    digest = yield from work(lambda: _sha256(whole.path, offset, size))

    def report(sent: int) -> None:
        progress(Transfer(whole.path.name, "upload", offset + sent, whole.size))

    headers = {
        **TUS,
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(size),
        "Upload-Offset": str(offset),
        "Upload-Checksum": f"sha256 {base64.b64encode(digest).decode()}",
    }
    body = FileBody(whole.path, size, report, offset)
    reply = yield from _asked(Request("PATCH", location, headers=headers, body=body))
    file_id = reply.headers.get(FILE_ID, "")
    if not (size or file_id):
        raise ServerUnreachable(f"{location} is whole, but the answer names no {FILE_ID}")
    return _offset(reply), file_id


def _asked(request: Request) -> Flow[Reply]:
    """Send once; raises the contract's errors, after the pause that the server asks for."""
    reply = yield from send(request)
    if reply.status in RETRY_STATUS:
        yield from sleep(retry_after(reply) or 0.0)
        error = error_of(request, reply)
        raise Unavailable(error.detail)
    if reply.status == HTTPStatus.GONE:
        raise UploadExpired("the upload has expired")
    return check(request, reply)


def _offset(reply: Reply) -> int:
    text = reply.headers.get("upload-offset", "")
    if not text.isdigit():
        raise ServerUnreachable("the answer names no Upload-Offset; is this a Planish server?")
    return int(text)


def _sha256(path: Path, offset: int, size: int) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while size and (piece := file.read(min(READ_BYTES, size))):
            digest.update(piece)
            size -= len(piece)
    if size:
        raise DigestMismatch(f"{path} became shorter while it was sent")
    return digest.digest()
