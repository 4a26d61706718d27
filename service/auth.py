"""Who may come in: one bearer key for the whole API; health and documentation are open."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from planish.contract.errors import Unauthorized
from service.errors import problem_response

# Health checks, and the documentation: it holds no data, and a browser has no key to send for it.
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
DOCS = "/docs"


class KeyCheck:
    """Compares ``Authorization: Bearer`` in constant time. Without a key everybody is let in."""

    def __init__(self, api_key: str | None) -> None:
        self._expected = None if api_key is None else api_key.encode("ascii")

    def allows(self, authorization: bytes) -> bool:
        """Tell whether the value of an ``Authorization`` header is right."""
        if self._expected is None:
            return True
        scheme, _, key = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._expected)


class AuthMiddleware:
    """Answers 401 before any route, so that no route can forget it."""

    def __init__(self, app: ASGIApp, check: KeyCheck) -> None:
        self.app, self.check = app, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not is_open(scope["path"]):
            sent = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
            if not self.check.allows(sent):
                error = Unauthorized("send the header Authorization: Bearer <key>")
                await problem_response(error, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def is_open(path: str) -> bool:
    """Tell whether a path needs no key."""
    return path in OPEN_PATHS or path == DOCS or path.startswith(f"{DOCS}/")
