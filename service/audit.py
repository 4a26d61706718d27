"""What goes into the audit log: everything that changes something, and everything refused.

Reads are not logged, but for downloads of artifacts. Lines are written by one thread, in the order
of the answers, so that no request waits for the disk; they are all out when the service stops.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from planish.store.audit import Audit
from service.principal import principal_of_scope
from service.request_id import request_id_of

READING = frozenset({"GET", "HEAD", "OPTIONS"})
REFUSED = frozenset({401, 403})
_ACTIONS = {
    ("POST", "jobs"): "job.submitted",
    ("POST", "cancel"): "job.cancelled",
    ("DELETE", "jobs"): "job.deleted",
    ("POST", "files"): "file.uploaded",
    ("DELETE", "files"): "file.deleted",
    ("POST", "plans"): "plan.made",
    ("GET", "artifacts"): "artifact.downloaded",
}


class AuditMiddleware:
    """Notes each request that is worth it, once its answer begins."""

    def __init__(self, app: ASGIApp, audit: Audit) -> None:
        self.app, self.audit = app, audit
        self._writer = ThreadPoolExecutor(1, "audit")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            if scope["type"] == "lifespan":
                self._writer.shutdown()
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message["status"])
            await send(message)

        await self.app(scope, receive, told)

    def _note(self, scope: Scope, status: int) -> None:
        action = _action(scope["method"], scope["path"])
        refused = status in REFUSED
        if not refused and (action is None or status >= 400):
            return
        principal = principal_of_scope(scope)
        client = scope.get("client")
        self._writer.submit(
            partial(
                self.audit.record,
                action or "request",
                tenant=principal.tenant,
                key_id=principal.key_id,
                target=f"{scope['method']} {scope['path']}",
                outcome=str(status) if refused else "done",
                address=client[0] if client else None,
                request_id=request_id_of(scope).decode("latin-1"),
            )
        )


def _action(method: str, path: str) -> str | None:
    """Return what a request does; None for what only looks."""
    parts = path.strip("/").split("/")
    if method == "GET" and not (len(parts) == 4 and parts[2] == "artifacts"):
        return None
    noun = parts[2] if len(parts) > 2 else parts[0]
    found = _ACTIONS.get((method, noun))
    return found or (None if method in READING else f"{parts[0]}.{method.lower()}")
