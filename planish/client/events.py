"""Follows a job's events: Server-Sent Events, resumed after the last one that arrived."""

from __future__ import annotations

import time
from http import HTTPStatus

from pydantic import ValidationError

from planish.client.calls import job_path
from planish.client.exchange import (
    Flow,
    Reply,
    Request,
    drain,
    emit,
    open_stream,
    read_chunk,
    sleep,
)
from planish.client.failures import check
from planish.client.retry import RETRY_STATUS, pause, retry_after
from planish.contract.errors import InternalError, ServerUnreachable
from planish.contract.job import Event, EventType

PATIENCE_SECONDS = 120.0
MAX_FRAME = 4 << 20


class Frames:
    """Splits a byte stream into the data of its SSE frames (WHATWG HTML, section 9.2.6)."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every frame that `chunk` completes; comments are dropped."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_FRAME:
            raise InternalError("the event stream has a line without an end")
        found = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data = []
        return found


def follow_events(job_id: str, after: int) -> Flow[None]:
    """Emit every event after id `after`, each once and in order, until the job is finished.

    Raises:
        ServerUnreachable: the server is away for two minutes.
        NotFound: there is no such job.
    """
    last, failures, heard = after, 0, time.monotonic()
    while True:
        request = _request(job_id, last)
        frames = Frames()
        try:
            yield from _opened(request)
            while chunk := (yield from read_chunk()):
                heard, failures = time.monotonic(), 0
                for data in frames.feed(chunk):
                    event = _event(data)
                    if event.id <= last:
                        continue
                    last = event.id
                    yield from emit(event)
                    if event.type == EventType.FINISHED:
                        return
        except ServerUnreachable:
            if time.monotonic() - heard > PATIENCE_SECONDS:
                raise
        if time.monotonic() - heard > PATIENCE_SECONDS:
            raise ServerUnreachable(f"{request.name}: the stream ends again and again")
        yield from sleep(pause(failures))
        failures += 1


def follow_logs(job_id: str) -> Flow[None]:
    """Emit the log as pieces of text until the job is finished; resumed where it broke off.

    Raises:
        ServerUnreachable: the server is away for two minutes.
        NotFound: there is no such job.
    """
    seen, failures, heard = 0, 0, time.monotonic()
    request = Request("GET", job_path(job_id, "logs"), {"follow": 1}, read_seconds=PATIENCE_SECONDS)
    while True:
        skip = seen
        try:
            yield from _opened(request)
            while chunk := (yield from read_chunk()):
                heard, failures = time.monotonic(), 0
                fresh = chunk[skip:]
                skip = max(skip - len(chunk), 0)
                if fresh:
                    seen += len(fresh)
                    yield from emit(fresh)
        except ServerUnreachable:
            if time.monotonic() - heard > PATIENCE_SECONDS:
                raise
            yield from sleep(pause(failures))
            failures += 1
        else:
            return


def _opened(request: Request) -> Flow[None]:
    reply = yield from open_stream(request)
    if reply.status < HTTPStatus.BAD_REQUEST:
        return
    whole = Reply(reply.status, reply.headers, (yield from drain()))
    if reply.status in RETRY_STATUS:
        yield from sleep(retry_after(reply) or 0.0)
        raise ServerUnreachable(f"{request.name} was answered {reply.status}")
    check(request, whole)


def _request(job_id: str, last: int) -> Request:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last:
        headers["Last-Event-ID"] = str(last)
    return Request("GET", job_path(job_id, "events"), headers=headers)


def _event(data: bytes) -> Event:
    try:
        return Event.model_validate_json(data)
    except ValidationError:
        raise InternalError(f"an event cannot be read: {data[:200]!r}") from None
