"""``/jobs``: submit, list, show, cancel, delete."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import StringConstraints
from starlette.responses import Response

from planish.contract.errors import (
    AlreadyTerminal,
    NotTerminal,
    Unavailable,
)
from planish.contract.job import Job, JobPage, JobStatus
from planish.contract.wire import MAX_IDEMPOTENCY_KEY, PREFIX_JOB, ULID_ALPHABET
from planish.store.commit import cancelled, commit
from service.conditional import conditional_json, etag_of, matches
from service.desk import Desk, desk_of
from service.documents import check_job_id, document
from service.negotiate import wait_seconds
from service.openapi import problems, submission_body
from service.principal import principal_of
from service.shown import document_from_files, unknown_job
from service.submission import accept, idempotency_key, receive_spec

router = APIRouter(tags=["jobs"])

JSON = "application/json"
KEY_PATTERN = rf"^[ -~]{{1,{MAX_IDEMPOTENCY_KEY}}}$"
_JOB_ID = rf"^{PREFIX_JOB}[{ULID_ALPHABET}]{{26}}$"
_LABEL = Annotated[str, StringConstraints(pattern=r"^[^=]{1,128}=[^=]{1,128}$")]


@router.post(
    "/jobs",
    status_code=202,
    responses={
        202: {"model": Job, "description": "Accepted; `Location` is the job."},
        **problems(400, 413, 415, 422, 507),
    },
    openapi_extra=submission_body(),
)
async def submit_job(
    request: Request,
    idempotency_key_header: Annotated[
        str | None,
        Header(alias="Idempotency-Key", json_schema_extra={"pattern": KEY_PATTERN}),
    ] = None,
) -> Response:
    """Submit a job: `multipart/form-data` with the files, or JSON with file ids.

    The parts come in any order. `Repr-Digest` or `Content-Digest` (`sha-256`), on the request and
    on each part, are checked. With an `Idempotency-Key`, the same request again gives the same job.
    """
    desk = desk_of(request)
    key = idempotency_key(request)
    spec = await receive_spec(desk, request)
    job_id = await asyncio.to_thread(accept, desk, spec, principal_of(request).tenant, "job", key)
    return await _accepted(desk, job_id)


@router.get("/jobs", responses={200: {"model": JobPage}, **problems(400)})
async def list_jobs(
    request: Request,
    status: Annotated[JobStatus | None, Query(description="Only jobs in this state.")] = None,
    label: Annotated[
        list[_LABEL] | None,
        Query(description="`key=value`; repeat it to ask for several.", max_length=16),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[
        str | None, Query(pattern=_JOB_ID, description="`next` of the page before.")
    ] = None,
) -> Response:
    """List jobs, newest first."""
    ledger = desk_of(request).ledger
    documents, following = await asyncio.to_thread(
        ledger.page,
        status,
        tuple(label or ()),
        limit,
        after,
        principal_of(request).tenant,
    )
    end = b'"%s"' % following.encode() if following else b"null"
    page = b'{"items":[%s],"next":%s}' % (b",".join(documents), end)
    return Response(page, media_type=JSON)


@router.get(
    "/jobs/{job_id}",
    responses={
        200: {"model": Job},
        304: {"description": "The client's copy (`If-None-Match`) is current."},
        **problems(404),
    },
)
async def show_job(
    request: Request,
    job_id: str,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N`: answer when the job changes, at most N seconds (60)."),
    ] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Show a job. With `Prefer: wait=N` the answer comes when it differs from the client's copy."""
    desk = desk_of(request)
    seconds = wait_seconds(prefer)
    if seconds is None:
        return conditional_json(await document(desk, job_id), if_none_match, {})
    body = await _changed(desk, check_job_id(job_id), if_none_match, seconds)
    return conditional_json(body, if_none_match, {"preference-applied": f"wait={seconds}"})


@router.post(
    "/jobs/{job_id}/cancel", status_code=202, responses={202: {"model": Job}, **problems(404, 409)}
)
async def cancel_job(request: Request, job_id: str) -> Response:
    """Cancel a job. A running one stops within seconds; who ends it first decides how it ended."""
    desk = desk_of(request)
    await asyncio.to_thread(cancel, desk, check_job_id(job_id))
    return await _accepted(desk, job_id)


@router.delete("/jobs/{job_id}", status_code=204, responses=problems(404, 409))
async def delete_job(request: Request, job_id: str) -> Response:
    """Forget a finished job and its artifacts. Uploaded files stay; see `DELETE /files`."""
    await asyncio.to_thread(forget, desk_of(request), check_job_id(job_id))
    return Response(status_code=204)


def cancel(desk: Desk, job_id: str) -> None:
    """Cancel a job or plan, in a thread.

    Raises:
        AlreadyTerminal, NotFound: there is nothing to cancel.
        Unavailable: the ledger is being rebuilt.
    """
    state = desk.ledger.request_cancel(job_id)
    if state == "queued":
        commit(desk.files, desk.ledger, cancelled(job_id, desk.ledger.now()))
    elif state == "terminal":
        raise AlreadyTerminal("the job is finished; there is nothing to cancel")
    elif state == "unknown":
        if desk.files.spec(job_id) is None:
            raise unknown_job(job_id)
        raise Unavailable("the job is not in the ledger yet; try again")


def forget(desk: Desk, job_id: str) -> None:
    """Delete a terminal job or plan, in a thread.

    The ledger goes first: a crash in between leaves a job that recovery shows again.

    Raises:
        NotTerminal: it is alive.
        NotFound: there is none.
    """
    state = desk.ledger.delete(job_id)
    if state == "unknown" and desk.files.spec(job_id) is None:
        raise unknown_job(job_id)
    if state == "alive" or (state == "unknown" and desk.files.outcome(job_id) is None):
        raise NotTerminal(
            "the job is still alive; cancel it first, and delete it when it is finished"
        )
    desk.files.delete(job_id)


async def _accepted(desk: Desk, job_id: str) -> Response:
    """Return 202 with the job as it is now; when Redis is away, as its files show it."""
    try:
        body = await document(desk, job_id)
    except ConnectionError:
        body = await asyncio.to_thread(document_from_files, desk.files, job_id)
    return Response(body, 202, headers={"location": f"/jobs/{job_id}"}, media_type=JSON)


async def _changed(desk: Desk, job_id: str, if_none_match: str | None, seconds: int) -> bytes:
    """Return the document as soon as it is another than the client's, or after `seconds`."""
    found = await desk.pipe.snapshot(job_id)
    if found is None:
        return await document(desk, job_id)
    body, last = found
    known = if_none_match.encode("latin-1") if if_none_match else etag_of(body)
    terminal = Job.model_validate_json(body).terminal
    if terminal or not matches(known, etag_of(body)):
        return body
    try:
        async with asyncio.timeout(seconds):
            async for frames in desk.hub.follow(job_id, last):
                body = await document(desk, job_id)
                if frames and not matches(known, etag_of(body)):
                    return body
    except TimeoutError:
        body = await document(desk, job_id)
    return body
