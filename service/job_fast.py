"""``GET /jobs/{id}`` before the framework: key check, one pipelined Redis read, ETag and 304.

Only plain hits are answered here. Everything else (no such job, no key, ``Prefer: wait``, Redis
down) goes on to the app, so each answer is described in one place.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from planish.contract.wire import JOB_ID, PREFIX_JOB
from service.auth import KeyCheck
from service.conditional import etag_of, matches
from service.metrics import Metrics
from service.request_id import request_id_of, response_headers

PREFIX = "/jobs/" + PREFIX_JOB
_JSON = (b"content-type", b"application/json")
_NO_CACHE = (b"cache-control", b"private, no-cache")

ReadDocument = Callable[[str], Awaitable[bytes | None]]


class JobFastPath:
    """Wraps the whole app; `read` returns the ready JSON bytes of a job."""

    def __init__(self, app: ASGIApp, read: ReadDocument, check: KeyCheck, metrics: Metrics) -> None:
        self.app, self.read, self.check, self.metrics = app, read, check, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if not (
            scope["type"] == "http"
            and scope["method"] == "GET"
            and scope["path"].startswith(PREFIX)
            and await self._answer(scope, send)
        ):
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, send: Send) -> bool:
        started = time.perf_counter()
        job_id = scope["path"].removeprefix("/jobs/")
        authorization = if_none_match = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"if-none-match":
                if_none_match = value
            elif name == b"prefer":
                return False
        if not (JOB_ID.match(job_id) and self.check.allows(authorization)):
            return False
        try:
            body = await self.read(job_id)
        except OSError:
            return False
        if body is None:
            return False
        unchanged = await _send(scope, send, body, if_none_match)
        self.metrics.poll(started, unchanged)
        return True


async def _send(scope: Scope, send: Send, body: bytes, if_none_match: bytes) -> bool:
    etag = etag_of(body)
    headers = [*response_headers(request_id_of(scope)), (b"etag", etag), _NO_CACHE]
    unchanged = bool(if_none_match) and matches(if_none_match, etag)
    if unchanged:
        body = b""
    else:
        headers += [_JSON, (b"content-length", b"%d" % len(body))]
    status = 304 if unchanged else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    return unchanged
