"""``/files``: uploads by content, to be named in job specs."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from planish.contract.errors import (
    DigestMismatch,
    FileInUse,
    InvalidParameter,
    MissingPart,
    NotFound,
    UnsupportedMedia,
)
from planish.contract.job import FileInfo, FilePage
from planish.contract.spec import FILE_ID_PATTERN
from planish.contract.storage import storage_url
from planish.store.blobs import Blobs
from service.desk import Desk, desk_of
from service.digest import check_digests, stated_digests
from service.download import Content, Download
from service.negotiate import choose
from service.openapi import body, content, problems
from service.principal import principal_of
from service.upload import FileSink, begun, check_length, small_body, write_body

router = APIRouter(tags=["files"])

JSON, BYTES = "application/json", "application/octet-stream"


@router.post(
    "/files",
    status_code=201,
    responses={
        200: {"model": FileInfo, "description": "This content was here already."},
        201: {"model": FileInfo, "description": "Stored; `Location` is the file."},
        **problems(400, 413, 415, 422, 507),
    },
    openapi_extra=body({BYTES: {"schema": {"type": "string", "format": "binary"}}}),
)
async def upload_file(
    request: Request,
    name: Annotated[
        str | None, Query(max_length=255, description="What the client calls it.")
    ] = None,
    repr_digest: Annotated[
        str | None, Header(description="`sha-256=:<base64>:`; is checked.")
    ] = None,
    content_digest: Annotated[str | None, Header(description="As `Repr-Digest`.")] = None,
    x_content_sha256: Annotated[str | None, Header(description="The same in hex.")] = None,
    url: Annotated[
        str | None,
        Query(max_length=1024, description="Instead of a body: s3://bucket/key, where allowed."),
    ] = None,
) -> Response:
    """Upload a file as the raw body. The same content always has the same id."""
    desk = desk_of(request)
    if url is None:
        info, fresh = await _receive(desk, request, name)
    else:
        info, fresh = await _fetch(desk, request, url), True
    headers = {"location": f"/files/{info.id}"}
    return Response(info.model_dump_json(), 201 if fresh else 200, headers, JSON)


@router.get("/files", responses={200: {"model": FilePage}, **problems(400)})
async def list_files(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[
        str | None, Query(pattern=FILE_ID_PATTERN, description="`next` of the page before.")
    ] = None,
) -> Response:
    """List uploaded files, newest first."""
    page = await asyncio.to_thread(desk_of(request).blobs_of(request).list, limit, after)
    return Response(page.model_dump_json(), media_type=JSON)


_FILE = {
    200: {
        "model": FileInfo,
        "description": "What is known of the file, or its bytes, by `Accept`.",
        "content": content("", BYTES)["content"],
    },
    206: content("The asked range of the bytes.", BYTES),
    304: {"description": "The client's copy of the bytes is current."},
    **problems(404, 416),
}


@router.get("/files/{file_id}", responses=_FILE)
@router.head("/files/{file_id}", responses=_FILE)
async def show_file(
    request: Request, file_id: str, accept: Annotated[str | None, Header()] = None
) -> Response:
    """Show a file's size, name and date; with `Accept: application/octet-stream` download it."""
    blobs = desk_of(request).blobs_of(request)
    info = await asyncio.to_thread(blobs.info, file_id)
    if info is None:
        raise _unknown(file_id)
    if choose(accept, (JSON, BYTES)) == JSON:
        return Response(info.model_dump_json(), headers={"vary": "Accept"}, media_type=JSON)
    digest = info.id.removeprefix("sha256:")
    response = Download(Content(blobs.path(file_id), info.name or digest, info.size, digest, BYTES))
    response.headers["vary"] = "Accept"
    return response


@router.delete("/files/{file_id}", status_code=204, responses=problems(404, 409))
async def delete_file(request: Request, file_id: str) -> Response:
    """Delete a file that no live job needs."""
    await asyncio.to_thread(_delete, desk_of(request), principal_of(request).tenant, file_id)
    return Response(status_code=204)


async def _receive(desk: Desk, request: Request, name: str | None) -> tuple[FileInfo, bool]:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("Content-Encoding is not taken; send the bytes as they are")
    limit = desk.settings.max_upload_bytes
    check_length(request.headers.get("content-length"), limit)
    stated = stated_digests(request.headers)
    blobs = desk.blobs_of(request)
    receive = await begun(request.receive)
    async with desk.upload_slot():
        sink = FileSink(await asyncio.to_thread(blobs.new_upload))
        try:
            await write_body(receive, limit, sink, desk.upload_pool)
            desk.metrics.upload_bytes += sink.size
            if sink.size == 0:
                raise MissingPart("the body is empty; send the file's bytes as the body")
            check_digests(stated, sink.sha256, "the body")
            await asyncio.to_thread(desk.count_upload, request, sink.size)
            return await asyncio.to_thread(_keep, blobs, sink, name)
        finally:
            blobs.abandon(sink.upload)


async def _fetch(desk: Desk, request: Request, url: str) -> FileInfo:
    if await small_body(request.receive, 1):
        raise InvalidParameter("url: send either a body or a URL, not both")
    digests = set(stated_digests(request.headers).values())
    if len(digests) > 1:
        raise DigestMismatch("the digest headers state different digests")
    wanted = storage_url({"url": url, "sha256": next(iter(digests), None)})
    file_id = await desk.fetch(request, wanted)
    info = await asyncio.to_thread(desk.blobs_of(request).info, file_id)
    if info is None:
        raise _unknown(file_id)
    return info


def _keep(blobs: Blobs, sink: FileSink, name: str | None) -> tuple[FileInfo, bool]:
    fresh = blobs.size(f"sha256:{sink.sha256}") is None
    file_id = blobs.keep(sink.upload, sink.sha256, sink.size, name)
    info = blobs.info(file_id)
    return info or FileInfo(id=file_id, size=sink.size, name=name), fresh


def _delete(desk: Desk, tenant: str, file_id: str) -> None:
    blobs = desk.blobs.of(tenant)
    if blobs.size(file_id) is None:
        raise _unknown(file_id)
    if desk.ledger.file_in_use(file_id, tenant):
        raise FileInUse("a live job reads this file; delete it when the job is finished")
    blobs.delete(file_id)


def _unknown(file_id: str) -> NotFound:
    return NotFound(f"there is no file {file_id[:100]!r}")
