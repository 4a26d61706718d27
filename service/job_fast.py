"""``GET /jobs/{id}`` before the framework: key check, one pipelined Redis read, ETag and 304.

Only plain hits are answered here. Everything else (no such job, no key, ``Prefer: wait``, Redis
down) goes on to the app, so each answer is described in one place.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from planish.contract.errors import PlanishError
from planish.contract.wire import JOB_ID, PREFIX_JOB
from service.auth import Gatekeeper
from service.conditional import etag_of, matches
from service.hosts import Hosts
from service.metrics import Metrics
from service.request_id import request_id_of, response_headers
from service.shares import ReadShare

ROUTE = "/jobs/{job_id}"
MAX_TAGS = 1000
_FOLDER = "/jobs/"
_PREFIX = _FOLDER + PREFIX_JOB
_NO_TAG = (b"", b"")
_JSON = (b"content-type", b"application/json")
_NO_CACHE = (b"cache-control", b"private, no-cache")

ReadDocument = Callable[[str], Awaitable[tuple[bytes, str] | None]]
"""From a job id to the Job document and the tenant whose job it is."""


class JobFastPath:
    """Wraps the whole app; `read` returns the ready JSON bytes of a job."""

    def __init__(
        self,
        app: ASGIApp,
        read: ReadDocument,
        gate: Gatekeeper,
        hosts: Hosts,
        reads: ReadShare,
        metrics: Metrics,
    ) -> None:
        self.app, self.read, self.gate, self.hosts = app, read, gate, hosts
        self.reads, self.metrics = reads, metrics
        self._tags: dict[str, tuple[bytes, bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if (
            scope["type"] == "http"
            and scope["path"].startswith(_PREFIX)
            and scope["method"] == "GET"
        ):
            started = time.perf_counter()
            asked = self._asked(scope)
            body = None if asked is None else await self._document(scope["path"], asked[1])
            if body is not None and asked is not None:
                known = asked[0]
                etag = self._etag(scope["path"], body)
                status = await _send(scope, send, body, etag, known)
                self.metrics.count(ROUTE, "GET", status, time.perf_counter() - started)
                return
        await self.app(scope, receive, send)

    def _asked(self, scope: Scope) -> tuple[bytes, str] | None:
        """Return ``If-None-Match`` (or b"") and the tenant; None when the app is to answer."""
        authorization = if_none_match = host = b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"authorization":
                authorization = value
            elif name == b"if-none-match":
                if_none_match = value
            elif name == b"prefer":
                return None
        if not self.hosts.knows(host):
            return None
        try:
            principal = self.gate.admit(authorization, "GET", scope["path"])
        except PlanishError:
            return None
        # A read over the share is answered by the app.
        within = self.reads.take(principal.tenant).allowed
        return (if_none_match, principal.tenant) if within else None

    async def _document(self, path: str, tenant: str) -> bytes | None:
        job_id = path.removeprefix(_FOLDER)
        try:
            found = await self.read(job_id) if JOB_ID.match(job_id) else None
        except OSError:
            return None
        return found[0] if found is not None and found[1] == tenant else None

    def _etag(self, path: str, body: bytes) -> bytes:
        """Return the entity tag of a document; most polls find the one of the poll before."""
        last, etag = self._tags.get(path, _NO_TAG)
        if last != body:
            etag = etag_of(body)
            if len(self._tags) >= MAX_TAGS:
                self._tags.clear()
            self._tags[path] = body, etag
        return etag


async def _send(scope: Scope, send: Send, body: bytes, etag: bytes, if_none_match: bytes) -> int:
    headers = [*response_headers(request_id_of(scope)), (b"etag", etag), _NO_CACHE]
    if if_none_match and matches(if_none_match, etag):
        status, body = 304, b""
    else:
        status = 200
        headers += (_JSON, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    return status
