"""``/jobs/{id}/events`` and ``/jobs/{id}/logs``: what happens, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import redis
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from planish.contract.job import EventList
from planish.store.job_files import LOG
from service.desk import Desk, desk_of
from service.documents import check_job_id, document, job_of
from service.negotiate import choose, event_id
from service.openapi import content, problems

router = APIRouter(tags=["jobs"])

SSE = "text/event-stream"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
EVENT = {
    "type": "object",
    "description": "One event of the stream; `data` is the JSON of an `Event`.",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    "required": ["id", "event", "data"],
}
KEEP_ALIVE = b": keep-alive\n\n"
PAGE = 1000
LOG_POLL_SECONDS = 1.0
LOG_CHUNK = 256 << 10


@router.get(
    "/jobs/{job_id}/events",
    response_model=None,
    responses={
        200: {
            "model": EventList,
            "description": "A stream that ends after `job.finished`, or with "
            "`Accept: application/json` the list so far. `id` counts from 1, `event` is the type.",
            "content": {SSE: {"schema": EVENT}},
        },
        **problems(400, 404),
    },
)
async def job_events(
    request: Request,
    job_id: str,
    after: Annotated[str | None, Query(description="Only events after this id.")] = None,
    last_event_id: Annotated[str | None, Header(description="As `after`; wins over it.")] = None,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """Follow a job by Server-Sent Events; a client that comes back gets what it missed."""
    desk = desk_of(request)
    kind = choose(accept, (SSE, JSON))
    start = event_id(last_event_id, "Last-Event-ID") or event_id(after, "after")
    await document(desk, check_job_id(job_id))
    if kind == JSON:
        body = await asyncio.to_thread(_list, desk, job_id, start)
        return Response(body, media_type=JSON)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_frames(desk, job_id, start), headers=headers, media_type=SSE)


@router.get(
    "/jobs/{job_id}/logs",
    response_class=Response,
    responses={
        200: content("The log so far.", "text/plain", schema={"type": "string"}),
        **problems(404),
    },
)
async def job_logs(
    request: Request,
    job_id: str,
    follow: Annotated[
        Literal["0", "1", "true", "false"],
        Query(description="`1`: go on until the job is finished."),
    ] = "0",
) -> Response:
    """Read what the job's process printed, all attempts in order."""
    desk = desk_of(request)
    await document(desk, check_job_id(job_id))
    if follow in ("1", "true"):
        return StreamingResponse(_follow_log(desk, job_id), media_type=TEXT)
    return StreamingResponse(_LogReader(desk, job_id).rest(), media_type=TEXT)


def _list(desk: Desk, job_id: str, after: int) -> bytes:
    items = []
    while found := desk.ledger.events(job_id, after, PAGE):
        items += found
        after = found[-1].id
        if len(found) < PAGE:
            break
    return EventList(items=tuple(items)).model_dump_json().encode()


async def _frames(desk: Desk, job_id: str, after: int) -> AsyncIterator[bytes]:
    """Yield SSE frames; when Redis goes away the stream ends and the client comes back."""
    try:
        async for frames in desk.hub.follow(job_id, after):
            yield b"".join(frame for _, frame in frames) or KEEP_ALIVE
    except redis.RedisError:
        return


class _LogReader:
    """Reads the logs of all attempts, one after the other, from where it stopped."""

    def __init__(self, desk: Desk, job_id: str) -> None:
        self._desk, self._job_id = desk, job_id
        self._attempt = self._offset = 0

    async def rest(self) -> AsyncIterator[bytes]:
        """Yield everything that is there and has not been read."""
        while piece := await asyncio.to_thread(self._read):
            yield piece

    def _read(self) -> bytes:
        logs = [folder / LOG for _, _, folder in self._desk.files.attempts(self._job_id)]
        while self._attempt < len(logs):
            if piece := self._piece(logs[self._attempt]):
                self._offset += len(piece)
                return piece
            if self._attempt + 1 == len(logs):
                return b""
            self._attempt, self._offset = self._attempt + 1, 0
        return b""

    def _piece(self, log: Path) -> bytes:
        try:
            with log.open("rb") as file:
                file.seek(self._offset)
                return file.read(LOG_CHUNK)
        except FileNotFoundError:
            return b""


async def _follow_log(desk: Desk, job_id: str) -> AsyncIterator[bytes]:
    reader = _LogReader(desk, job_id)
    while True:
        terminal = (await job_of(desk, job_id)).terminal
        async for piece in reader.rest():
            yield piece
        if terminal or desk.leaving.is_set():
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(desk.leaving.wait(), LOG_POLL_SECONDS)
