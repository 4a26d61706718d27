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
from planish.contract.guards import Guard, is_guarded
from planish.contract.problem import FieldError
from planish.contract.wire import JOB_QUEUE
from planish.store.fleet import Fleet, WorkerInfo
from service.desk import Desk, desk_of
from service.metrics import CONTENT_TYPE
from service.openapi import content

router = APIRouter(tags=["operations"])

JSON = "application/json"


class Health(BaseModel):
    """Liveness."""

    status: str = "ok"


class Readiness(BaseModel):
    """Readiness: how many workers take jobs, and how well they can lock uploads in.

    Attributes:
        status: always ``ready``; a service that is not answers 503.
        workers: that take jobs.
        guarded: whether every worker's kernel gives the sandbox. Without it they take safetensors
            alone, unless the operator allows more.
        guards: each guard, as the weakest worker has it.
    """

    status: str = "ready"
    workers: int
    guarded: bool
    guards: tuple[Guard, ...]


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
    guards = Fleet(workers).guards
    found = Readiness(workers=len(workers), guarded=is_guarded(guards), guards=guards)
    return Response(found.model_dump_json(), media_type=JSON)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: content("Prometheus text format.", "text/plain", schema={"type": "string"})},
)
async def metrics(request: Request) -> Response:
    """Read the metrics of this API process and of the queue."""
    text = await asyncio.to_thread(desk_of(request).metrics.render)
    return Response(text, headers={"content-type": CONTENT_TYPE})


def _look(desk: Desk) -> tuple[tuple[WorkerInfo, ...], list[FieldError]]:
    """Return the workers that take jobs, and what is missing."""
    faults = []
    workers: tuple[WorkerInfo, ...] = ()
    try:
        fleet = desk.ledger.fleet()
        workers = tuple(worker for worker in fleet.workers if JOB_QUEUE in worker.queues)
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
