"""``/jobs/{id}/artifacts/{name}/link``: a result for someone who has no key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from service.desk import desk_of
from service.documents import job_of
from service.links import LIFETIME_SECONDS, MAX_SECONDS
from service.openapi import problems
from service.principal import principal_of
from service.routes.artifacts import artifact_of

router = APIRouter(tags=["results"])


class Link(BaseModel):
    """Where a file can be fetched without a key, and until when."""

    href: str
    expires_at: datetime


@router.post(
    "/jobs/{job_id}/artifacts/{name}/link",
    status_code=201,
    responses={201: {"model": Link}, **problems(400, 404, 409)},
)
async def make_link(
    request: Request,
    job_id: str,
    name: str,
    seconds: Annotated[
        int, Query(ge=1, le=MAX_SECONDS, description="How long it works.")
    ] = LIFETIME_SECONDS,
) -> Response:
    """Make a signed link to one artifact; whoever has it can download the file until it expires."""
    desk = desk_of(request)
    artifact = artifact_of(await job_of(desk, job_id), name)
    path = f"/jobs/{job_id}/artifacts/{artifact.name}"
    href, expires = desk.links.sign(path, principal_of(request).tenant, seconds)
    link = Link(href=href, expires_at=datetime.fromtimestamp(expires, UTC))
    return Response(link.model_dump_json(), 201, media_type="application/json")
