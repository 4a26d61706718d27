"""``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import os
import tempfile

import redis
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from planish.contract.errors import Unavailable
from planish.contract.problem import FieldError
from planish.contract.wire import JOB_QUEUE
from service.desk import Desk, desk_of
from service.metrics import CONTENT_TYPE
from service.openapi import content

router = APIRouter(tags=["operations"])

JSON = "application/json"


class Health(BaseModel):
    """Liveness."""

    status: str = "ok"


class Readiness(BaseModel):
    """Readiness: how many workers take jobs."""

    status: str = "ready"
    workers: int


@router.get("/healthz", responses={200: {"model": Health}})
async def liveness() -> Response:
    """Say that this process answers."""
    return Response(Health().model_dump_json(), media_type=JSON)


@router.get("/readyz", responses={200: {"model": Readiness}})
async def readiness(request: Request) -> Response:
    """Say whether jobs can be accepted and run; 503 names what is missing."""
    desk = desk_of(request)
    workers, faults = await asyncio.to_thread(_look, desk)
    if faults:
        raise Unavailable("; ".join(fault.detail for fault in faults), tuple(faults))
    return Response(Readiness(workers=workers).model_dump_json(), media_type=JSON)


@router.get(
    "/metrics",
    responses={200: content("Prometheus text format.", "text/plain", schema={"type": "string"})},
)
async def metrics(request: Request) -> Response:
    """Read the metrics of this API process and of the queue."""
    text = await asyncio.to_thread(desk_of(request).metrics.render)
    return Response(text, headers={"content-type": CONTENT_TYPE})


def _look(desk: Desk) -> tuple[int, list[FieldError]]:
    faults = []
    workers = 0
    try:
        fleet = desk.ledger.fleet()
        workers = sum(JOB_QUEUE in worker.queues for worker in fleet.workers)
        if not workers:
            faults.append(FieldError(pointer="/workers", detail="no worker is connected"))
    except redis.RedisError:
        faults.append(FieldError(pointer="/redis", detail="Redis cannot be reached"))
    try:
        with tempfile.NamedTemporaryFile(dir=desk.settings.store.data_dir) as file:
            os.write(file.fileno(), b"ready")
    except OSError as error:
        reason = f"the data folder cannot be written: {error.strerror}"
        faults.append(FieldError(pointer="/storage", detail=reason))
    return workers, faults
