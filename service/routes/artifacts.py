"""``/jobs/{id}/report``, ``/artifacts`` and ``/model``: what a succeeded job made."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from planish.contract.errors import InternalError, NotFinished, NotFound
from planish.contract.job import Artifact, Job, Result
from planish.contract.report import Report
from planish.contract.wire import REPORT_HTML, REPORT_JSON
from service.desk import Desk, desk_of
from service.documents import job_of
from service.download import Content, Download
from service.negotiate import choose
from service.openapi import content, problems

router = APIRouter(tags=["results"])

JSON, HTML = "application/json", "text/html"
ANY_TYPE = "*/*"
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "sandbox allow-scripts"
)


class ArtifactList(BaseModel):
    """What a job made."""

    items: tuple[Artifact, ...]


@router.get(
    "/jobs/{job_id}/report",
    responses={
        200: {
            "model": Report,
            "description": "The evidence, as data or as a page.",
            "content": {HTML: {"schema": {"type": "string"}}},
        },
        304: {"description": "The client's copy is current."},
        **problems(404, 409),
    },
)
async def job_report(
    request: Request, job_id: str, accept: Annotated[str | None, Header()] = None
) -> Response:
    """Read the report: `Accept: application/json` or `text/html`."""
    desk = desk_of(request)
    job = await job_of(desk, job_id)
    name = REPORT_JSON if choose(accept, (JSON, HTML)) == JSON else REPORT_HTML
    response = Download(await _content(desk, job, name), "inline")
    response.headers["vary"] = "Accept"
    if name == REPORT_HTML:
        response.headers["content-security-policy"] = REPORT_POLICY
    return response


@router.get(
    "/jobs/{job_id}/artifacts", responses={200: {"model": ArtifactList}, **problems(404, 409)}
)
async def list_artifacts(request: Request, job_id: str) -> Response:
    """List the files that the job made."""
    result = _result(await job_of(desk_of(request), job_id))
    return Response(ArtifactList(items=result.artifacts).model_dump_json(), media_type=JSON)


_BYTES = {
    200: content(
        "The file in the type that the list names; `ETag` is its sha256.", ANY_TYPE, schema={}
    ),
    206: content("The asked range.", ANY_TYPE, schema={}),
    304: {"description": "The client's copy is current."},
    **problems(404, 409, 416),
}


@router.get("/jobs/{job_id}/artifacts/{name}", response_class=Response, responses=_BYTES)
@router.head("/jobs/{job_id}/artifacts/{name}", response_class=Response, responses=_BYTES)
async def read_artifact(request: Request, job_id: str, name: str) -> Response:
    """Download a file. Takes `Range`, `If-Range` and `If-None-Match`; sends `Repr-Digest`."""
    desk = desk_of(request)
    return Download(await _content(desk, await job_of(desk, job_id), name))


@router.get(
    "/jobs/{job_id}/model",
    status_code=307,
    response_class=RedirectResponse,
    responses={307: {"description": "`Location` is the main artifact."}, **problems(404, 409)},
)
async def job_model(request: Request, job_id: str) -> Response:
    """Go to the main artifact."""
    result = _result(await job_of(desk_of(request), job_id))
    return RedirectResponse(f"/jobs/{job_id}/artifacts/{result.model}", 307)


def _result(job: Job) -> Result:
    if job.result is None:
        raise NotFinished(
            f"the job is {job.status.value}; results exist only after success"
            if job.terminal
            else f"the job is {job.status.value}; wait until it has succeeded"
        )
    return job.result


def artifact_of(job: Job, name: str) -> Artifact:
    """Return an artifact by its listed name.

    Raises:
        NotFinished: the job has not succeeded.
        NotFound: no artifact has this name.
    """
    found = next((a for a in _result(job).artifacts if a.name == name), None)
    if found is None:
        raise NotFound(
            f"the job has no artifact {name[:100]!r}; GET /jobs/{job.id}/artifacts lists them"
        )
    return found


async def _content(desk: Desk, job: Job, name: str) -> Content:
    """Return a file by its listed name; a name that is not in the list never becomes a path."""
    found = artifact_of(job, name)
    folder = await asyncio.to_thread(desk.files.published, job.id)
    if folder is None:
        raise InternalError("the job's artifacts are not where they should be")
    return _described(folder, found)


def _described(folder: Path, artifact: Artifact) -> Content:
    return Content(
        path=folder / artifact.name,
        name=artifact.name,
        size=artifact.size,
        sha256=artifact.sha256,
        media_type=artifact.media_type,
    )
