"""``POST /plans``: what a recipe would do to a model, without doing it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import redis
from fastapi import APIRouter, Request
from starlette.responses import Response

from planish.contract.errors import (
    AlreadyTerminal,
    NotFound,
    PlanishError,
    Unavailable,
    error_from,
)
from planish.contract.problem import ErrorInfo
from planish.contract.report import Plan
from planish.contract.spec import Spec
from planish.contract.wire import PLAN_QUEUE
from planish.store.records import Outcome
from service.desk import Desk, desk_of
from service.openapi import problems, submission_body
from service.principal import principal_of
from service.routes.jobs import cancel, forget
from service.submission import accept, receive_spec

router = APIRouter(tags=["plans"])
log = logging.getLogger("planish.service")

WAIT_SECONDS = 60


@router.post(
    "/plans",
    responses={200: {"model": Plan}, **problems(400, 413, 415, 422, 507)},
    openapi_extra=submission_body(),
)
async def make_plan(request: Request) -> Response:
    """Load the model and say which layers each pass would touch or skip, and why.

    Takes the same bodies as `POST /jobs`, does no work and leaves no job. Files that came along are
    kept as with `POST /files`.
    """
    desk = desk_of(request)
    spec = await receive_spec(desk, request)
    if not (await asyncio.to_thread(desk.ledger.fleet)).serves(PLAN_QUEUE):
        raise Unavailable("no worker is connected, and plans need one; start one: planish worker")
    tenant = principal_of(request).tenant
    plan_id = await asyncio.to_thread(accept, desk, _limited(spec), tenant, "plan")
    try:
        outcome = await _outcome(desk, plan_id)
    finally:
        task = asyncio.create_task(_clean_up(desk, plan_id))
        desk.background.add(task)
        task.add_done_callback(desk.background.discard)
    if outcome is None:
        raise Unavailable(f"no worker made the plan within {WAIT_SECONDS} seconds; try again")
    if outcome.plan is None:
        raise error_of(outcome.error)
    return Response(outcome.plan.model_dump_json(), media_type="application/json")


def _limited(spec: Spec) -> Spec:
    """A plan that nobody waits for any more must not run on."""
    limits = {"run_seconds": WAIT_SECONDS, "start_by_seconds": WAIT_SECONDS}
    return spec.model_copy(update={"resources": spec.resources.model_copy(update=limits)})


async def _outcome(desk: Desk, plan_id: str) -> Outcome | None:
    """Return how the plan ended, None when it has not within `WAIT_SECONDS`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(WAIT_SECONDS):
            async for _ in desk.hub.follow(plan_id):
                if outcome := await asyncio.to_thread(desk.files.outcome, plan_id):
                    return outcome
    return await asyncio.to_thread(desk.files.outcome, plan_id)


async def _clean_up(desk: Desk, plan_id: str) -> None:
    """Cancel the plan if it is alive, wait for its end, forget it."""
    try:
        with suppress(AlreadyTerminal, NotFound):
            await asyncio.to_thread(cancel, desk, plan_id)
        async with asyncio.timeout(2 * WAIT_SECONDS):
            async for _ in desk.hub.follow(plan_id):
                pass
        with suppress(NotFound):
            await asyncio.to_thread(forget, desk, plan_id)
    except (redis.RedisError, PlanishError, OSError) as error:
        log.warning("%s is left to recovery: %s", plan_id, error)


def error_of(info: ErrorInfo | None) -> PlanishError:
    """Return the error that a plan ended with, to be raised again."""
    if info is None:
        return Unavailable("the plan ended without a result; try again")
    error = error_from(info.code, info.detail, info.errors)
    if error.status >= 500:
        return Unavailable(f"{info.title}: {info.detail}", info.errors)
    return error
