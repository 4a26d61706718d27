"""Outermost middleware: a request id and the security headers on every response.

Pure ASGI: Starlette's `BaseHTTPMiddleware` costs more than the whole of a status poll.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from planish.contract.wire import HEADER_REQUEST_ID

log = logging.getLogger("planish.service")

Headers = list[tuple[bytes, bytes]]

_NAME = HEADER_REQUEST_ID.lower().encode()
_ACCEPTED = re.compile(rb"^[A-Za-z0-9._:-]{1,64}$")
_ALWAYS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
# For whatever is no page: a browser that shows it all the same runs and loads nothing.
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_PROCESS = secrets.token_hex(4).encode()
_numbers = itertools.count(1)
_NO_STORE = (b"cache-control", b"no-store")


def request_id_of(scope: Scope) -> bytes:
    """Return the id of a request: the client's, if it sent a decent one, else a new one."""
    for name, value in scope["headers"]:
        if name == _NAME and _ACCEPTED.match(value):
            return bytes(value)
    return new_request_id()


def new_request_id() -> bytes:
    """Return an id that no other request of this process has."""
    return b"%s%08x" % (_PROCESS, next(_numbers))


def response_headers(request_id: bytes) -> Headers:
    """Return the headers that every response carries, unless it has a policy of its own."""
    return [(_NAME, request_id), *_ALWAYS, _POLICY]


class RequestIdMiddleware:
    """Sets ``scope["state"]["request_id"]`` and the response headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id.decode()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Headers = list(message.get("headers", ()))
                own = {name for name, _ in headers}
                wanted = (*response_headers(request_id), _NO_STORE)
                message["headers"] = [*headers, *(h for h in wanted if h[0] not in own)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:  # answered by the app's handler where that was still possible
            log.exception("request %s failed", request_id.decode())
