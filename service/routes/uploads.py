"""``/uploads``: files of any size over connections that break (tus 1.0)."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive

from planish.contract.errors import (
    ChecksumMismatch,
    OffsetMismatch,
    UnsupportedMedia,
)
from planish.store.resumable import Resumable
from service import tus
from service.desk import Desk, desk_of
from service.openapi import body, problems, sent_headers
from service.upload import Buffer, begun, write_body

router = APIRouter(tags=["uploads"])

TUS = r"^1\.0\.0$"
METADATA = r"^(filename|name) ([A-Za-z0-9+/]{4}){1,40}$"
BYTES = {"schema": {"type": "string", "format": "binary"}}


@router.options("/uploads", status_code=204)
async def tus_options(request: Request) -> Response:
    """Say what the server can do of tus."""
    limit = desk_of(request).settings.max_upload_bytes
    headers = {
        **tus.RESUMABLE,
        "tus-version": tus.VERSION,
        "tus-extension": tus.EXTENSIONS,
        "tus-max-size": str(limit),
        "tus-checksum-algorithm": ",".join(tus.ALGORITHMS),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "/uploads",
    status_code=201,
    response_class=Response,
    responses=problems(400, 412, 413, 507),
    openapi_extra=sent_headers(
        Tus_Resumable=TUS, Upload_Length=r"^[1-9][0-9]{0,9}$", Upload_Metadata_=METADATA
    ),
)
async def create_upload(request: Request) -> Response:
    """Begin an upload: `Upload-Length`, and `filename` in `Upload-Metadata`; `Location` is it."""
    tus.check_version(request.headers)
    desk = desk_of(request)
    length = tus.upload_length(request.headers, desk.settings.max_upload_bytes)
    name = tus.file_name(request.headers)
    await asyncio.to_thread(desk.count_upload, request, length)
    uploads = Resumable(desk.blobs_of(request))
    upload_id = await asyncio.to_thread(uploads.create, length, name)
    note = uploads.note(upload_id)
    headers = {
        **tus.RESUMABLE,
        "location": f"/uploads/{upload_id}",
        "upload-expires": tus.expires(note.expires_at),
    }
    return Response(status_code=201, headers=headers)


@router.head(
    "/uploads/{upload_id}",
    response_class=Response,
    responses=problems(404, 410, 412),
    openapi_extra=sent_headers(Tus_Resumable=TUS),
)
async def show_upload(request: Request, upload_id: str) -> Response:
    """Say how many bytes have arrived; when all have, `Upload-File-Id` is the file."""
    tus.check_version(request.headers)
    uploads = Resumable(desk_of(request).blobs_of(request))
    note = await asyncio.to_thread(uploads.note, upload_id)
    headers = {
        **tus.RESUMABLE,
        "upload-offset": str(uploads.offset(upload_id)),
        "upload-length": str(note.length),
        "upload-expires": tus.expires(note.expires_at),
        "cache-control": "no-store",
    }
    if note.file_id is not None:
        headers[tus.FILE_ID] = note.file_id
    return Response(headers=headers)


@router.patch(
    "/uploads/{upload_id}",
    status_code=204,
    responses=problems(400, 404, 409, 410, 412, 413, 415, 423, 460, 507),
    openapi_extra={
        **body({tus.OFFSET_TYPE: BYTES}),
        **sent_headers(
            Tus_Resumable=TUS,
            Upload_Offset=r"^[0-9]{1,10}$",
            Upload_Checksum_=r"^sha(1|256) [A-Za-z0-9+/]+={0,2}$",
        ),
    },
)
async def continue_upload(request: Request, upload_id: str) -> Response:
    """Send bytes from `Upload-Offset` on. What arrived before a broken connection counts.

    With `Upload-Checksum`, the bytes of a request count only when all of them came and match.
    """
    tus.check_version(request.headers)
    kind = request.headers.get("content-type", "")
    if kind != tus.OFFSET_TYPE:
        raise UnsupportedMedia(f"Content-Type must be {tus.OFFSET_TYPE}, not {kind[:100]!r}")
    desk = desk_of(request)
    uploads = Resumable(desk.blobs_of(request))
    receive = await begun(request.receive)
    async with desk.upload_slot():
        headers = await _receive(desk, uploads, request, receive, upload_id)
    return Response(status_code=204, headers={**tus.RESUMABLE, **headers})


@router.delete(
    "/uploads/{upload_id}",
    status_code=204,
    responses=problems(404, 410, 412),
    openapi_extra=sent_headers(Tus_Resumable=TUS),
)
async def end_upload(request: Request, upload_id: str) -> Response:
    """Forget an unfinished upload. A file that it became stays."""
    tus.check_version(request.headers)
    uploads = Resumable(desk_of(request).blobs_of(request))
    await asyncio.to_thread(uploads.terminate, upload_id)
    return Response(status_code=204, headers=tus.RESUMABLE)


async def _receive(
    desk: Desk, uploads: Resumable, request: Request, receive: Receive, upload_id: str
) -> dict[str, str]:
    """Append a body to an upload; return the headers that say where it stands."""
    claimed = tus.whole_number(request.headers, "upload-offset")
    stated = tus.checksum(request.headers)
    with ExitStack() as stack:
        fd = await asyncio.to_thread(stack.enter_context, uploads.writing(upload_id))
        note, offset = uploads.note(upload_id), os.fstat(fd).st_size
        if claimed != offset:
            raise OffsetMismatch(f"{offset} bytes have arrived; go on from there, not {claimed}")
        sink = _Appender(fd, stated)
        try:
            await write_body(receive, note.length - offset, sink, desk.upload_pool)
        except BaseException:
            sink.undo_unless_kept(offset)
            raise
        if not sink.matches:
            sink.undo_unless_kept(offset)
            raise ChecksumMismatch("the bytes do not match Upload-Checksum; send them again")
        desk.metrics.upload_bytes += sink.size
        return await asyncio.to_thread(_after, uploads, upload_id, fd)


def _after(uploads: Resumable, upload_id: str, fd: int) -> dict[str, str]:
    note, offset = uploads.refresh(upload_id), os.fstat(fd).st_size
    headers = {"upload-offset": str(offset), "upload-expires": tus.expires(note.expires_at)}
    if offset == note.length:
        headers[tus.FILE_ID] = uploads.finish(upload_id, fd)
    return headers


class _Appender:
    """Writes to the end of a file; with a checksum the bytes count all together or not at all."""

    def __init__(self, fd: int, stated: tus.Checksum | None) -> None:
        self._fd, self._stated = fd, stated
        self._hash = None if stated is None else stated.new()
        self.size = 0

    def write(self, data: Buffer) -> None:
        """Append `data`; raises OSError when the disk is full."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self.size += len(data)
        if self._hash is not None:
            self._hash.update(data)

    @property
    def matches(self) -> bool:
        """Whether the bytes are what the checksum says; True without one."""
        return self._stated is None or (
            self._hash is not None and self._hash.digest() == self._stated.digest
        )

    def undo_unless_kept(self, offset: int) -> None:
        """Take back bytes that a checksum covers and that did not all come."""
        if self._stated is not None:
            os.ftruncate(self._fd, offset)
