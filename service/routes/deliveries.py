"""``/jobs/{id}/deliveries``: what became of a job's webhook, and once more."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from planish.contract.errors import NotFinished, NotFound
from planish.store.outbox import Delivery
from service.desk import desk_of
from service.documents import job_of
from service.openapi import problems

router = APIRouter(tags=["jobs"])


class DeliveryList(BaseModel):
    """Every try to deliver a job's message, oldest first."""

    items: tuple[Delivery, ...]


@router.get("/jobs/{job_id}/deliveries", responses={200: {"model": DeliveryList}, **problems(404)})
async def list_deliveries(request: Request, job_id: str) -> Response:
    """List the tries to deliver the job's webhook."""
    desk = desk_of(request)
    await job_of(desk, job_id)
    found = DeliveryList(items=await asyncio.to_thread(desk.outbox.log, job_id))
    return Response(found.model_dump_json(), media_type="application/json")


@router.post(
    "/jobs/{job_id}/deliveries",
    status_code=202,
    response_class=Response,
    responses=problems(404, 409),
)
async def deliver_again(request: Request, job_id: str) -> Response:
    """Deliver the webhook of a finished job once more, whatever became of it before."""
    desk = desk_of(request)
    job = await job_of(desk, job_id)
    if job.spec.webhook is None:
        raise NotFound("the job has no webhook")
    if not job.terminal:
        raise NotFinished(f"the job is {job.status.value}; its message goes out when it is over")
    await asyncio.to_thread(desk.outbox.put, job_id)
    return Response(status_code=202)
